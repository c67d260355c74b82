from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagery.estimating.interval import Sums, Z, assisted, ratio, wilson

# Error matrices of Olofsson et al., rows the map's classes, which are the strata, columns the reference. 2013: example
# 1, https://doi.org/10.1016/j.rse.2012.10.031, areas in ha; 2014: table 8, https://doi.org/10.1016/j.rse.2014.02.015,
# areas in pixels. Both as they stand in https://github.com/hagc/mapaccuracy (R/olofsson.R).
OLOFSSON = {
    2013: ([[97, 0, 3], [3, 279, 18], [2, 1, 97]], [22353, 1122543, 610228]),
    2014: (
        [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]],
        [200000, 150000, 3200000, 6450000],
    ),
}


def counts(judged: list[int], hits: list[int]) -> Sums:
    n, x = np.array(judged, float), np.array(hits, float)
    return Sums(n, n, n, x, x)


@pytest.mark.parametrize(
    ("year", "class_"), [(2013, 0), (2013, 1), (2013, 2), (2014, 0), (2014, 1), (2014, 2), (2014, 3)]
)
def test_area_and_error_are_those_of_the_published_matrices(year: int, class_: int) -> None:
    """Against the formulas of the papers in exact fractions: equations 9 and 12 of 2013, 9 to 11 of 2014."""
    matrix, areas = OLOFSSON[year]
    weights = [Fraction(area, sum(areas)) for area in areas]
    shares = [Fraction(row[class_], sum(row)) for row in matrix]
    share = sum(weight * own for weight, own in zip(weights, shares, strict=True))
    variance = sum(
        weight**2 * own * (1 - own) / (sum(row) - 1) for weight, own, row in zip(weights, shares, matrix, strict=True)
    )
    many = np.array(areas) * 10**6  # so many parts that the correction for a finite population is nothing
    found = ratio(
        many, counts([sum(row) for row in matrix], [row[class_] for row in matrix]), np.array(1.0 * many.sum())
    )
    assert float(found.share) == pytest.approx(float(share), rel=1e-12)
    assert float(found.error) == pytest.approx(sqrt(variance), rel=1e-6)


def test_the_first_class_of_2014_is_a_share_of_235_of_10000() -> None:
    """0.02 x 66/75 + 0.32 x 1/165 + 0.645 x 2/325 = 0.023509: the numbers of the matrix, by hand."""
    areas = OLOFSSON[2014][1]
    found = ratio(np.array(areas), counts([75, 75, 165, 325], [66, 0, 1, 2]), np.array(1e7))
    assert float(found.share) == pytest.approx(0.0176 + 0.32 / 165 + 1.29 / 325, rel=1e-12)
    assert float(found.share) == pytest.approx(0.023509, abs=5e-7)


# As they stand in the paper of 2014, p. 54, with 95 % intervals: areas in ha, a pixel of which is 0.09, and accuracies.
AREAS_PRINTED = ((21158, 6158), (11686, 3756), (285770, 15510), (581386, 16282))


@pytest.mark.parametrize("class_", range(4))
def test_areas_are_those_printed_in_the_paper(class_: int) -> None:
    matrix, areas = OLOFSSON[2014]
    column = counts([sum(row) for row in matrix], [row[class_] for row in matrix])
    found = ratio(np.array(areas), column, np.array(1.0 * sum(areas)))
    hectares = 0.09 * sum(areas)
    area, half = AREAS_PRINTED[class_]
    assert float(found.share) * hectares == pytest.approx(area, abs=1)
    assert 1.96 * float(found.error) * hectares == pytest.approx(half, abs=2)  # ours corrects for what was judged


def test_wilson_is_that_of_the_closed_form() -> None:
    """The roots of (p - t)² = z² t (1 - t) / n, by bisection."""
    share, count = 2 / 199, 199.0

    def excess(t: float) -> float:
        return float((share - t) ** 2 - Z**2 * t * (1 - t) / count)

    def root(low: float, high: float) -> float:
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if (excess(low) > 0) == (excess(middle) > 0) else (low, middle)
        return low

    low, high = wilson(np.array(share), np.array(count))
    assert float(low) == pytest.approx(root(0, share), rel=1e-9)
    assert float(high) == pytest.approx(root(share, 1), rel=1e-9)
    assert [round(97541 * float(limit)) for limit in (low, high)] == [269, 3501]


def plain(sizes: list[int], judged: list[int], hits: list[int]) -> tuple[float, float, float]:
    """The formulas of the module's first part, one number after the other, as a page computes them."""
    total, n, x = sum(sizes), sum(judged), sum(hits)
    p = sum(size / total * h / m for size, m, h in zip(sizes, judged, hits, strict=True))
    p = min(max(p, x / total), 1 - (n - x) / total)
    variance = 0.0
    for size, m, h in zip(sizes, judged, hits, strict=True):
        if m < size:
            s = (h + p) / (m + 1)
            variance += (size / total) ** 2 * (1 - m / size) * s * (1 - s) / (m - 1)
    g = n / max(1 - n / total, 2.220446049250313e-16)
    m_e = g if x in (0, n) else min(max(p * (1 - p) / variance if variance else g * 2, 0.3 * g), 2 * g)
    z = Z * Z / m_e
    half = Z * sqrt(p * (1 - p) / m_e + z / 4 / m_e)
    low, high = (p + z / 2 - half) / (1 + z), (p + z / 2 + half) / (1 + z)
    return p, max(low, x / total, 0.0), min(high, 1 - (n - x) / total)


STRATA = st.lists(st.tuples(st.integers(3, 90), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)


def whole(strata: list[tuple[int, float, float]]) -> tuple[list[int], list[int], list[int]]:
    sizes = [size for size, _, _ in strata]
    judged = [2 + round(part * (size - 2)) for size, part, _ in strata]
    return sizes, judged, [round(part * m) for (_, _, part), m in zip(strata, judged, strict=True)]


@settings(deadline=None, max_examples=40)
@given(STRATA)
def test_shares_of_buildings_are_those_of_the_formulas_for_the_page(strata: list[tuple[int, float, float]]) -> None:
    sizes, judged, hits = whole(strata)
    found = ratio(np.array(sizes), counts(judged, hits), np.array(float(sum(sizes))))
    assert [float(value) for value in found[:3]] == pytest.approx(plain(sizes, judged, hits), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(STRATA)
def test_an_interval_holds_what_is_certain_and_has_no_width_only_where_all_is_judged(
    strata: list[tuple[int, float, float]],
) -> None:
    sizes, judged, hits = whole(strata)
    total, n, x = sum(sizes), sum(judged), sum(hits)
    share, low, high, _ = ratio(np.array(sizes), counts(judged, hits), np.array(float(total)))
    assert x / total <= low <= share <= high <= 1 - (n - x) / total
    assert (high - low < 1e-12) == (n == total)


def test_finds_of_one_kind_only_have_an_interval_all_the_same() -> None:
    sizes = np.array([100, 300])
    for hits, expected in (([0, 0], (0, 0)), ([10, 20], (1, 1))):
        share, low, high, error = (
            float(value) for value in ratio(sizes, counts([10, 20], hits), np.array(400.0))
        )  # fmt: skip
        assert (share, error) == (expected[0], 0)
        assert high - low == pytest.approx(Z**2 / (30 / (1 - 30 / 400) + Z**2), rel=1e-12)


def test_where_a_stratum_has_none_judged_nothing_is_known() -> None:
    share, low, high, error = ratio(np.array([10, 20]), counts([3, 0], [1, 0]), np.array(30.0))
    assert np.isnan(share) and np.isnan(error)
    assert (float(low), float(high)) == (0, 1)


def test_a_ratio_of_sizes_is_that_of_its_formula() -> None:
    generator = np.random.default_rng(0)
    sizes, judged = np.array([40, 90, 300]), np.array([10, 12, 20])
    size = [generator.gamma(2, 50, n) * (generator.random(n) < 0.8) for n in judged]  # a fifth outside of the domain
    hit = [generator.random(n) < chance for n, chance in zip(judged, (0.7, 0.4, 0.2), strict=True)]
    domain = sum(N / n * a.sum() for N, n, a in zip(sizes, judged, size, strict=True))
    share = sum(N / n * a[y].sum() for N, n, a, y in zip(sizes, judged, size, hit, strict=True)) / domain
    variance = sum(
        N**2 * (1 - n / N) * np.var(a * (y - share), ddof=1) / n
        for N, n, a, y in zip(sizes, judged, size, hit, strict=True)
    )
    sums = Sums(
        judged.astype(float),
        *(np.array(v) for v in zip(*(
            (a.sum(), (a**2).sum(), a[y].sum(), (a[y] ** 2).sum()) for a, y in zip(size, hit, strict=True)
        ), strict=True)),
    )  # fmt: skip
    found = ratio(sizes, sums, np.array(60000.0))
    assert float(found.share) == pytest.approx(share, rel=1e-12)
    assert float(found.error) == pytest.approx(sqrt(variance) / domain, rel=1e-9)
    assert found.low < share < found.high


def test_a_perfect_model_leaves_the_least_interval_and_a_constant_one_the_design_based() -> None:
    sizes, judged, hits = np.array([100, 400]), np.array([20.0, 30.0]), np.array([12.0, 3.0])
    sums = Sums(judged, judged, judged, hits, hits)
    most = np.array(500.0)
    perfect = assisted(sizes, sums, most, np.array(80.0), np.zeros(2), np.zeros(2))
    assert float(perfect.share) == pytest.approx(0.16)
    assert float(perfect.error) == 0
    assert np.allclose(perfect[1:3], wilson(np.array(0.16), np.array(2 * 50 / 0.9)), rtol=1e-12)
    p = float(ratio(sizes, sums, most).share)
    constant = assisted(
        sizes, sums, most, np.array(500 * p), hits - p * judged, hits * (1 - p) ** 2 + (judged - hits) * p**2
    )
    assert np.allclose(constant, ratio(sizes, sums, most), rtol=1e-12)

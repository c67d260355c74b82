from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from base.errors import InputError
from benchmarks.sampling import made_population, main, measure, read_population
from imagery.estimating.cross_fitting import recalibrating
from imagery.estimating.frame import Frame
from imagery.estimating.totals import DESIGN_BASED, MODEL_ASSISTED, estimate
from imagery.sampling.draw import draw_buildings
from imagery.sampling.judged import Prefix


@pytest.mark.parametrize(("share", "auc"), [(0.01, 0.9), (0.05, 0.95), (0.4, 0.8)])
def test_intervals_hold_the_truth_and_are_narrower_than_those_of_simple_random_samples(
    share: float, auc: float
) -> None:
    """The whole simulation stands in docs/benchmarks.md; these are 200 draws, and three deviations of 0.018."""
    rows = measure(made_population(share, auc, buildings=1000), 200, judged=(100,))
    sample, stopped = rows.iloc[0], rows.iloc[1]
    for method in ("design-based", "model-assisted"):
        assert 0.93 - 3 * 0.018 <= sample[method], method
        assert sample[f"width, {method}"] < (0.9 if auc >= 0.9 else 1.0), method
    assert 0.93 - 3 * 0.018 <= stopped["design-based"]
    assert sample["damaged found"] > 1


def test_the_simulation_estimates_as_the_product_does() -> None:
    """One draw of many at a time against `estimate`, where damaged is destroyed and the score its probability."""
    population = made_population(0.2, 0.9, buildings=400)
    rows = measure(population, 4, judged=(80,))
    widths: dict[str, list[float]] = {DESIGN_BASED: [], MODEL_ASSISTED: []}
    for seed in range(4):
        draw = draw_buildings(population.scores, population.places, seed, "")
        scores, truth = population.scores[draw.order], np.where(population.damaged[draw.order], 4, 1)
        shares = np.stack([1 - scores, np.zeros(400), np.zeros(400), scores], axis=1)
        found = estimate(Prefix(draw, truth[:80], 0), Frame(truth, np.ones(400)), recalibrating(shares)).table
        row = found[(found["category"] == "destroyed") & (found["unit"] == "buildings")].set_index("method")
        for method, values in widths.items():
            low, high = (float(str(row.loc[method, f"share_{side}"])) for side in ("low", "high"))
            values.append(high - low)
    ratio = np.mean(widths[MODEL_ASSISTED]) / np.mean(widths[DESIGN_BASED])
    assisted, designed = (float(str(rows.loc[0, f"width, {method}"])) for method in (MODEL_ASSISTED, DESIGN_BASED))
    assert assisted / designed == pytest.approx(ratio, rel=1e-6)


def table_of(count: int = 300) -> pd.DataFrame:
    population = made_population(0.2, 0.9, buildings=count)
    return pd.DataFrame(
        {
            "damaged": population.damaged.astype(int),
            "score": population.scores,
            "x": population.places[:, 0],
            "y": population.places[:, 1],
        }
    )


def test_a_map_with_known_truth_stands_for_the_made_populations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table_of().to_csv(tmp_path / "map.csv", index=False)
    main(["--draws", "10", "--population", str(tmp_path / "map.csv")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| n = 50 / 100 / 200 | simple random | design-based |")
    assert lines[2].startswith("| map | ") and lines[2].count("/") == 6 * 2
    assert lines[-1].startswith("stop: covers ")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"damaged": 2}, "found values out of range"),
        ({"score": 1.5}, "found values out of range"),
        ({"x": np.nan}, "found values out of range"),
        ({"score": "high"}, "found no numbers under all of damaged, score, x, y"),
    ],
)
def test_a_file_with_other_values_is_refused(tmp_path: Path, change: dict[str, Any], finding: str) -> None:
    path = tmp_path / "map.csv"
    table_of().assign(**change).to_csv(path, index=False)
    with pytest.raises(InputError, match=f"map.csv: {finding}"):
        read_population(path)


def test_a_file_without_a_column_or_with_few_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    table_of().drop(columns="score").to_csv(path, index=False)
    with pytest.raises(InputError, match=r"found no numbers .*'score'"):
        read_population(path)
    table_of().head(20).to_csv(path, index=False)
    with pytest.raises(InputError, match="found 20 buildings, expected 50 or more"):
        read_population(path)

"""How often the intervals of judged samples hold the truth, and how wide they are beside simple random sampling.

python -m benchmarks.sampling [--draws 2000] [--population FILE.csv]

Made populations: 20,000 buildings in clusters, 0.5, 5 and 40 % of them damaged, scores of AUC 0.8, 0.9 and 0.95 from a
model whose odds of damage are 5 times too low; n = 50, 100, 200 and 400. Damage is scattered, so that place tells
nothing, and in three more populations it depends on place as much as on chance. Each draw is one of
`imagery.sampling`, and each interval one of `imagery.estimating`, many at a time. Beside them: as many buildings by
simple random sampling with Wilson's interval. "Stop" judges 10 more until the interval is narrow enough, that is as
narrow as it is at n = 150 on the mean.

A FILE of a real map has the columns `damaged` (0 or 1, the truth), `score` (predicted probability of damage, 0 to 1),
and `x` and `y` in metres, a row for each building, and stands for the made populations.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from base.command_line import whole_number
from base.errors import InputError, errors_in_one_line
from imagery.estimating.cross_fitting import FOLDS
from imagery.estimating.interval import Floats, Share, Sums, assisted, ratio, wilson
from imagery.estimating.recalibration import logit, recalibrate
from imagery.sampling.draw import Draw, draw_buildings

BUILDINGS, SHARES, AUCS, JUDGED = 20_000, (0.005, 0.05, 0.4), (0.8, 0.9, 0.95), (50, 100, 200, 400)
STOPS, NARROW = range(50, 401, 10), 150
_GRID = 1 / 40  # of logits: a real score has steps, too, and predictions for equal scores are made once
_BATCH = 250  # draws at a time, for memory's sake
_METHODS = ("simple random", "design-based", "model-assisted")
_WIDTHS = ("width, design-based", "width, model-assisted")


@dataclass(frozen=True)
class Population:
    """name: of the row. damaged: bool [N]; scores: [N] probabilities; places: [N, 2] metres."""

    name: str
    damaged: npt.NDArray[np.bool_]
    scores: Floats
    places: Floats


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table with a row for each population, and what it comes to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=whole_number(10, 100_000), default=2000, metavar="N")
    parser.add_argument("--population", type=Path, metavar="FILE.csv", help="a real map in place of the made ones")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        populations = [read_population(arguments.population)] if arguments.population else [*made_populations()]
        table = pd.concat([measure(population, arguments.draws) for population in populations], ignore_index=True)
    print(_markdown(table))
    print()
    print(summary(table))


def made_populations() -> Iterator[Population]:
    """Those of the table."""
    for share in SHARES:
        for auc in AUCS:
            yield made_population(share, auc)
    for share in SHARES:
        yield made_population(share, 0.9, by_place=True)


def made_population(share: float, auc: float, buildings: int = BUILDINGS, by_place: bool = False) -> Population:
    """share: damaged of all; by_place: whether damage depends on place as much as on chance.

    The logit of the score is normal in both classes, of the distance that gives the AUC.
    """
    generator = np.random.default_rng([round(share * 1000), round(auc * 1000)])
    middles = generator.random((40, 2)) * 5000
    cluster = generator.integers(40, size=buildings)
    places = middles[cluster] + generator.normal(0, 150, (buildings, 2))
    hit = by_place * generator.normal(size=40)[cluster] + generator.normal(size=buildings)
    damaged = np.zeros(buildings, bool)
    damaged[np.argsort(-hit, kind="stable")[: round(share * buildings)]] = True
    distance = np.sqrt(2) * norm.ppf(auc)
    evidence = distance * (generator.normal(size=buildings) + damaged * distance - distance / 2)
    logits = np.round((evidence + logit(np.array(share)) - np.log(5)) / _GRID) * _GRID
    return Population(f"{share:.1%}, AUC {auc}{', by place' * by_place}", damaged, 1 / (1 + np.exp(-logits)), places)


def read_population(path: Path) -> Population:
    """Raises InputError, naming the file, where columns or values are not those that the module asks for."""
    try:
        table = pd.read_csv(path)
        values = {name: table[name].to_numpy(np.float64) for name in ("damaged", "score", "x", "y")}
    except (ValueError, KeyError, pd.errors.ParserError) as error:
        raise InputError(
            f"{path}: found no numbers under all of damaged, score, x, y ({error}), expected a CSV with these columns. "
            "Write one row for each building."
        ) from error
    damaged, score = values["damaged"], values["score"]
    if not (np.isin(damaged, (0, 1)).all() and ((score >= 0) & (score <= 1)).all() and np.isfinite(table["x"]).all()):
        raise InputError(
            f"{path}: found values out of range, expected damaged of 0 and 1 and score from 0 to 1. Correct the rows."
        )
    if len(table) < STOPS[0]:
        raise InputError(f"{path}: found {len(table)} buildings, expected {STOPS[0]} or more. Use a larger map.")
    return Population(path.stem, damaged == 1, score, np.stack([values["x"], values["y"]], axis=1))


def measure(population: Population, draws: int, judged: Sequence[int] = JUDGED) -> pd.DataFrame:
    """A row for each n below the number of buildings, with coverage and width relative to simple random sampling, of
    each method, and how many more damaged buildings are found; the last row is "stop".
    """
    truth, total = float(population.damaged.mean()), len(population.damaged)
    sizes = [count for count in judged if count < total]
    stops = [count for count in STOPS if count <= total]
    first, orders = _orders(population, draws, stops[-1])
    reference = _simple_random(population, draws, sizes)
    rows = []
    for count in sizes:
        design = _designed(population, first, orders, count)
        model = _assisted(population, first, orders, count)
        low, high = reference[count]
        rows.append(
            {
                "population": population.name,
                "n": str(count),
                "simple random": _covered(low, high, truth),
                "design-based": _covered(design.low, design.high, truth),
                "model-assisted": _covered(model.low, model.high, truth),
                "width, design-based": float((design.high - design.low).mean() / (high - low).mean()),
                "width, model-assisted": float((model.high - model.low).mean() / (high - low).mean()),
                "damaged found": float(population.damaged[orders[:, :count]].mean() / truth),
            }
        )
    return pd.DataFrame([*rows, _stopped(population, first, orders, stops)])


def summary(table: pd.DataFrame) -> str:
    """What the rows of a table come to, in lines."""
    rows, stopped = table[table["n"] != "stop"], table[table["n"] == "stop"]
    good = rows[rows["population"].str.contains("AUC 0.9")] if len(rows["population"].unique()) > 1 else rows
    lines = []
    for method in _METHODS:
        line = f"{method}: covers {rows[method].min():.3f} at least, {rows[method].mean():.3f} on the mean"
        if f"width, {method}" in rows:
            width = f"width, {method}"
            line += (
                f"; width {good[width].mean():.3f} on the mean of AUC 0.9 and above, {rows[width].max():.3f} at most"
            )
        lines.append(line)
    line = (
        f"stop: covers {stopped['design-based'].min():.3f} at least, {stopped['design-based'].mean():.3f} on the mean"
    )
    return "\n".join([*lines, line])


def _orders(population: Population, draws: int, count: int) -> tuple[Draw, npt.NDArray[np.int64]]:
    """The first draw, whose strata are those of all but for ties, and the first `count` of each, [draws, count]."""
    first = draw_buildings(population.scores, population.places, 0, "")
    orders = np.empty((draws, count), np.int64)
    for seed in range(draws):
        orders[seed] = draw_buildings(population.scores, population.places, seed, "").order[:count]
    return first, orders


def _designed(population: Population, draw: Draw, orders: npt.NDArray[np.int64], count: int) -> Share:
    sums = _sums(draw, population.damaged[orders[:, :count]].astype(np.float64))
    return ratio(draw.sizes, sums, np.full(len(orders), float(len(draw))))


def _sums(draw: Draw, hits: Floats) -> Sums:
    """hits: [draws, n] of 0 and 1."""
    found, judged = hits @ _members(draw, hits.shape[1]), draw.taken(hits.shape[1]).astype(np.float64)
    judged = np.broadcast_to(judged, found.shape)
    return Sums(judged, judged, judged, found, found)


def _members(draw: Draw, count: int) -> Floats:
    return np.asarray(draw.strata[:count, None] == np.arange(len(draw.sizes)), np.float64)


def _assisted(population: Population, draw: Draw, orders: npt.NDArray[np.int64], count: int) -> Share:
    parts = [
        _assisted_part(population, draw, orders[start : start + _BATCH, :count])
        for start in range(0, len(orders), _BATCH)
    ]
    return Share(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _assisted_part(population: Population, draw: Draw, orders: npt.NDArray[np.int64]) -> Share:
    count, members = orders.shape[1], _members(draw, orders.shape[1])
    logits, hits = logit(population.scores[orders]), population.damaged[orders].astype(np.float64)
    steps, holds = np.unique(logit(population.scores), return_counts=True)
    fold = ((members.cumsum(0) - 1) * members).sum(1) % FOLDS
    weights = 1 / draw.inclusion(count)[:count]
    errors, predicted = np.empty(orders.shape), np.zeros(len(orders))
    for number in range(FOLDS):
        out = fold == number
        curves = recalibrate(logits[:, ~out], hits[:, ~out], weights[~out])
        errors[:, out] = hits[:, out] - curves(logits[:, out])
        predicted += curves(steps) @ holds * out.mean()
    most = np.full(len(orders), float(len(draw)))
    return assisted(draw.sizes, _sums(draw, hits), most, predicted, errors @ members, errors**2 @ members)


def _simple_random(population: Population, draws: int, sizes: Sequence[int]) -> dict[int, tuple[Floats, Floats]]:
    generator = np.random.default_rng(0)
    found, total = int(population.damaged.sum()), len(population.damaged)
    intervals = {}
    for count in sizes:
        hits = generator.hypergeometric(found, total - found, count, size=draws)
        intervals[count] = wilson(hits / count, np.full(draws, count / (1 - count / total)))
    return intervals


def _stopped(
    population: Population, draw: Draw, orders: npt.NDArray[np.int64], stops: Sequence[int]
) -> dict[str, object]:
    """Coverage where the judge stops at the first interval that is narrow enough, or at the last."""
    shares = [_designed(population, draw, orders, count) for count in stops]
    widths = np.stack([share.high - share.low for share in shares])
    wanted = widths[min(NARROW - STOPS[0], 10 * (len(stops) - 1)) // 10].mean()
    at = np.where((widths <= wanted).any(0), (widths <= wanted).argmax(0), len(stops) - 1)
    every = np.arange(len(orders))
    low, high = (np.stack([getattr(share, side) for share in shares])[at, every] for side in ("low", "high"))
    truth = float(population.damaged.mean())
    return {
        "population": population.name,
        "n": "stop",
        "design-based": _covered(low, high, truth),
        "stopped at": float(np.array(stops)[at].mean()),
    }


def _covered(low: Floats, high: Floats, truth: float) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


def _markdown(table: pd.DataFrame) -> str:
    """A row for each population, with the numbers for each n one after the other."""
    rows, stopped = table[table["n"] != "stop"], table[table["n"] == "stop"].set_index("population")
    columns = {name: 2 if name in ("damaged found", *_WIDTHS) else 3 for name in (*_METHODS, *_WIDTHS, "damaged found")}
    lines = [f"| n = {' / '.join(rows['n'].unique())} | {' | '.join(columns)} | stop, at |", "|---" * 8 + "|"]
    for name, own in rows.groupby("population", sort=False):
        cells = [" / ".join(f"{value:.{digits}f}" for value in own[column]) for column, digits in columns.items()]
        covered, at = (float(str(stopped.loc[str(name), column])) for column in ("design-based", "stopped at"))
        lines.append(f"| {name} | {' | '.join(cells)} | {covered:.3f}, {at:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

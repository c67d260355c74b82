"""What judgements buy on real events that the network never saw, with the labels as the judge.

python -m benchmarks.real_events --raw XBD --models DIR --work DIR [--draws 20] [--events NAME...]

XBD holds the sample of 32 real pairs, and the first DIR a FOLD-SEED/model for each event, as benchmarks.generalization
leaves them: trained without it. predict makes a map of the event, whose buildings are the polygons of the labels; of
its order the first k are judged by the labels, and what assess makes of that is held against the labels of those that
were not judged: the mean F1 of the grades of at least 10 of these, and the calibration error. Where too few are
damaged for that, the mean F1 of damaged and undamaged. Means of 20 draws of the order.

Beside it: the map as it is; assess without features, so that it only recalibrates the grades' probabilities; and a
random forest over the histograms of red, green and blue before and after.

It takes the events whose models are there and says which are missing; what is in --work is not computed again. There,
population.csv becomes the input of benchmarks.sampling --population.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from tqdm import tqdm

from base.command_line import whole_number
from base.errors import InputError, errors_in_one_line
from base.files import new_file
from base.grades import GRADES
from benchmarks.event_maps import EventMap, map_event
from benchmarks.generalization import folder_of
from imagery.adapting.evidence import Evidence
from imagery.adapting.worth import adapt
from imagery.estimating.cross_fitting import FOLDS
from imagery.estimating.totals import DAMAGED
from imagery.sampling.judged import Prefix
from model.calibration.errors import Calibration

JUDGED = (10, 25, 50, 100, 200)
MOST = 0.4  # of an event's buildings that are judged
COUNTS = 10  # buildings of a grade, not judged, from which on it counts
TARGET, TARGET_AT = 0.10, 50
MAP, ASSESS, SUMS, COLOURS = "the map", "assess", "sums alone", "forest on colours"
METHODS = (ASSESS, SUMS, COLOURS)
SCORES, POPULATION = "scores.csv", "population.csv"
_GRADED = [grade.number for grade in GRADES]
Grades = npt.NDArray[np.int64]
Graded = tuple[Grades, npt.NDArray[np.float64], bool]  # grades and confidence in the order, [N]; whether the map's own


class Event(NamedTuple):
    """disaster: in the names of its scenes; fold: of benchmarks.generalization, the events that its model did not see;
    by_grade: whether there are enough damaged buildings to tell grades apart.
    """

    name: str
    disaster: str
    fold: str
    by_grade: bool


EVENTS = (
    Event("michael", "hurricane-michael", "michael", True),
    Event("santa-rosa", "santa-rosa-wildfire", "santa-rosa", True),
    Event("florence", "hurricane-florence", "florence, guatemala", False),
    Event("guatemala", "guatemala-volcano", "florence, guatemala", False),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table for each event, and what they come to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_events",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [event.name for event in EVENTS]
    parser.add_argument("--raw", type=Path, required=True, metavar="XBD", help="the sample of 32 real pairs")
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="holds FOLD-SEED/model")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the models (1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for maps and scores")
    parser.add_argument("--draws", type=whole_number(1, 1000), default=20, metavar="N")
    parser.add_argument("--events", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    tables = {}
    with errors_in_one_line():
        for event in (event for event in EVENTS if event.name in arguments.events):
            model = arguments.models / folder_of(event.fold, arguments.seed) / "model"
            if not model.is_dir():
                print(f"{event.name}: {model} is missing, and the event left out", flush=True)
                continue
            folder = arguments.work / event.name
            found = map_event(arguments.raw, event.disaster, model, folder)
            write_population(folder / POPULATION, found)
            tables[event] = scores(event, found, folder / SCORES, arguments.draws)
        if not tables:
            raise InputError(f"{arguments.models}: found no model, expected FOLD-SEED/model. Train some.")
    join_populations(arguments.work)
    for event, table in tables.items():
        print(f"\n{_markdown(event, table)}")
    print(f"\n{summary(tables)}")


def scores(event: Event, found: EventMap, path: Path, draws: int) -> pd.DataFrame:
    """A row for each draw, number judged and method: f1 and error of its grades, map_f1 and map_error of the map's on
    the same buildings, and whether it kept these. Read from the file where that has as many draws.
    """
    if path.is_file() and (known := pd.read_csv(path))["draw"].nunique() == draws:
        return known
    counts = [count for count in JUDGED if count <= MOST * len(found.truth)]
    rows = [
        row
        for draw in tqdm(range(draws), event.name, disable=None)
        for count in counts
        for row in scores_of(event, found, draw, count)
    ]
    table = pd.DataFrame(rows)
    with new_file(path) as file:
        table.to_csv(file, index=False)
    return table


def scores_of(event: Event, found: EventMap, seed: int, count: int) -> list[dict[str, object]]:
    """A row for each method, see `scores`, with the first `count` buildings of an order judged. seed: of the order."""
    draw = found.draw(seed)
    order, truth = draw.order, found.truth[draw.order]
    sample = Prefix(draw, truth[:count], 0)
    evidence = found.given.evidence.at(order)
    mapped = found.given.grades[order], found.given.table.ours("confidence").to_numpy(np.float64)[order]
    own = {
        ASSESS: _assessed(sample, evidence, mapped),
        SUMS: _assessed(sample, evidence._replace(features=None), mapped),
        COLOURS: _by_colours(truth[:count], found.colours[order], seed),
    }
    base = measure(event, truth[count:], mapped[0][count:], mapped[1][count:])
    return [
        {
            "draw": seed, "judged": count, "method": name, "keeps": keeps,
            **measure(event, truth[count:], grades[count:], sure[count:]),
            **{f"map_{key}": value for key, value in base.items()},
        }
        for name, (grades, sure, keeps) in own.items()
    ]  # fmt: skip


def _assessed(sample: Prefix, evidence: Evidence, mapped: tuple[Grades, npt.NDArray[np.float64]]) -> Graded:
    """As `imagery.assessing.assessment` grades the buildings that nobody judged."""
    if len(sample) < max(FOLDS, sample.draw.fewest):
        return *mapped, True
    adapted = adapt(sample, evidence, mapped=mapped, stops=())
    return (*mapped, True) if adapted.keeps else (adapted.grades, adapted.confidence, False)


def _by_colours(judged: Grades, colours: npt.NDArray[np.float64], seed: int) -> Graded:
    told = np.flatnonzero(np.isin(judged, _GRADED))
    forest = RandomForestClassifier(100, random_state=seed).fit(colours[told], judged[told])
    likely = forest.predict_proba(colours)
    return forest.classes_[likely.argmax(1)], likely.max(1), False


def measure(event: Event, truth: Grades, grades: Grades, sure: npt.NDArray[np.float64]) -> dict[str, float]:
    """f1 on the mean, and the calibration error of the confidence, over those whose grade the labels tell."""
    told = np.isin(truth, _GRADED)
    truth, grades, sure = truth[told], grades[told], sure[told]
    calibration = Calibration()
    calibration.add(torch.from_numpy(sure), torch.from_numpy(truth == grades))
    if event.by_grade:
        labels = [number for number in _GRADED if (truth == number).sum() >= COUNTS]
        f1 = f1_score(truth, grades, labels=labels, average="macro", zero_division=0)
    else:
        f1 = f1_score(np.isin(truth, DAMAGED), np.isin(grades, DAMAGED), average="macro", zero_division=0)
    return {"f1": float(f1), "error": calibration.error()}


def write_population(path: Path, found: EventMap) -> None:
    """What `benchmarks.sampling` reads: whether a building is damaged, its score, and where it lies, in metres."""
    rows = found.given.draw.order
    score = found.given.evidence.probabilities[rows, 1:].sum(1)
    x, y = found.places[rows].T / 2
    table = pd.DataFrame({"damaged": np.isin(found.truth[rows], DAMAGED).astype(int), "score": score, "x": x, "y": y})
    with new_file(path) as file:
        table.to_csv(file, index=False)


def join_populations(work: Path) -> None:
    """All events as one map, side by side."""
    tables = [pd.read_csv(path) for path in sorted(work.glob(f"*/{POPULATION}"))]
    for number, table in enumerate(tables):
        table["x"] += 10_000 * number
    with new_file(work / POPULATION) as file:
        pd.concat(tables).to_csv(file, index=False)


def summary(tables: dict[Event, pd.DataFrame]) -> str:
    """What assess buys at TARGET_AT judgements, over the map on the same buildings."""
    gains = {}
    for event, table in tables.items():
        own = table[(table["method"] == ASSESS) & (table["judged"] == TARGET_AT)]
        if len(own):
            gains[event] = float((own["f1"] - own["map_f1"]).mean())
    lines = [f"{event.name}: {gain:+.3f} at {TARGET_AT} judgements" for event, gain in gains.items()]
    wanted = [gain for event, gain in gains.items() if event.by_grade]
    if wanted:
        lines.append(f"on the mean of those by grade {np.mean(wanted):+.3f}, asked {TARGET:+.2f}")
    return "\n".join(lines)


def _markdown(event: Event, table: pd.DataFrame) -> str:
    what = "grades" if event.by_grade else "damaged and undamaged"
    head = [f"{event.name}, {what}: judged", MAP, *METHODS, "gain of assess (least to largest)", "kept the map's"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for count, own in table.groupby("judged"):
        numbers = own.groupby("method")[["f1", "error", "map_f1", "map_error", "keeps"]].mean().to_dict("index")
        mean = {str(name): {key: float(value) for key, value in row.items()} for name, row in numbers.items()}
        cells = [f"{mean[ASSESS]['map_f1']:.3f}, {mean[ASSESS]['map_error']:.3f}"]
        cells += [f"{mean[name]['f1']:.3f}, {mean[name]['error']:.3f}" for name in METHODS]
        assessed = own[own["method"] == ASSESS]
        gain = assessed["f1"] - assessed["map_f1"]
        cells += [f"{gain.mean():+.3f} ({gain.min():+.3f} to {gain.max():+.3f})", f"{mean[ASSESS]['keeps']:.0%}"]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

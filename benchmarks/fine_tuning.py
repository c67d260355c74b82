"""What judgements buy when the network itself learns from them, beside `assess`, on real events that it never saw.

python -m benchmarks.fine_tuning --raw XBD --models DIR --variant NAME --work DIR [--minutes 4] [--draws 2]
    [--events NAME...]

Maps, draws and scores are those of benchmarks.real_events, with the same --models and --work: its maps are used where
they are there. The first k buildings of a draw are judged by the labels and written into the map's GeoPackage, in its
column `judged`; `label` and `prepare` make scenes of them, as they do for anybody; a training starts from the model, as
a whole or with the head of damage alone, batch norm held; and the grades of those that were not judged, on a new map,
are held against the labels. NAME: the recipe of the models, of benchmarks/variants. What is in --work is not computed
again. It takes one core.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import torch

from base.command_line import whole_number
from base.errors import errors_in_one_line
from base.files import write_file
from benchmarks.event_maps import UID, EventMap, map_event
from benchmarks.generalization import CPU_RECIPE, CROPS, VARIANTS, folder_of
from benchmarks.real_events import ASSESS, EVENTS, MAP, SUMS, Event, measure, scores_of
from components.label import label
from components.params import load_params
from components.prepare import prepare
from imagery.give.names import GEOPACKAGE
from imagery.read.vectors import LAYER
from model.settings import TrainSettings
from model.train.distributed import World
from model.train.start import read_start
from model.train.training import train
from xbd.scenes import read_index

JUDGED = (50, 200)
LEARNING_RATE = 0.0005
HEAD = "damage"  # the part that learns where the others are held
WHOLE = "the whole network"
HOW = (WHOLE, "its head of damage")
_ALONE = World(0, 1, 0, torch.device("cpu"))


@dataclass(frozen=True)
class Tuning:
    """One training and its judgement. model: what it starts from; how: one of HOW."""

    event: Event
    raw: Path
    model: Path
    variant: str
    count: int
    draw: int
    how: str
    minutes: float


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fine_tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [event.name for event in EVENTS if event.by_grade]
    parser.add_argument("--raw", type=Path, required=True, metavar="XBD", help="the sample of 32 real pairs")
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="holds FOLD-SEED/model")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the models (1)")
    parser.add_argument("--variant", required=True, choices=sorted(path.stem for path in VARIANTS.glob("*.yaml")))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for maps, models and scores")
    parser.add_argument("--minutes", type=float, default=4.0, metavar="M", help="of CPU time for a training (4)")
    parser.add_argument("--draws", type=whole_number(1, 20), default=2, metavar="N")
    parser.add_argument("--events", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| event, judged | draw |", *(f"{name} |" for name in (MAP, ASSESS, SUMS, *HOW)), "CPU minutes |")
    print("|---" * (4 + 1 + len(HOW)) + "|---|")
    with errors_in_one_line():
        for event in (event for event in EVENTS if event.name in a.events):
            model = a.models / folder_of(event.fold, a.seed) / "model"
            found = map_event(a.raw, event.disaster, model, a.work / event.name)
            for count in JUDGED:
                for draw in range(a.draws):
                    tunings = [Tuning(event, a.raw, model, a.variant, count, draw, how, a.minutes) for how in HOW]
                    print(_row(found, tunings, a.work / event.name), flush=True)


def _row(found: EventMap, tunings: Sequence[Tuning], folder: Path) -> str:
    event, count, draw = tunings[0].event, tunings[0].count, tunings[0].draw
    beside = {row["method"]: row for row in scores_of(event, found, draw, count)}
    cells = [f"{beside[ASSESS]['map_f1']:.3f}", *(f"{beside[name]['f1']:.3f}" for name in (ASSESS, SUMS))]
    minutes = []
    for tuning in tunings:
        own = folder / f"{count}-{draw}-{HOW.index(tuning.how)}"
        if not (own / "score.json").is_file():
            # A process of its own, whose CPU time is the training's.
            process = multiprocessing.get_context("spawn").Process(target=run, args=(tuning, folder, own))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"{own} ended with {process.exitcode}; what is done is kept.")
        score = json.loads((own / "score.json").read_text(encoding="utf-8"))
        cells.append(f"{score['f1']:.3f}")
        minutes.append(f"{score['cpu_seconds'] / 60:.1f}")
    return f"| {event.name}, {count} | {draw} | {' | '.join(cells)} | {', '.join(minutes)} |"


def run(tuning: Tuning, folder: Path, out: Path) -> None:
    """Makes scenes of the judgements, trains, maps the event again and writes the score. folder: of the map."""
    torch.set_num_threads(1)
    found = map_event(tuning.raw, tuning.event.disaster, tuning.model, folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    judged = found.draw(tuning.draw).order[: tuning.count]
    edited = write_judged(folder / "map" / GEOPACKAGE, found, judged, out / GEOPACKAGE)
    pair = [str(folder / "pre.tif")], [str(folder / "post.tif")]
    label(str(folder / "map"), [str(edited)], *pair, str(out / "raw"), event=tuning.event.disaster)
    params = load_params(Path("params.yaml"), CPU_RECIPE, VARIANTS / f"{tuning.variant}.yaml")
    prepare(str(out / "raw"), str(out / "prepared"), params.prepare)
    settings = _settings(params.train, tuning, out)
    start = time.process_time()
    _train(settings, tuning.model, out / "prepared", out)
    seconds = time.process_time() - start
    new = map_event(tuning.raw, tuning.event.disaster, out / "model", out)
    assert new.given.table.frame[UID].tolist() == found.given.table.frame[UID].tolist()
    others = found.draw(tuning.draw).order[tuning.count :]
    confidence = new.given.table.ours("confidence").to_numpy(np.float64)
    score = measure(tuning.event, found.truth[others], new.given.grades[others], confidence[others])
    write_file(out / "score.json", json.dumps({**score, "cpu_seconds": seconds, "epochs": settings.epochs}).encode())


def write_judged(buildings: Path, found: EventMap, judged: npt.NDArray[np.int64], path: Path) -> Path:
    """The map's GeoPackage as a person gives it back who wrote into the column `judged` what the labels say."""
    frame = geopandas.read_file(buildings, layer=LAYER)
    uids = found.given.table.frame[UID].tolist()
    said = {uids[row]: str(found.truth[row]) for row in judged.tolist()}
    frame["judged"] = [said.get(uid) for uid in frame[UID]]
    frame.to_file(path, layer=LAYER, driver="GPKG")
    return path


def _settings(given: TrainSettings, tuning: Tuning, out: Path) -> TrainSettings:
    """With as many epochs as the time allows, by the CPU seconds of a second one."""
    held = tuple(part for part in given.network.parts if part != HEAD) if tuning.how != WHOLE else ()
    given = replace(
        given, start_from=str(tuning.model), freeze=held, freeze_batch_norm=True, learning_rate=LEARNING_RATE,
        validate_every=0, seed=tuning.draw, epochs=2, crops_per_scene=CROPS,
    )  # fmt: skip
    ends = list[float]()
    probe = out / "probe"
    start = read_start(tuning.model, str(tuning.model), given)
    train(out / "prepared", probe, given, _ALONE, start=start, on_epoch=lambda _: ends.append(time.process_time()))
    shutil.rmtree(probe)
    return replace(given, epochs=max(1, round(60 * tuning.minutes / (ends[1] - ends[0]))))


def _train(settings: TrainSettings, model: Path, data: Path, out: Path) -> None:
    train(data, out, settings, _ALONE, start=read_start(model, str(model), settings))
    print(f"{len(read_index(data, ['train']))} scenes, {settings.epochs} epochs", flush=True)


if __name__ == "__main__":
    main()

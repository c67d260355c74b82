"""Recipes at equal CPU time, judged on events that they were not trained on.

python -m benchmarks.generalization --raw XBD --work DIR [--variants NAME...] [--minutes 6] [--seeds 1 2]
    [--new-events]

XBD holds the sample of 32 real pairs: 24 in train (michael 10, santa-rosa 8, florence 3, guatemala 3) and 8 in test.
Each of three folds keeps events out of training, and the pixel counts of all three are added up before the score is
taken, so that it has all grades. "known events" are the test pairs, for a model of all 24; --new-events leaves these
out, for a first choice among many. A variant is a recipe of
benchmarks/variants over recipes/cpu.yaml. How many epochs fit into the time comes from measured CPU seconds. It takes
one core, and what is in DIR is not computed again.
"""

import argparse
import json
import multiprocessing as mp
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from base.errors import errors_in_one_line
from base.files import write_file
from components.params import load_params
from components.prepare import prepare
from model.inference import Predictor, load_model
from model.score import joint_counts, no_counts, present_score, xview2_score
from model.settings import TrainSettings
from model.train.distributed import World
from model.train.training import train
from xbd.dataset import Scenes
from xbd.scenes import read_index

FOLDS: dict[str, list[str]] = {
    "michael": ["hurricane-michael"],
    "santa-rosa": ["santa-rosa-wildfire"],
    "florence, guatemala": ["hurricane-florence", "guatemala-volcano"],
}
KNOWN = "known events"
VARIANTS = Path(__file__).parent / "variants"
CPU_RECIPE = Path("recipes/cpu.yaml")
CROPS = 4  # of a scene in an epoch, so that an epoch is short beside the whole time


@dataclass(frozen=True)
class Job:
    """One training and its judgement. fold: a key of FOLDS, or KNOWN."""

    variant: str
    fold: str
    seed: int
    minutes: float

    @property
    def folder(self) -> str:
        """Where it lies in DIR."""
        return f"{self.variant}/{self.minutes:g}-minutes/{folder_of(self.fold, self.seed)}"


def folder_of(fold: str, seed: int) -> str:
    """The last part of it."""
    return f"{fold.replace(', ', '-').replace(' ', '-')}-{seed}"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the budget, trains and judges what is missing, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generalization", description=__doc__)
    names = sorted(path.stem for path in VARIANTS.glob("*.yaml"))
    parser.add_argument("--raw", type=Path, required=True, metavar="XBD", help="the sample of 32 real pairs")
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="for prepared scenes, models and counts"
    )
    parser.add_argument("--variants", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=6.0, metavar="M", help="of CPU time for a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--new-events", action="store_true", help="only these: no model of all 24 pairs")
    arguments = parser.parse_args(argv)
    folds = [*FOLDS] if arguments.new_events else [*FOLDS, KNOWN]
    jobs = [
        Job(variant, fold, seed, arguments.minutes)
        for seed in arguments.seeds
        for fold in folds
        for variant in arguments.variants
    ]
    left = [job for job in jobs if not (arguments.work / job.folder / "counts.json").is_file()]
    print(f"{len(left)} of {len(jobs)} trainings to go, {len(left) * arguments.minutes / 60:.1f} CPU hours", flush=True)
    with errors_in_one_line():
        for fold, events in {**FOLDS, KNOWN: []}.items():
            _prepare(arguments.raw, arguments.work / "prepared" / fold, events)
        context = mp.get_context("spawn")  # a process of its own for each, whose CPU time is the training's
        for job in tqdm(left, "trainings", disable=None):
            process = context.Process(target=run, args=(job, arguments.work))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"{job.folder} ended with {process.exitcode}; what is done is kept.")
        print(table(arguments.work, jobs))


def _prepare(raw: Path, out: Path, events: list[str]) -> None:
    if not out.is_dir():
        given = load_params(Path("params.yaml"), CPU_RECIPE).prepare
        prepare(raw, out, given.model_copy(update={"holdout_disasters": events}))


def run(job: Job, work: Path) -> None:
    """Trains, and writes the counts of pixels of each scene that is judged."""
    torch.set_num_threads(1)
    data, out = work / "prepared" / job.fold, work / job.folder
    settings = _settings(job, data, work)
    start = time.process_time()
    train(data, out, settings, World(0, 1, 0, torch.device("cpu")))
    seconds = time.process_time() - start
    predictor, counts = Predictor(load_model(out / "model")), {}
    scenes = Scenes(data, ["test"] if job.fold == KNOWN else ["out_of_event"])
    for record, sample in zip(scenes.records, DataLoader(scenes), strict=True):
        counts[record.scene] = joint_counts(*predictor(sample.pre, sample.post), sample.mask).tolist()
    found = {"epochs": settings.epochs, "cpu_seconds": seconds, "counts": counts}
    write_file(out / "counts.json", json.dumps(found).encode())


def _settings(job: Job, data: Path, work: Path) -> TrainSettings:
    """Those of the variant, with as many epochs as the time allows."""
    given = load_params(Path("params.yaml"), CPU_RECIPE, VARIANTS / f"{job.variant}.yaml").train
    given = replace(given, seed=job.seed, crops_per_scene=CROPS, validate_every=0)
    steps = len(read_index(data, ["train"])) * CROPS // given.global_batch_size
    epoch = steps * _seconds_a_step(given, data, work / job.variant)
    return replace(given, epochs=max(1, round(60 * job.minutes / epoch)))


def _seconds_a_step(given: TrainSettings, data: Path, folder: Path) -> float:
    """CPU seconds, measured once for a variant: from the end of a first epoch, which warms up, to that of a second."""
    path = folder / "step.json"
    if not path.is_file():
        ends: list[float] = []
        given = replace(given, epochs=2)
        alone = World(0, 1, 0, torch.device("cpu"))
        train(data, folder / "probe", given, alone, on_epoch=lambda record: ends.append(time.process_time()))
        steps = len(read_index(data, ["train"])) * CROPS // given.global_batch_size
        write_file(path, json.dumps((ends[1] - ends[0]) / steps).encode())
    return float(json.loads(path.read_text(encoding="utf-8")))


def table(work: Path, jobs: Iterable[Job]) -> str:
    """Means over the seeds as Markdown, with the least and the largest."""
    results = {job: json.loads((work / job.folder / "counts.json").read_text(encoding="utf-8")) for job in jobs}
    seeds = sorted({job.seed for job in results})
    known = [KNOWN] if any(job.fold == KNOWN for job in results) else []
    columns = ["new events: score", *(f"{fold}: localization, damage of the grades present" for fold in FOLDS), *known]
    lines = [f"| variant | {' | '.join(columns)} | CPU minutes |", "|" + "---|" * (len(columns) + 2)]
    for variant in dict.fromkeys(job.variant for job in results):
        of_seed = {
            seed: {j.fold: r for j, r in results.items() if (j.variant, j.seed) == (variant, seed)} for seed in seeds
        }
        new = [_score(_sum(result for fold, result in found.items() if fold != KNOWN)) for found in of_seed.values()]
        cells = [_spread(new)]
        for fold in FOLDS:
            scores = [_present(_sum([found[fold]])) for found in of_seed.values()]
            cells.append(", ".join(_spread([score[number] for score in scores]) for number in (0, 1)))
        cells += [_spread([_score(_sum([found[fold]])) for found in of_seed.values()]) for fold in known]
        minutes = [result["cpu_seconds"] / 60 for found in of_seed.values() for result in found.values()]
        lines.append(f"| {variant} | {' | '.join(cells)} | {statistics.mean(minutes):.1f} |")
    return "\n".join([*lines, "", f"seeds {', '.join(map(str, seeds))}: mean (least to largest)"])


def _sum(results: Iterable[dict[str, Any]]) -> torch.Tensor:
    total = no_counts()
    for result in results:
        for counts in result["counts"].values():
            total = total + torch.tensor(counts)
    return total


def _score(counts: torch.Tensor) -> float:
    return float(xview2_score(counts)["score"])


def _present(counts: torch.Tensor) -> tuple[float, float]:
    return float(xview2_score(counts)["localization_f1"]), present_score(counts)["damage_f1_present"]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()

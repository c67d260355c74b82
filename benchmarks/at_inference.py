"""What changes prediction and no training: models of `benchmarks.generalization`, each judged in several ways.

python -m benchmarks.at_inference --work DIR [--variants NAME...] [--minutes 20] [--seeds 1 2]

DIR holds the trained models, of three folds that each keep events out of training and of all events. The pixel counts
of the folds are added up before the score is taken; where a fold has no model there is none. CPU seconds are those of a
pair of 1024 x 1024, on one core, with what a way has to compute first.
"""

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from tqdm import tqdm

from base.errors import errors_in_one_line
from benchmarks.generalization import FOLDS, KNOWN, Job
from model.calibration.offsets import count_grades, grade_offsets
from model.inference import Prediction, Predictor, load_model, normalize
from model.judge.evaluation import vote
from model.networks.pair_network import PairNetwork
from model.score import joint_counts, no_counts, xview2_score
from xbd.dataset import Sample, Scenes
from xbd.scenes import read_index

Predict = Callable[[Tensor, Tensor], Prediction]
Way = Callable[[PairNetwork, Sequence[Sample]], Predict]  # of a model, and the pairs of an event without their masks
BUILDING_FROM = 0.2
SHARE = 0.6  # of the event's statistics in those of a batch norm


def one_grade_a_building(model: PairNetwork, pairs: Sequence[Sample]) -> Predict:
    """The pixels of a building vote, as with `evaluate.per_building: vote`."""
    predictor = Predictor(model)

    def predict(pre: Tensor, post: Tensor) -> Prediction:
        found, probabilities = predictor.probabilities(pre, post)
        return found._replace(damage=torch.from_numpy(vote(found, probabilities).damage)[None])

    return predict


def more_buildings(model: PairNetwork, pairs: Sequence[Sample]) -> Predict:
    """A pixel is of a building from a probability below a half."""
    predictor = Predictor(model)

    def predict(pre: Tensor, post: Tensor) -> Prediction:
        _, probabilities = predictor.probabilities(pre, post)
        building = (probabilities.building >= BUILDING_FROM).to(torch.uint8)
        return Prediction(building, (probabilities.damage.argmax(1).to(torch.uint8) + 1) * building)

    return predict


def statistics_of_the_event(model: PairNetwork, pairs: Sequence[Sample]) -> Predict:
    """Batch norms normalize by the means and variances of the event's images, SHARE of them, and of the training's.

    Source: Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation",
    https://arxiv.org/abs/2006.16971, section 3.
    """
    adapted = copy.deepcopy(model)
    norms = [module for module in adapted.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean, norm.running_var = torch.zeros(norm.num_features), torch.ones(norm.num_features)
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the pairs
        norm.train()
    with torch.no_grad():
        for pair in pairs:
            adapted(normalize(pair.pre), normalize(pair.post))
    for norm, (mean, variance) in zip(norms, before, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        assert mean is not None and variance is not None
        norm.running_mean.lerp_(mean, 1 - SHARE)
        norm.running_var.lerp_(variance, 1 - SHARE)
    return Predictor(adapted.eval())


WAYS: dict[str, Way] = {
    "one view": lambda model, pairs: Predictor(model),
    "mean over 8 views": lambda model, pairs: Predictor(model, 8),
    "one grade a building": one_grade_a_building,
    f"a building from {BUILDING_FROM}": more_buildings,
    f"batch norm by {SHARE:.0%} of the event's images": statistics_of_the_event,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Judges, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.at_inference", description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="that of benchmarks.generalization, with trained models"
    )
    parser.add_argument("--variants", nargs="+", default=["quarter-turns"], metavar="NAME")
    parser.add_argument("--minutes", type=float, default=20.0, metavar="M", help="of CPU time for a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="N")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| variant, seed | at inference | new events: score, localization, damage | known events | CPU s a pair |")
    print("|---|---|---|---|---|")
    with errors_in_one_line():
        for variant in arguments.variants:
            for seed in arguments.seeds:
                _judge_all([Job(variant, fold, seed, arguments.minutes) for fold in [*FOLDS, KNOWN]], arguments.work)


def _judge_all(jobs: Sequence[Job], work: Path) -> None:
    """The rows of a variant and a seed: without and with the adjustment of the grades, the others with it."""
    for strength, name in [(0.0, "one view"), *((1.0, name) for name in WAYS)]:
        counts, seconds, pairs = {}, 0.0, 0
        trained = [job for job in jobs if (work / job.folder / "model").is_dir()]
        for job in tqdm(trained, name, leave=False, disable=None):
            counts[job.fold], taken, count = _judge(job, work, strength, WAYS[name])
            seconds, pairs = seconds + taken, pairs + count
        new = [counts[fold] for fold in FOLDS if fold in counts]
        whole = sum(new, no_counts()) if len(new) == len(FOLDS) else None
        adjusted = "grades by their shares" if strength == 0 else "grades as if as frequent"
        print(
            f"| {jobs[0].variant}, {jobs[0].seed} | {adjusted}, {name} | {_scores(whole)} | "
            f"{_scores(counts.get(KNOWN))} | {seconds / max(1, pairs):.2f} |",
            flush=True,
        )


def _judge(job: Job, work: Path, strength: float, way: Way) -> tuple[Tensor, float, int]:
    """Counts of pixels, CPU seconds, and how many pairs they are of."""
    data = work / "prepared" / job.fold
    model = load_model(work / job.folder / "model")
    model.grade_offsets = grade_offsets(count_grades(data, read_index(data, ["train"])), strength)
    scenes = Scenes(data, ["test"] if job.fold == KNOWN else ["out_of_event"])
    events: dict[str, list[Sample]] = defaultdict(list)
    for record, sample in zip(scenes.records, _samples(scenes), strict=True):
        events[record.disaster].append(sample)
    counts, seconds = no_counts(), 0.0
    for samples in events.values():
        start = time.process_time()
        predict = way(model, samples)
        found = [predict(sample.pre, sample.post) for sample in samples]
        seconds += time.process_time() - start
        counts += sum(
            (joint_counts(*one, sample.mask) for one, sample in zip(found, samples, strict=True)), no_counts()
        )
    return counts, seconds, len(scenes)


def _samples(scenes: Scenes) -> Iterable[Sample]:
    loader: DataLoader[Sample] = DataLoader(scenes)
    return loader


def _scores(counts: Tensor | None) -> str:
    """Score, localization and damage F1."""
    if counts is None:
        return "not trained"
    scores = xview2_score(counts)
    return ", ".join(f"{float(scores[key]):.3f}" for key in ("score", "localization_f1", "damage_f1"))


if __name__ == "__main__":
    main()

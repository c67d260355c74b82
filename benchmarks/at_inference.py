"""What changes prediction and no training: models of `benchmarks.generalization`, each judged in several ways.

python -m benchmarks.at_inference --work DIR [--variants NAME...] [--minutes 20] [--seeds 1 2]
    [--strengths 0 1]

DIR holds the trained models, of three folds that each keep events out of training and of all events. For "new events"
the pixel counts of the three folds are added up before the score is taken; where one has no model there is no such row.
CPU seconds are those of a pair of 1024 x 1024, on one core, with what a way has to compute first.
"""

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from tqdm import tqdm

from base.errors import InputError, errors_in_one_line
from base.grades import KEYS
from benchmarks.generalization import FOLDS, KNOWN, VARIANTS, Job
from model.calibration.offsets import count_grades, grade_offsets
from model.inference import Prediction, Predictor, load_model, normalize
from model.judge.evaluation import vote
from model.networks.pair_network import PairNetwork
from model.score import joint_counts, no_counts, present_score, xview2_score
from xbd.dataset import Sample, Scenes
from xbd.scenes import read_index

Predict = Callable[[Tensor, Tensor], Prediction]
Way = Callable[[PairNetwork, Sequence[Sample]], Predict]  # of a model, and the pairs of an event without their masks
SCORES = ("score", "localization_f1", "damage_f1", "damage_f1_present")
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
    names = sorted(path.stem for path in VARIANTS.glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.at_inference", description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="that of benchmarks.generalization, with trained models"
    )
    parser.add_argument("--variants", nargs="+", default=["quarter-turns"], choices=names, metavar="NAME")
    parser.add_argument("--minutes", type=float, default=20.0, metavar="M", help="of CPU time for a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[0.0, 1.0], metavar="S", help="of train.logit_adjustment"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    keys = [*SCORES, *KEYS]
    print(f"| variant, seed | at inference | scored on | {' | '.join(keys).replace('_', ' ')} | CPU s a pair |")
    print("|" + "---|" * (len(keys) + 4))
    with errors_in_one_line():
        for variant in arguments.variants:
            for seed in arguments.seeds:
                jobs = [Job(variant, fold, seed, arguments.minutes) for fold in [*FOLDS, KNOWN]]
                trained = [job for job in jobs if (arguments.work / job.folder / "model").is_dir()]
                if not trained:
                    raise InputError(
                        f"{arguments.work}: holds no model of {variant}, seed {seed}, {arguments.minutes:g} minutes. "
                        "Train with benchmarks.generalization."
                    )
                _judge_all(trained, arguments.work, arguments.strengths)


def _judge_all(jobs: Sequence[Job], work: Path, strengths: Sequence[float]) -> None:
    """The rows of a variant and a seed: one view at each strength, the other ways at strength 1."""
    ways = [*((strength, "one view") for strength in strengths), *((1.0, name) for name in [*WAYS][1:])]
    for strength, name in ways:
        judged = {
            job.fold: _judge(job, work, strength, WAYS[name]) for job in tqdm(jobs, name, leave=False, disable=None)
        }
        counts = {fold: found for fold, (found, _) in judged.items()}
        if all(fold in counts for fold in FOLDS):
            counts = {"new events": sum((counts[fold] for fold in FOLDS), no_counts()), **counts}
        seconds = sum(taken for _, taken in judged.values()) / len(jobs)
        for scored, found in counts.items():
            scores = xview2_score(found) | present_score(found)
            numbers = " | ".join(
                f"{float(scores[key]):.3f}" for key in (*SCORES, *(f"damage_f1_{key}" for key in KEYS))
            )
            way = f"adjusted by {strength:g}, {name}"
            print(f"| {jobs[0].variant}, {jobs[0].seed} | {way} | {scored} | {numbers} | {seconds:.2f} |", flush=True)


def _judge(job: Job, work: Path, strength: float, way: Way) -> tuple[Tensor, float]:
    """Counts of pixels, and CPU seconds of a pair."""
    data = work / "prepared" / job.fold
    model = load_model(work / job.folder / "model")
    model.grade_offsets = grade_offsets(count_grades(data, read_index(data, ["train"])), strength)
    scenes = Scenes(data, ["test"] if job.fold == KNOWN else ["out_of_event"])
    loader: DataLoader[Sample] = DataLoader(scenes)
    events: dict[str, list[Sample]] = defaultdict(list)
    for record, sample in zip(scenes.records, loader, strict=True):
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
    return counts, seconds / len(scenes)


if __name__ == "__main__":
    main()

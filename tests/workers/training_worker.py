"""What the tests of training in several processes run: `training_worker.py PARAMS DATA OUT` trains each of CASES, in a
world of its own that is forked from one process, and leaves in OUT what every rank has afterwards.
"""

import copy
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers and checkpoints import it at first use: here once, before the processes fork
import torch.nn.functional as F
from torch import Tensor

from base.errors import Preempted
from components.params import load_params
from model.calibration.afterwards import summarize_training
from model.dual_hrnet import DualHRNet, DualLogits
from model.inference import normalize
from model.losses import Losses, dual_loss
from model.networks.by_name import NETWORKS
from model.score import xview2_score
from model.settings import TrainSettings
from model.train import training, validation
from model.train.distributed import join_world
from model.train.pulse import Pulse
from model.train.run import Run
from model.train.start import make_network
from model.train.validation import validate
from tests.tiny_network import Tiny, TinySettings
from tests.workers.worlds import fork_world
from xbd.dataset import Sample, SceneCrops, Scenes

NAN_AT = 3  # calls of the loss: the first is that of a batch of zeros before training


@dataclass(frozen=True)
class Case:
    """A run. mean: with a loss that is a mean over pixels. stop_at: the step after which rank 1 asks to stop. goes_on:
    the case whose folder it works in. nan: rank 1's loss is not a number in its second step. double: in float64, where
    rounding cannot hide a mistake; the tiny network makes 1e-7 in a forward pass 1e-4 in a gradient.
    """

    size: int
    settings: dict[str, Any] = field(default_factory=dict)
    mean: bool = False
    stop_at: int | None = None
    goes_on: str | None = None
    nan: bool = False
    double: bool = True

    def all_settings(self, params: Path) -> TrainSettings:
        return dataclasses.replace(load_params(params).train, **{"epochs": 1, "validate_every": 0} | self.settings)


def batch(whole: int, device: int, **more: Any) -> dict[str, Any]:
    return {"global_batch_size": whole, "device_batch_size": device, **more}


# 6 scenes: with 2 crops of each, 3 steps of 4 pairs in an epoch. Every batch norm is two exchanges of all processes,
# and dual-hrnet has over a hundred: where a case is not about how its layers add up, and for the paper's 16 processes,
# the tiny network stands in.
CASES = {
    "1, mean": Case(1, batch(4, 4), mean=True),
    "2, mean": Case(2, batch(4, 2), mean=True),
    "4, mean": Case(4, batch(4, 1), mean=True),
    "2, mean, 2 passes": Case(2, batch(4, 1, network=TinySettings()), mean=True),
    "2, mean, float32": Case(2, batch(4, 2, crops_per_scene=1), mean=True, double=False),
    "16, mean": Case(16, batch(16, 1, crops_per_scene=3, network=TinySettings(), logit_adjustment=1.0), mean=True),
    "2, lovasz": Case(2, batch(4, 2)),
    "4, lovasz": Case(4, batch(4, 1, validate_every=1, network=TinySettings())),
    "stopped": Case(4, batch(4, 1, validate_every=1, network=TinySettings()), stop_at=1),
    "resumed": Case(2, batch(4, 1, validate_every=1, network=TinySettings()), goes_on="stopped"),
    "nan": Case(2, batch(4, 2, checkpoint_every=1, network=TinySettings()), nan=True),
}
# Worlds that validate, by their size, with the splits that they validate on: 5 scenes, and 2.
VALIDATIONS = [(size, splits) for size in (1, 2, 3) for splits in (("test", "validation"), ("validation",))]


def mean_loss(logits: DualLogits, mask: Tensor, settings: TrainSettings) -> Losses:
    """A loss that is a mean over pixels, so that the mean over equal shares of a batch is that of the batch."""
    size = (mask.shape[-2], mask.shape[-1])
    localization, damage = (F.interpolate(part, size, mode="bilinear") for part in logits)
    first = F.cross_entropy(localization, ((mask > 0) & (mask < 255)).long())
    second = F.cross_entropy(damage, (mask % 4).long())
    return Losses(first + second, first, second)


def use_double() -> None:
    """Lets training compute in float64; prediction, whose folded convolutions know float32 only, does not."""
    vars(training).update(
        make_network=lambda *given, **named: make_network(*given, **named).double(),
        normalize=lambda images: normalize(images).double(),
        validate=lambda model, *others: validate(copy.deepcopy(model).float(), *others),
        summarize_training=lambda data, model, alive: summarize_training(data, copy.deepcopy(model).float(), alive),
    )


class SeenCrops(SceneCrops):
    """Crops that remember which of them were read."""

    seen: list[int] = []  # noqa: RUF012

    def __getitem__(self, index: int) -> Sample:
        self.seen.append(index)
        return super().__getitem__(index)


class LastRun(Run):
    """A run that can be looked at when training has returned."""

    last: Run

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        LastRun.last = self


def run(case: Case, params: Path, data: Path, folder: Path, results: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"error": None, "kept": None}
    with join_world(60) as world:
        loss = mean_loss if case.mean else dual_loss
        calls = iter(range(1, 10**6))

        def spoilt(logits: DualLogits, mask: Tensor, settings: TrainSettings) -> Losses:
            losses = loss(logits, mask, settings)
            bad = case.nan and world.rank == 1 and next(calls) == NAN_AT
            return dataclasses.replace(losses, total=losses.total * float("nan")) if bad else losses

        answers: Iterator[bool] = (world.rank == 1 and step == case.stop_at for step in range(1, 10**6))
        if case.double:
            use_double()
            vars(training).update(calibrate_on_validation=lambda *given: None)  # prediction is in float32
        vars(training).update(dual_loss=spoilt, SceneCrops=SeenCrops, Run=LastRun)
        try:
            settings = case.all_settings(params)
            found["kept"] = training.train(data, folder, settings, world, should_stop=lambda: next(answers))
        except (training.TrainingError, Preempted) as error:
            found["error"] = str(error)
        model = LastRun.last.model
        found |= {"model": model.state_dict(), "offsets": model.grade_offsets, "seen": SeenCrops.seen}
        torch.save(found, results.with_name(f"{results.name}-{world.rank}.pt"))


class SeenScenes(Scenes):
    """Scenes that remember which of them were read."""

    def __init__(self, root: Path, splits: tuple[str, ...]) -> None:
        super().__init__(root, splits)
        self.seen: list[str] = []

    def __getitem__(self, index: int) -> Sample:
        self.seen.append(self.records[index].scene)
        return super().__getitem__(index)


def validator() -> DualHRNet:
    torch.manual_seed(11)
    return DualHRNet(width=4, stem_width=8, stage1_width=4, stage1_blocks=1, modules=(1, 1, 1), blocks=1)


def run_validation(splits: tuple[str, ...], data: Path, results: Path) -> None:
    torch.set_num_threads(1)
    taken: list[Tensor] = []  # the counts from which the score is taken

    def score(counts: Tensor) -> dict[str, Tensor]:
        taken.append(counts)
        return xview2_score(counts)

    vars(validation).update(xview2_score=score)
    with join_world(60) as world, Pulse(world, 60) as pulse:
        scenes = SeenScenes(data, splits)
        scores = validate(validator(), scenes, world, pulse)
        (counts,) = taken
        found = {"scores": scores, "counts": counts, "seen": scenes.seen}
        torch.save(found, results.with_name(f"{results.name}-{world.rank}.pt"))


def validation_name(size: int, splits: tuple[str, ...]) -> str:
    return f"validate {size} {' '.join(splits)}"


def join_all(size: int, function: Any, *arguments: Any) -> None:
    processes = fork_world(size, function, *arguments)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size, arguments


def main(params: Path, data: Path, out: Path) -> None:
    NETWORKS["tiny"] = Tiny
    for name, case in CASES.items():
        join_all(case.size, run, case, params, data, out / (case.goes_on or name) / "run", out / name)
    for size, splits in VALIDATIONS:
        join_all(size, run_validation, splits, data, out / validation_name(size, splits))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

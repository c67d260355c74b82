"""What of a training run outlives a step: weights, optimizer, progress, history, and their copies on disk."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from base.errors import InputError
from model.calibration.domain import Domain, to_tensors
from model.inference import Origin, save_model
from model.networks.pair_network import PairNetwork, Temperatures
from model.settings import TrainSettings
from model.train.checkpoints import Checkpoints
from model.train.distributed import World
from model.train.history import (
    Meter,
    Record,
    best_record,
    describe_record,
    validations_without_progress,
    write_history,
)
from model.train.start import Start
from xbd.names import SAMPLE
from xbd.scenes import prepared_version, read_index

# Settings that may change between the parts of one run: none of them changes a weight.
WITHOUT_EFFECT = ("workers", "checkpoint_every", "keep_checkpoints", "hang_timeout", "profile")


class RunError(InputError):
    """A run whose results are not on its disk."""


class Run:
    """State of a run; every process has one, the main process alone writes.

    epoch, step: the epoch that is being trained, counted from 1, and how many of its `steps` are done.
    network: the model as a training step calls it.
    """

    def __init__(
        self,
        data: Path,
        out: Path,
        settings: TrainSettings,
        model: PairNetwork,
        world: World,
        steps: int,
        on_epoch: Callable[[Record], None],
        on_checkpoint: Callable[[Path], None],
        raw_version: str | None = None,
        augmentation: Mapping[str, Any] | None = None,
        start: Start | None = None,
    ) -> None:
        self.out, self.settings, self.model, self.world, self.steps = out, settings, model, world, steps
        self.on_epoch, self.augmentation = on_epoch, augmentation
        self.optimizer = make_optimizer(model, settings)
        # Buckets that gradients are views of save a copy; the running statistics are equal without being sent.
        self.network: nn.Module = (
            model
            if world.size == 1
            else DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        )
        self.epoch, self.step, self.meter = 1, 0, Meter()
        self.history: list[Record] = []
        self.origin = origin_of(data, raw_version, start)
        self.checkpoints = Checkpoints(
            out / "checkpoints",
            {"train": identity_of(settings), "prepared_version": prepared_version(data)},
            settings.keep_checkpoints,
            on_checkpoint,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.checkpoints.wait()

    def resume(self) -> None:
        """Continues from the newest good checkpoint in `out`, if there is one of this run."""
        found = self.checkpoints.load() if self.world.is_main else None
        state: dict[str, Any] | None = self.world.broadcast(None if found is None else found.state)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.history, self.meter = state["history"], Meter(state["sums"])
        if len(state["rng"]) == self.world.size:
            torch.set_rng_state(state["rng"][self.world.rank])
        if self.world.is_main:
            assert found is not None
            for record in self.history:
                self.on_epoch(record)
            where = (
                f"update {self.step} of {self.steps} of epoch {self.epoch}" if self.step else f"epoch {self.epoch - 1}"
            )
            print(f"resumed after {where} of {self.settings.epochs} from {found.path}", flush=True)

    def save(self, score: float | None = None) -> None:
        """Writes a checkpoint, in the background; all processes call it together."""
        rng = self.world.gather(torch.get_rng_state())
        if not self.world.is_main:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.meter.sums,
            "history": self.history,
            "rng": rng,
        }
        done = (self.epoch - 1) * self.steps + self.step
        self.meter.add(checkpoint_pause=self.checkpoints.save(done, self.epoch, state, score))

    def finish_epoch(self, record: Record) -> None:
        """Ends the epoch: keeps its record and writes the checkpoint between it and the next."""
        self.history.append(record)
        self.epoch, self.step, self.meter = self.epoch + 1, 0, Meter()
        self.save(record.get("validation_score"))
        if self.world.is_main:
            write_history(self.out / "history.csv", self.history)
            self.on_epoch(record)
            print(describe_record(record, self.settings.epochs), flush=True)

    def is_done(self) -> bool:
        """Whether all epochs are trained, or the validations stopped to improve."""
        patience = self.settings.patience
        return self.epoch > self.settings.epochs or (
            patience > 0 and validations_without_progress(self.history) >= patience
        )

    def is_validation_due(self) -> bool:
        """Whether the epoch that was just trained is one to validate after; the last one is in any case."""
        return self.epoch % self.settings.validate_every == 0 or self.epoch == self.settings.epochs

    def finish(
        self, calibrate: Callable[[PairNetwork], Temperatures | None], summarize: Callable[[PairNetwork], Domain]
    ) -> Record:
        """Writes the model directory from the kept weights, with the temperatures that `calibrate` finds for them, and
        what `summarize` says of the training data.

        Raises RunError where their checkpoint could not be kept on the disk.
        """
        record = best_record(self.history)
        if self.world.is_main:
            write_history(self.out / "history.csv", self.history)
            if "validation_score" in record:
                best = self.checkpoints.best()
                if best is None or best.score != record["validation_score"]:
                    raise RunError(
                        f"{self.out / 'checkpoints'}: holds no good checkpoint of the best epoch "
                        f"{record['epoch']:.0f}: it could not be written or was damaged, as said above. Free the "
                        "disk and run the same command again, which goes on from the newest good checkpoint."
                    )
                self.model.load_state_dict(best.state["model"])
            self.model.temperatures = calibrate(self.model)
            domain = to_tensors(summarize(self.model))
            save_model(self.model, self.out / "model", self.origin, self.augmentation, domain)
        return record


def origin_of(data: Path, raw_version: str | None, start: Start | None = None) -> Origin:
    """What a model is trained on that learns from the prepared data set `data`, and, before, from what `start` has
    learned from; the versions are those of `data`.
    """
    events = {record.disaster for record in read_index(data, ["train"])}
    kinds = {"synthetic" if event.startswith(SAMPLE) else "real" for event in events}
    if start is not None:
        events |= set(start.origin.events)
        kinds |= set(start.origin.scenes.split(" and "))
    scenes = "unknown" if "unknown" in kinds else " and ".join(sorted(kinds, reverse=True))
    name = None if start is None else start.name
    return Origin(scenes, tuple(sorted(events)), prepared_version(data), raw_version, name)  # type: ignore[arg-type]


def identity_of(settings: TrainSettings) -> dict[str, Any]:
    """The settings that decide the weights of a run.

    One with a default came later than the others. The default is what training did before, and stands for no setting,
    so that earlier runs and checkpoints are still found.
    """
    before = {field.name: field.default for field in fields(settings) if field.default is not MISSING}
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in WITHOUT_EFFECT and not (name in before and value == before[name])
    }


def make_optimizer(model: PairNetwork, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD with momentum, the paper's, or AdamW, of the weights that are trained; fused: one pass over all of them
    instead of some ten for each.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            weights,
            lr=settings.learning_rate,
            betas=(settings.momentum, 0.999),
            weight_decay=settings.weight_decay,
            fused=True,
        )
    return torch.optim.SGD(
        weights,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )

"""Training: the paper's recipe as a loop that one reads from top to bottom.

Source: paper, section 3, "Details of Training Phase"; what it leaves open follows the published code.
"""

import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from model.allocator import keep_freed_memory
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.dual_hrnet import DualHRNet, DualLogits
from model.hrnet import resize
from model.inference import Predictor, load_model, normalize, save_model
from model.lovasz import lovasz_softmax
from model.metric import XView2Score
from model.settings import TrainSettings
from model.weights import load_imagenet
from xbd.dataset import Sample, SceneCrops, Scenes
from xbd.errors import InputError
from xbd.labels import UNCLASSIFIED
from xbd.scenes import SceneError, data_version

Record = dict[str, float]


class TrainingError(InputError):
    """Settings and data that cannot train together, or a run that went wrong."""


@dataclass(frozen=True)
class Losses:
    """total = localization + damage_weight x damage; scalars."""

    total: Tensor
    localization: Tensor
    damage: Tensor


def dual_loss(logits: DualLogits, mask: Tensor, settings: TrainSettings) -> Losses:
    """The paper's objective (equation 2) on probabilities upsampled to full resolution.

    mask: [B, H, W], 0-4 and 255. Un-classified pixels count in neither loss; the damage loss sees buildings only,
    and its classes are the grades less one. Computed in float32, whatever precision the logits have.
    """
    with torch.autocast(mask.device.type, enabled=False):
        return _dual_loss(DualLogits(*(part.float() for part in logits)), mask, settings)


def _dual_loss(logits: DualLogits, mask: Tensor, settings: TrainSettings) -> Losses:
    size = (mask.shape[-2], mask.shape[-1])
    ignored = torch.full_like(mask, UNCLASSIFIED)
    building = torch.where(mask == UNCLASSIFIED, ignored, (mask > 0).to(mask.dtype))
    grade = torch.where((mask == 0) | (mask == UNCLASSIFIED), ignored, mask - 1)
    localization = lovasz_softmax(resize(F.softmax(logits.localization, 1), size), building, UNCLASSIFIED)
    probs = resize(F.softmax(logits.damage, 1), size)
    damage = lovasz_softmax(probs, grade, UNCLASSIFIED, settings.class_weights)
    if settings.damage_cross_entropy > 0:
        damage = damage + settings.damage_cross_entropy * _cross_entropy(probs, grade, settings.class_weights)
    return Losses(localization + settings.damage_weight * damage, localization, damage)


def _cross_entropy(probs: Tensor, grade: Tensor, class_weights: Sequence[float] | None) -> Tensor:
    """Weighted mean over the graded pixels, 0 where there is none.

    Why it is there: Lovász-softmax pulls a grade up by a force that falls with p (1 - p) of its softmax, so that a
    grade which lost its probability early (in small batches that lack it) never comes back; cross-entropy's pull
    grows instead. Measured in docs/benchmarks.md.
    """
    if bool((grade == UNCLASSIFIED).all()):
        return probs.sum() * 0
    weights = None if class_weights is None else probs.new_tensor(class_weights)
    return F.nll_loss(probs.clamp_min(1e-12).log(), grade.long(), weights, ignore_index=UNCLASSIFIED)


def train(
    data: Path,
    out: Path,
    settings: TrainSettings,
    *,
    pretrained: Path | None = None,
    on_epoch: Callable[[Record], None] = lambda record: None,
    on_checkpoint: Callable[[Path], None] = lambda path: None,
) -> Record:
    """Trains on the prepared data set `data` and writes `out`/model, history.csv and checkpoints/.

    A checkpoint of the same settings and data in `out` is resumed; on a CPU the weights then are those of the
    undisturbed run, bit for bit. pretrained: file of ImageNet weights for both streams. Calls `on_checkpoint` with
    the path of each checkpoint and `on_epoch` with each record, also with those of the epochs before a resume.
    Returns the record of the epoch whose weights were kept: the best validation score, or the last epoch.
    Raises TrainingError where the data set has fewer crops than a batch, the batch sizes do not fit, or the loss is
    not finite; WeightsError where `pretrained` does not fit the network.
    """
    if settings.global_batch_size % settings.device_batch_size:
        raise TrainingError(
            f"train.device_batch_size: {settings.device_batch_size} does not divide train.global_batch_size "
            f"{settings.global_batch_size}. Values that do: {_divisors(settings.global_batch_size)}."
        )
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(settings.deterministic)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    crops = SceneCrops(
        data,
        crop_size=settings.crop_size,
        scale=settings.scale,
        crops_per_scene=settings.crops_per_scene,
        seed=settings.seed,
    )
    steps = len(crops) // settings.global_batch_size
    if steps == 0:
        raise TrainingError(
            f"train.global_batch_size: {settings.global_batch_size} is more than the {len(crops)} crops of an epoch "
            f"({len(crops.records)} scenes x {settings.crops_per_scene}). Lower it or raise train.crops_per_scene."
        )
    validation = _validation_scenes(data) if settings.validate_every else None
    model = DualHRNet(settings.network)
    if pretrained is not None:
        print(load_imagenet(model, pretrained).summary())
    model.set_recompute(settings.recompute)
    if device.type == "cpu":
        keep_freed_memory()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(data, out, settings, model, _optimizer(model, settings), on_epoch, on_checkpoint)
    run.resume()
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        record = _train_epoch(run, crops, epoch, steps, device)
        if validation is not None and (epoch % settings.validate_every == 0 or epoch == settings.epochs):
            record |= {f"validation_{key}": value for key, value in validate(model, validation).items()}
        run.finish_epoch(record)
    return run.finish()


def validate(model: DualHRNet, scenes: Scenes) -> Record:
    """xView2 score of the model on whole scenes; the model itself stays as it is."""
    predictor, metric = Predictor(model), XView2Score()
    for sample in tqdm(DataLoader(scenes, batch_size=1), desc="validate", disable=None, leave=False):
        localization, damage = predictor(sample.pre, sample.post)
        metric.update(localization.cpu(), damage.cpu(), sample.mask)
    return {key: float(value) for key, value in metric.compute().items()}


def _validation_scenes(data: Path) -> Scenes:
    try:
        return Scenes(data, ["validation"])
    except SceneError as error:
        raise TrainingError(f"{error} Raise prepare.validation_share, or set train.validate_every to 0.") from error


def poly_learning_rate(settings: TrainSettings, progress: float) -> float:
    """Base rate x (1 - progress) ^ power; progress is the share of all steps done, in [0, 1)."""
    return float(settings.learning_rate * (1 - progress) ** settings.poly_power)


def _optimizer(model: DualHRNet, settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            betas=(settings.momentum, 0.999),
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over all weights instead of some ten small operations for each of 500 tensors
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


class _Run:
    """What of a run outlives an epoch: weights, optimizer, history, and their copies on disk."""

    def __init__(
        self,
        data: Path,
        out: Path,
        settings: TrainSettings,
        model: DualHRNet,
        optimizer: torch.optim.Optimizer,
        on_epoch: Callable[[Record], None],
        on_checkpoint: Callable[[Path], None],
    ) -> None:
        self.out, self.settings, self.model, self.optimizer = out, settings, model, optimizer
        self.on_epoch, self.on_checkpoint = on_epoch, on_checkpoint
        self.identity: dict[str, Any] = {"settings": asdict(settings), "data_version": data_version(data)}
        self.history: list[Record] = []
        self.checkpoint_path = out / "checkpoints" / "last.pt"
        self.best_path = out / "checkpoints" / "best"

    def resume(self) -> None:
        """Continues from the checkpoint in `out`, if there is one of this run."""
        checkpoint = load_checkpoint(self.checkpoint_path, self.identity)
        if checkpoint is None:
            return
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        torch.set_rng_state(checkpoint.rng)
        self.history = checkpoint.history
        for record in self.history:
            self.on_epoch(record)
        print(f"resumed after epoch {len(self.history)} of {self.settings.epochs} from {self.checkpoint_path}")

    def finish_epoch(self, record: Record) -> None:
        """Keeps the weights if they are the best so far, then the checkpoint; reports last, when all is on disk."""
        self.history.append(record)
        if self._best() is record:
            save_model(self.model, self.best_path)
        save_checkpoint(
            self.checkpoint_path,
            Checkpoint(
                identity=self.identity,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                history=self.history,
                rng=torch.get_rng_state(),
            ),
        )
        self.on_checkpoint(self.checkpoint_path)
        write_history(self.out / "history.csv", self.history)
        self.on_epoch(record)
        print(_line(record, self.settings.epochs), flush=True)

    def finish(self) -> Record:
        """Writes the model directory from the kept weights."""
        write_history(self.out / "history.csv", self.history)
        save_model(load_model(self.best_path), self.out / "model")
        return self._best()

    def _best(self) -> Record:
        """The record whose weights are kept; of equal scores the later, and without validation the last."""
        return max(self.history, key=lambda record: (record.get("validation_score", -1.0), record["epoch"]))


def _train_epoch(run: _Run, crops: SceneCrops, epoch: int, steps: int, device: torch.device) -> Record:
    """One pass over the crops; returns the epoch's record."""
    settings, model, optimizer = run.settings, run.model, run.optimizer
    model.train()
    loader = DataLoader(crops, batch_sampler=list(_batches(len(crops), epoch, settings)), num_workers=settings.workers)
    sums = np.zeros(3)
    start = time.perf_counter()
    rate = settings.learning_rate
    for step, batch in enumerate(tqdm(loader, desc=f"epoch {epoch}/{settings.epochs}", disable=None, leave=False)):
        rate = poly_learning_rate(settings, ((epoch - 1) * steps + step) / (settings.epochs * steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        values = _accumulate_gradients(model, Sample(*(part.to(device) for part in batch)), settings).tolist()
        if not np.isfinite(values[0]):
            raise TrainingError(
                f"epoch {epoch}, step {step + 1}: the loss is {values[0]}. Lower train.learning_rate; the last good "
                f"checkpoint is {run.checkpoint_path}."
            )
        optimizer.step()
        sums += values
    seconds = time.perf_counter() - start
    total, localization, damage = (float(value) for value in sums / steps)
    return {
        "epoch": epoch,
        "loss": total,
        "loss_localization": localization,
        "loss_damage": damage,
        "learning_rate": rate,
        "pairs_per_second": steps * settings.global_batch_size / seconds,
    }


def _accumulate_gradients(model: DualHRNet, batch: Sample, settings: TrainSettings) -> Tensor:
    """Adds the gradients of the mean loss over the passes that make up the batch.

    Returns the means of the total, the localization and the damage loss: [3] float32.
    """
    passes = len(batch.mask) // settings.device_batch_size
    device = batch.mask.device.type
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and device == "cuda")
    sums = torch.zeros(3, device=batch.mask.device)
    for pre, post, mask in zip(*(torch.split(part, settings.device_batch_size) for part in batch), strict=True):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            logits = model(normalize(pre), normalize(post))
        losses = dual_loss(logits, mask, settings)
        (losses.total / passes).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([losses.total, losses.localization, losses.damage]).detach() / passes
    return sums


def _divisors(number: int) -> str:
    return ", ".join(str(i) for i in range(1, number + 1) if number % i == 0)


def _batches(crops: int, epoch: int, settings: TrainSettings) -> Iterator[list[int]]:
    """The epoch's crops in random order, in whole batches; the remainder below a batch is left out."""
    order = np.random.default_rng((settings.seed, epoch)).permutation(crops) + (epoch - 1) * crops
    size = settings.global_batch_size
    for start in range(0, crops - size + 1, size):
        yield [int(index) for index in order[start : start + size]]


def write_history(path: Path, history: Sequence[Record]) -> None:
    """The epochs' records as CSV, one line an epoch; epochs without validation leave its columns empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for record in history for key in record))
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    os.replace(temporary, path)


def _line(record: Record, epochs: int) -> str:
    """An epoch in one line of the log."""
    text = (
        f"epoch {record['epoch']:.0f}/{epochs}  loss {record['loss']:.4f} (localization "
        f"{record['loss_localization']:.4f}, damage {record['loss_damage']:.4f})  learning rate "
        f"{record['learning_rate']:.5f}  {record['pairs_per_second']:.2f} pairs/s"
    )
    if "validation_score" in record:
        text += (
            f"  validation score {record['validation_score']:.4f} (localization F1 "
            f"{record['validation_localization_f1']:.4f}, damage F1 {record['validation_damage_f1']:.4f})"
        )
    return text

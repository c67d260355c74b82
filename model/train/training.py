"""Training: the paper's recipe as a loop that one reads from top to bottom, in one process or in many.

Every process computes its share of each batch; batch norm, gradients and the numbers of the log are taken over all of
them. Source: paper, section 3, "Details of Training Phase"; what it leaves open follows the published code.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from base.errors import InputError, Preempted
from model.calibration.afterwards import calibrate_on_validation, summarize_training
from model.calibration.offsets import count_grades, grade_offsets
from model.fast.allocator import keep_freed_memory
from model.inference import normalize
from model.losses import dual_loss
from model.settings import TrainSettings
from model.train.batch import share_of_batch
from model.train.distributed import World
from model.train.history import Record
from model.train.profiling import profiler
from model.train.pulse import Pulse
from model.train.run import Run
from model.train.start import Start, make_network, set_training
from model.train.sync_batch_norm import convert
from model.train.validation import validate, validation_scenes
from xbd.dataset import Sample, SceneCrops


class TrainingError(InputError):
    """Settings and data that cannot train together, or a run that went wrong."""


def train(
    data: Path,
    out: Path,
    settings: TrainSettings,
    world: World,
    *,
    pretrained: Path | None = None,
    start: Start | None = None,
    raw_version: str | None = None,
    on_epoch: Callable[[Record], None] = lambda record: None,
    on_checkpoint: Callable[[Path], None] = lambda path: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Trains on the prepared data set `data`; the main process writes `out`/model, history.csv and checkpoints/.

    A checkpoint of the same settings and data in `out` is resumed, also in mid-epoch; on CPUs, and with as many
    processes as before, the weights then are those of the undisturbed run, bit for bit. pretrained: file of weights
    of another network to start from; start: a model to start from, which only the main process needs to have.
    raw_version: of the data, for the model to tell. In the main process, calls `on_checkpoint` with the path of each
    checkpoint, from a thread, and `on_epoch` with each record, also with those of the epochs before a resume. When
    `should_stop` is true in any process, all write a checkpoint together and raise Preempted.
    Returns the record of the epoch whose weights were kept: the best validation score, or the last epoch.
    Raises TrainingError where the data set has fewer crops than a batch or the loss is not finite, InputError where
    the batch sizes do not fit the processes, NetworkError where the network lacks a feature that is asked for,
    WeightsError where `pretrained` does not fit it, FreezeError where nothing is left to train.
    """
    share_of_batch(settings.global_batch_size, settings.device_batch_size, world.size)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(settings.deterministic)
    crops = _crops(data, settings)
    validation = validation_scenes(data) if settings.validate_every else None
    model = make_network(settings, pretrained, start, says=world.is_main)
    model.set_recompute(settings.recompute)
    keep_freed_memory()
    convert(model, world)
    model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(crops) // settings.global_batch_size
    augmentation = None if crops.augmentation is None else crops.augmentation.as_dict()
    with (
        Pulse(world, settings.hang_timeout) as pulse,
        Run(data, out, settings, model, world, steps, on_epoch, on_checkpoint, raw_version, augmentation, start) as run,
    ):
        pulse.watch(model)
        if settings.logit_adjustment:
            pixels = count_grades(data, crops.records[world.rank :: world.size], pulse.alive)
            model.grade_offsets = grade_offsets(world.reduce_sum(pixels), settings.logit_adjustment)
            if world.is_main and model.grade_offsets is not None:
                print(f"the model will raise its damage logits by {model.grade_offsets}", flush=True)
        _settle_buckets(run)
        run.resume()
        while not run.is_done():
            record = _train_epoch(run, crops, pulse, should_stop)
            if validation is not None and run.is_validation_due():
                run.save()  # a run that is killed while it validates has its epoch behind it
                scores = validate(run.model, validation, world, pulse)
                record |= {f"validation_{key}": value for key, value in scores.items()}
            run.finish_epoch(record)
        return run.finish(
            lambda kept: calibrate_on_validation(data, kept, pulse.alive),
            lambda kept: summarize_training(data, kept, pulse.alive),
        )


def poly_learning_rate(settings: TrainSettings, progress: float) -> float:
    """Base rate x (1 - progress) ^ power; progress is the share of all steps done, in [0, 1)."""
    return float(settings.learning_rate * (1 - progress) ** settings.poly_power)


def _crops(data: Path, settings: TrainSettings) -> SceneCrops:
    crops = SceneCrops(
        data,
        crop_size=settings.crop_size,
        scale=settings.scale,
        crops_per_scene=settings.crops_per_scene,
        seed=settings.seed,
        damage_focus=settings.damage_focus,
        misalignment=settings.misalignment,
        augmentation=None if settings.augmentation is None else asdict(settings.augmentation),
    )
    if len(crops) < settings.global_batch_size:
        raise TrainingError(
            f"train.global_batch_size: {settings.global_batch_size} is more than the {len(crops)} crops of an epoch "
            f"({len(crops.records)} scenes x {settings.crops_per_scene}). Lower it or raise train.crops_per_scene."
        )
    return crops


def _train_epoch(run: Run, crops: SceneCrops, pulse: Pulse, should_stop: Callable[[], bool]) -> Record:
    """Trains the rest of the run's epoch; returns the epoch's record."""
    settings, world, meter = run.settings, run.world, run.meter
    set_training(run.model, settings)
    batches = list(_batches(len(crops), run.epoch, settings, world))[run.step :]
    loader = DataLoader(
        crops, batch_sampler=batches, num_workers=settings.workers, pin_memory=world.device.type == "cuda"
    )
    title = f"epoch {run.epoch}/{settings.epochs}"
    bar = tqdm(total=run.steps, initial=run.step, desc=title, leave=False, disable=None if world.is_main else True)
    with bar, profiler(settings, run.out, world, first_epoch=run.epoch == 1) as profile:
        meter.stepped()  # what came before, such as joining or a checkpoint, is no wait for data
        for batch, indices in zip(loader, batches, strict=True):
            waited = meter.waited()
            rate = _learning_rate(run, run.step)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            run.optimizer.zero_grad(set_to_none=True)
            sample = Sample(*(part.to(world.device, non_blocking=True) for part in batch))
            losses = _accumulate_gradients(run.network, sample, settings)
            # One small sum over all processes: the numbers of the log, and whether any of them was asked to stop.
            numbers = torch.cat([losses.mean(0).double(), losses.new_tensor([should_stop()]).double()])
            total, localization, damage, stop = (world.reduce_sum(numbers) / world.size).tolist()
            if not np.isfinite(total):
                _refuse_loss(run, crops, losses, indices)
            norm = torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None]).item()
            run.optimizer.step()
            run.step += 1
            meter.add(
                loss=total,
                loss_localization=localization,
                loss_damage=damage,
                gradient_norm=norm,
                waited=waited,
                seconds=meter.stepped(),
                pairs=settings.global_batch_size,
                steps=1,
            )
            pulse.beat()
            profile.step()
            bar.update()
            if world.is_main:
                meter.say(f"{title}  update {run.step}/{run.steps}")
            every = settings.checkpoint_every
            if stop or (every and run.step % every == 0 and run.step < run.steps):
                run.save()
                meter.stepped()
            if stop:
                run.checkpoints.wait()
                raise Preempted(f"{title}, update {run.step}: asked to stop. Run the same command again to go on.")
    return {"epoch": run.epoch, **meter.record(world.device), "learning_rate": _learning_rate(run, run.steps - 1)}


def _learning_rate(run: Run, step: int) -> float:
    """The rate of an update in the run's epoch."""
    return poly_learning_rate(run.settings, ((run.epoch - 1) * run.steps + step) / (run.settings.epochs * run.steps))


def _accumulate_gradients(network: nn.Module, batch: Sample, settings: TrainSettings) -> Tensor:
    """Adds the gradients of the mean loss over the passes that make up this process's share of the batch.

    network: the model, or the model in DistributedDataParallel, which takes the mean over the processes in the last
    pass only. Returns total, localization and damage loss of each pass: [passes, 3] float32.
    """
    passes = len(batch.mask) // settings.device_batch_size
    device = batch.mask.device.type
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and device == "cuda")
    parts = zip(*(torch.split(part, settings.device_batch_size) for part in batch), strict=True)
    rows = []
    for number, (pre, post, mask) in enumerate(parts, start=1):
        waits = isinstance(network, DistributedDataParallel) and number < passes
        with cast(DistributedDataParallel, network).no_sync() if waits else nullcontext():
            with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
                logits = network(normalize(pre), normalize(post))
            losses = dual_loss(logits, mask, settings)
            (losses.total / passes).backward()  # type: ignore[no-untyped-call]
        rows.append(torch.stack([losses.total, losses.localization, losses.damage]).detach())
    return torch.stack(rows)


def _settle_buckets(run: Run) -> None:
    """Lets DistributedDataParallel order its buckets of gradients, which it does after the first backward pass.

    The order decides in which order the gradients of the processes are added, and so their last digit: without this
    the first update after a resume would differ from the same one of the undisturbed run.
    """
    if run.world.size == 1:
        return
    settings, size = run.settings, run.settings.crop_size
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    images = torch.zeros(2, settings.device_batch_size, 3, size, size, dtype=torch.uint8, device=run.world.device)
    _accumulate_gradients(run.network, Sample(images[0], images[1], images[0, :, 0]), settings)
    run.optimizer.zero_grad(set_to_none=True)
    run.model.load_state_dict(before)


def _refuse_loss(run: Run, crops: SceneCrops, losses: Tensor, indices: list[int]) -> None:
    """Ends a run whose loss is not finite, naming the scenes of the passes in which it arose, in any process."""
    size = run.settings.device_batch_size
    bad = [number for number, loss in enumerate(losses[:, 0].tolist()) if not np.isfinite(loss)]
    own = {crops.scene_of(index) for number in bad for index in indices[number * size : (number + 1) * size]}
    scenes = sorted(set().union(*run.world.gather(own)))
    run.checkpoints.wait()
    newest = run.checkpoints.newest() if run.world.is_main else None
    name = run.world.broadcast("none" if newest is None else newest.name)  # the others have no `out`
    raise TrainingError(
        f"epoch {run.epoch}, update {run.step + 1}: the loss is not finite in a pass with {', '.join(scenes)}. Lower "
        f"train.learning_rate, or look at these scenes; the last good checkpoint is {name}."
    )


def _batches(crops: int, epoch: int, settings: TrainSettings, world: World) -> Iterator[list[int]]:
    """This process's share of each of the epoch's batches; a remainder of crops below a batch is left out.

    The batches are the same whatever the number of processes: in random order, cut into passes of device_batch_size
    that the processes take in turns.
    """
    order = np.random.default_rng((settings.seed, epoch)).permutation(crops) + (epoch - 1) * crops
    whole = len(order) // settings.global_batch_size * settings.global_batch_size
    for batch in order[:whole].reshape(-1, settings.global_batch_size):
        yield batch.reshape(-1, settings.device_batch_size)[world.rank :: world.size].flatten().tolist()

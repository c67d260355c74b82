"""How fast a device trains, predicts and is fed."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.gpu.subject import Scale, network, pairs, seconds_a_call, settings, synchronize, trainer
from model.inference import Predictor, normalize
from model.train.training import _accumulate_gradients
from xbd.dataset import Sample, SceneCrops
from xbd.scenes import SceneRecord, save_scene, write_index

SCENES, STEPS, BATCH = 8, 12, 8  # of the loader's measurement


@dataclass(frozen=True)
class Row:
    """rate: pairs a second; memory: GB at the peak, None where the device does not tell; share: of the device's bf16
    rate, None where the work is not known; waited: share of the time in which the step waited for data; note: why there
    is no number.
    """

    name: str
    rate: float | None = None
    memory: float | None = None
    share: float | None = None
    waited: float | None = None
    note: str = ""


def bf16_rate(scale: Scale) -> float:
    """TFLOP a second of a matrix product."""
    kind = torch.bfloat16 if scale.device.type == "cuda" else torch.float32  # some CPUs take minutes
    square = torch.randn(scale.rate, scale.rate, device=scale.device, dtype=kind)
    return 2e-12 * scale.rate**3 / seconds_a_call(lambda: square @ square, scale)


def training(scale: Scale, tflops: float) -> Iterator[Callable[[], Row]]:
    """One measurement after the other: batches, recompute, layout, compiler."""
    half = scale.device.type == "cuda"
    usual = {"half": half, "recompute": False, "channels_last": True, "compiled": False}
    cases: list[tuple[str, int, dict[str, bool]]] = []
    for batch in scale.batches:
        cases.append((f"train, {batch} pairs", batch, usual))
        cases.append((f"train, {batch} pairs, recompute", batch, usual | {"recompute": True}))
    middle = scale.batches[len(scale.batches) // 2]
    cases.append((f"train, {middle} pairs, channels first", middle, usual | {"channels_last": False}))
    if half:
        cases.append((f"train, {middle} pairs, float32", middle, usual | {"half": False}))
        cases.append((f"train, {middle} pairs, torch.compile", middle, usual | {"compiled": True}))
    work = 3 * scale.gflop * (scale.crop / 512) ** 2
    for name, batch, how in cases:

        def row(name: str = name, batch: int = batch, how: dict[str, bool] = how) -> Row:
            return measured(name, scale, batch, work, tflops, lambda: trainer(scale, batch, **how))

        yield row


def inference(scale: Scale, tflops: float) -> Iterator[Callable[[], Row]]:
    """One measurement after the other, of a pair of scale.image²."""
    half = scale.device.type == "cuda"
    work = scale.gflop * (scale.image / 512) ** 2

    def plain(compiled: bool, half: bool) -> Callable[[], object]:
        model = network(scale).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run: Callable[..., Any] = torch.compile(model) if compiled else model
        pre, post, _ = pairs(1, scale.image, scale.device)

        @torch.inference_mode()
        def call() -> object:
            with torch.autocast(scale.device.type, dtype=torch.bfloat16, enabled=half):
                return run(normalize(pre), normalize(post))

        return call

    def folded() -> Callable[[], object]:
        predictor = Predictor(network(scale).eval())
        pre, post, _ = pairs(1, scale.image, scale.device)
        return lambda: predictor(pre, post)

    cases: dict[str, Callable[[], Callable[[], object]]] = {
        "predict, plain": lambda: plain(compiled=False, half=False),
        "predict, folded": folded,
    }
    if half:
        cases["predict, plain, bfloat16"] = lambda: plain(compiled=False, half=True)
        cases["predict, torch.compile, bfloat16"] = lambda: plain(compiled=True, half=True)
    for name, make in cases.items():
        yield lambda name=name, make=make: measured(name, scale, 1, work, tflops, make)  # type: ignore[misc]


def measured(
    name: str, scale: Scale, batch: int, gflop: float, tflops: float, make: Callable[[], Callable[[], object]]
) -> Row:
    """A row for the call that `make` makes. gflop: of a pair. What the device cannot do is the row's note."""
    gc.collect()
    cuda = scale.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(scale.device)
    try:
        seconds = seconds_a_call(make(), scale)
    except torch.OutOfMemoryError:
        return Row(name, note="out of memory")
    except Exception as error:  # a compiler that is missing, or breaks
        return Row(name, note=f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}")
    memory = torch.cuda.max_memory_allocated(scale.device) / 1e9 if cuda else None
    share = batch * gflop / 1e3 / seconds / tflops if gflop else None
    return Row(name, batch / seconds, memory, share)


def feeding(scale: Scale) -> Iterator[Callable[[], Row]]:
    """Training from prepared scenes, by the number of loader processes."""
    for workers in scale.workers:
        yield lambda workers=workers: fed(scale, workers)  # type: ignore[misc]


def fed(scale: Scale, workers: int) -> Row:
    """Steps of BATCH pairs, and how much of their time the device waited for the loader."""
    batch = min(BATCH, max(scale.batches))
    given = settings(scale.network, device_batch_size=batch, global_batch_size=batch, workers=workers)
    model = network(scale).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.9, fused=True)
    with tempfile.TemporaryDirectory() as folder:
        crops = SceneCrops(write_scenes(Path(folder), 2 * scale.crop), crop_size=scale.crop, crops_per_scene=100)
        loader = DataLoader(
            crops, batch_size=batch, num_workers=workers, pin_memory=scale.device.type == "cuda", shuffle=True
        )
        waited, start, last = 0.0, 0.0, time.perf_counter()
        for number, sample in enumerate(loader):
            now = time.perf_counter()
            if number == 2:  # the first ones start the loader's processes and choose kernels
                waited, start = 0.0, last
            waited += now - last
            optimizer.zero_grad(set_to_none=True)
            _accumulate_gradients(model, Sample(*(part.to(scale.device, non_blocking=True) for part in sample)), given)
            optimizer.step()
            synchronize(scale.device)
            last = time.perf_counter()
            if number == 1 + STEPS:
                break
    return Row(
        f"train, {batch} pairs, {workers} loader processes",
        batch * STEPS / (last - start),
        None,
        None,
        waited / (last - start),
    )


def write_scenes(root: Path, side: int) -> Path:
    """A prepared data set of noise with some buildings."""
    rng, records = np.random.default_rng(0), []
    for number in range(SCENES):
        scene = rng.integers(0, 256, (side, side, 7)).astype(np.uint8)
        scene[..., 6] = np.kron(rng.integers(0, 5, (side // 32, side // 32)), np.ones((32, 32), int))
        save_scene(root, f"noise_{number:08}", scene)
        name = f"noise_{number:08}"
        records.append(
            SceneRecord(
                name, "train", "train", "noise", "noise", side, side, 1, 1, 1, 1, 0, 0, 0.5, 10.0, "a", "b", "c", "d"
            )
        )
    write_index(root, records)
    return root

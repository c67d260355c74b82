"""Training samples of 512 x 512 with all augmentations: the usual loader of PNG files against SceneCrops.

python -m benchmarks.loader [--raw DIR]     (real scenes of xBD; synthetic ones of their size without it)
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

import xbd.dataset
from base.errors import errors_in_one_line
from base.images import encode_png
from benchmarks.measure import Work, side_by_side, table
from components.params import load_params
from components.prepare import prepare
from model.fast.allocator import keep_freed_memory
from xbd.dataset import Sample, SceneCrops
from xbd.sample.synthetic import write_sample
from xbd.scenes import MASK, RawScene, open_scene, read_index

SIZE, SCALE = 512, (0.8, 1.2)
SCENES, SIDE = 12, 1024  # of the synthetic data
SAMPLES, TURNS = 24, 9  # samples of a turn

Parts = list[npt.NDArray[Any]]  # pre and post, uint8 [H, W, 3], and the mask, uint8 [H, W]
# The rows of the table, and what each loader calls for them. Ours flips in the copy that takes the crop, exchanges rows
# and columns when it scales, and has its channels in order by then.
STAGES = ("decode, or open the map", "crop", "scale", "flips and turn", "to tensor", "the rest", "all")
USUAL = ("decode", "crop", "scale", "flip_and_turn", "to_tensor")
OURS = ("open_scene", "read_planes", "resize_planes")


class PngCrops(Dataset[Sample]):
    """The usual way: whole files are decoded, whole images transformed, and the crop is taken last."""

    def __init__(self, prepared: Path, raw: Path) -> None:
        scenes = [RawScene(record.source, record.scene, raw) for record in read_index(prepared, ["train"])]
        self.files = [[scene.image("pre"), scene.image("post"), mask_file(prepared, scene.scene)] for scene in scenes]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        parts = scale(decode(self.files[index % len(self)]), rng.uniform(*SCALE))
        upside_down, mirrored, turns = rng.integers((2, 2, 4))
        parts = flip_and_turn(parts, upside_down, mirrored, int(turns))
        top, left = rng.integers([length - SIZE + 1 for length in parts[2].shape])
        return to_tensor(crop(parts, top, left))


def decode(files: Sequence[Path]) -> Parts:
    """Three PNG files; OpenCV, because it is the fastest reader that is commonly used."""
    pre, post = (cv2.imread(str(file)) for file in files[:2])
    mask = cv2.imread(str(files[2]), cv2.IMREAD_UNCHANGED)
    assert pre is not None and post is not None and mask is not None
    return [cv2.cvtColor(pre, cv2.COLOR_BGR2RGB), cv2.cvtColor(post, cv2.COLOR_BGR2RGB), mask]


def scale(parts: Parts, zoom: float) -> Parts:
    """Images bilinearly, the mask by the nearest pixel."""
    height, width = parts[2].shape
    size, ways = (round(width * zoom), round(height * zoom)), (cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_NEAREST)
    return [cv2.resize(part, size, interpolation=way) for part, way in zip(parts, ways, strict=True)]


def flip_and_turn(parts: Parts, upside_down: bool, mirrored: bool, turns: int) -> Parts:
    """Each flip that was drawn, then the quarter turns."""
    for drawn, axis in ((upside_down, 0), (mirrored, 1)):
        if drawn:
            parts = [cv2.flip(part, axis) for part in parts]
    return [cv2.rotate(part, turns - 1) for part in parts] if turns else parts


def crop(parts: Parts, top: int, left: int) -> Parts:
    """A square of SIZE pixels."""
    return [part[top : top + SIZE, left : left + SIZE] for part in parts]


def to_tensor(parts: Parts) -> Sample:
    """Channels first, contiguous."""
    pre, post = (torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1))) for part in parts[:2])
    return Sample(pre, post, torch.from_numpy(np.ascontiguousarray(parts[2])))


def mask_file(prepared: Path, scene: str) -> Path:
    """Where the usual loader finds the mask of a scene."""
    return prepared.with_name("masks") / f"{scene}.png"


def read(crops: Dataset[Sample], first: int = 0) -> None:
    """Reads SAMPLES samples."""
    for index in range(first, first + SAMPLES):
        crops[index]


def usual(prepared: Path, raw: Path) -> Work:
    """A turn of the usual loader."""
    return functools.partial(read, PngCrops(prepared, raw))


def ours(prepared: Path, **options: Any) -> Work:
    """A turn of SceneCrops."""
    return functools.partial(read, SceneCrops(prepared, crop_size=SIZE, scale=SCALE, **options))


def stages(module: ModuleType, names: Sequence[str], crops: Dataset[Sample], first: int) -> list[float]:
    """CPU milliseconds a sample in each of these functions of the module, in the rest, and in all."""
    seconds = dict.fromkeys(names, 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.process_time()
            result = function(*arguments)
            seconds[name] += time.process_time() - start
            return result

        return call

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch.object(module, name, timed(name, getattr(module, name))))
        start = time.process_time()
        read(crops, first)
        total = time.process_time() - start
    parts = list(seconds.values())
    return [1000 * value / SAMPLES for value in (*parts, total - sum(parts), total)]


def stage_table(prepared: Path, raw: Path) -> str:
    """Medians of CPU milliseconds a sample, the loaders in turns."""
    loaders: dict[str, tuple[ModuleType, Sequence[str], Dataset[Sample]]] = {
        "usual": (sys.modules[__name__], USUAL, PngCrops(prepared, raw)),
        "ours": (xbd.dataset, OURS, SceneCrops(prepared, crop_size=SIZE, scale=SCALE)),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in loaders}
    for number in range(TURNS + 1):
        for name, loader in loaders.items():
            found[name].append(stages(*loader, number * SAMPLES))
    columns = [
        [f"{statistics.median(column):.2f}" for column in zip(*rows[1:], strict=True)] for rows in found.values()
    ]
    columns[1][len(OURS) : len(OURS)] = ["in the two above", "none"]
    lines = [f"| {' | '.join(row)} |" for row in zip(STAGES, *columns, strict=True)]
    return "\n".join([f"| CPU ms a sample | {' | '.join(loaders)} |", "|---|---|---|", *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the stages of both loaders, then whole samples, also with damage focus and misalignment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--raw", type=Path, metavar="DIR", help="raw scenes in the xBD layout, of 640 pixels or more")
    arguments = parser.parse_args(argv)
    keep_freed_memory()  # as training does
    with tempfile.TemporaryDirectory() as folder, errors_in_one_line():
        raw, prepared = arguments.raw or Path(folder) / "raw", Path(folder) / "prepared"
        if arguments.raw is None:
            write_sample(raw, train=SCENES, test=1, size=SIDE, seed=1)
        prepare(raw, prepared, load_params(Path("params.yaml")).prepare)
        records = read_index(prepared, ["train"])
        for record in records:
            path = mask_file(prepared, record.scene)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(np.ascontiguousarray(open_scene(prepared, record)[..., MASK])))
        print(f"{len(records)} scenes, {TURNS} turns of {SAMPLES} samples\n\n{stage_table(prepared, raw)}\n")
        variants = {
            "usual": functools.partial(usual, prepared, raw),
            "ours": functools.partial(ours, prepared),
            "ours, damage_focus 1": functools.partial(ours, prepared, damage_focus=1.0),
            "ours, misalignment 8": functools.partial(ours, prepared, misalignment=8),
            **{
                f"ours, {geometry} geometry, {photometry} photometry": functools.partial(
                    ours, prepared, augmentation={"geometry": geometry, "photometry": photometry}
                )
                for geometry, photometry in (("none", "none"), ("paper", "none"), ("strong", "strong"))
            },
        }
        print(table(side_by_side(variants, TURNS)))


if __name__ == "__main__":
    main()

"""What predict computes beside the network: CPU-seconds of each stage of a window's way, and how many cores keep a GPU
busy.

python -m benchmarks.imagery_cpu --raw XBD [--side 8192] [--gpu-ms 2.1]

The network is a stand-in that takes next to nothing and gives logits and features as large as those of the full one;
what it finds are patches brighter than what lies around them. CPU-seconds are of threads: it
does not matter what else the machine does.

--busy simulates a GPU that has as many cores as it needs: the stand-in sleeps for each window gpu-ms, stretched by the
cores needed over those of this machine. The share of the time that it sleeps is how busy the GPU would be.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple
from unittest import mock

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.imagery_growth import mosaic
from imagery import mapping
from imagery.find import buildings
from imagery.formats.stac import MadeBy
from imagery.give import found, outputs
from imagery.give.page import judging, squares
from imagery.predict import blending, inference
from imagery.predict.tile_features import TileFeatures
from imagery.predict.tile_store import TileStore
from imagery.predict.windows import plan
from imagery.read.image import Image
from imagery.settings import Sources, Windows
from model import inference as network
from model.inference import Origin, Predictor
from model.networks.pair_network import DualLogits, PairNetwork

SCALES = ((4, 32), (8, 64), (16, 128), (32, 256))  # pixels of a pixel of the full network's features, and channels

# What reading is called, by the stage that asks for it; that of windows is in threads of its own.
READ = {
    "": "decode, warp: windows",
    "align": "decode, warp: to align",
    "look, for the report": "decode, warp: for the report",
    "report out": "decode, warp: pictures to judge",
}


class StandIn(PairNetwork):
    """Finds patches that are brighter before than what lies around, and grades them by how bright they are after."""

    @dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
    class Settings:
        """None."""

        name: Literal["stand-in"] = "stand-in"

    seconds: float = 0.0  # that a window sleeps
    slept: float = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.architecture = self.Settings()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        """Logits at a quarter of the resolution."""
        return self.with_features(pre, post)[0]

    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        """Features as large as those of the full network."""
        before, after = (F.avg_pool2d(image.mean(1, keepdim=True), 4, ceil_mode=True) for image in (pre, post))
        light = 4 * (mean_around(before, 5) - mean_around(before, 31) - 0.55)
        damage = torch.cat([-(after - level).abs() for level in (-1.0, 0.0, 1.0, 2.0)], 1)
        height, width = before.shape[-2:]
        maps = [
            torch.zeros(1, 1, 1, 1).expand(len(pre), channels, -(-4 * height // pixels), -(-4 * width // pixels))
            for pixels, channels in SCALES
        ]
        time.sleep(self.seconds * len(pre))
        self.slept += self.seconds * len(pre)
        return DualLogits(torch.cat([torch.zeros_like(light), light], 1), damage), maps


def mean_around(images: Tensor, side: int) -> Tensor:
    """The mean of a square around each pixel, of [B, 1, H, W]; beyond the image all is 0."""
    found = [cv2.blur(image.numpy(), (side, side), borderType=cv2.BORDER_CONSTANT) for image in images[:, 0]]
    return torch.from_numpy(np.stack(found))[:, None]


class Meter:
    """CPU-seconds by stage, each without those of the stages that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = threading.local()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts."""

        def call(*given: Any, **more: Any) -> Any:
            above, start = getattr(self._within, "spent", 0.0), time.thread_time()
            outer = getattr(self._within, "stages", ())
            self._within.spent, self._within.stages = 0.0, (*outer, stage)
            try:
                return function(*given, **more)
            finally:
                spent = time.thread_time() - start
                name = READ[outer[0] if outer else ""] if stage in READ.values() else stage
                self.seconds[name] += spent - self._within.spent
                self._within.spent, self._within.stages = above + spent, outer

        return call


# Where the stages of a window's way are, in its order.
STAGES: Sequence[tuple[str, ModuleType | type, str]] = (
    ("align", mapping, "register"),
    ("look, for the report", mapping, "look_at"),
    (READ[""], Image, "read"),
    ("normalize", network, "normalize"),
    ("network's stand-in", StandIn, "with_features"),
    ("features to 16 bits", inference, "_halved"),
    ("logits and features out", TileStore, "save"),
    ("logits in", TileStore, "load"),
    ("features in", TileStore, "load_features"),
    ("blend", blending, "put_together"),
    ("upsample, argmax, probabilities", blending, "_bands"),
    ("classes out", inference, "compose"),
    ("find, polygonize", found, "find_buildings"),
    ("label buildings", buildings, "_labels"),
    ("features of buildings", TileFeatures, "sums"),
    ("straighten, table", found, "of_buildings"),
    ("rasters out", outputs, "write_rasters"),
    ("vectors out", outputs, "write_geojson"),
    ("features out", pq.ParquetWriter, "write_table"),
    ("pictures to judge, beside reading", judging, "chips"),
    ("pictures to judge, beside reading", squares, "chips"),
    ("report out", outputs, "write_report"),
)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Within, the stages are timed."""
    patches = [
        mock.patch.object(place, name, meter.timed(stage, getattr(place, name))) for stage, place, name in STAGES
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


class Result(NamedTuple):
    """seconds: of CPU, by stage; whole: of all threads; windows: how many; took, slept: seconds that the windows'
    prediction lasted and that the network slept of it; wall: of the whole map.
    """

    seconds: dict[str, float]
    whole: float
    windows: int
    took: float
    slept: float
    wall: float


def predict(folder: Path, side: int, workers: int, seconds: float = 0.0) -> Result:
    """A map of the pair in the folder. seconds: that the network sleeps for a window."""
    meter, stand_in, windows = Meter(), StandIn(), Windows(workers=workers)
    stand_in.seconds = seconds
    predictor = Predictor(stand_in)
    model = mapping.Loaded(predictor, "a stand-in", Origin(), None, MadeBy("a stand-in"), None)
    took, predict_tiles = list[float](), inference._predict_tiles

    def timed(*given: Any, **more: Any) -> None:
        start = time.perf_counter()
        predict_tiles(*given, **more)
        took.append(time.perf_counter() - start)

    sources = Sources(pre=(folder / "pre.tif",), post=(folder / "post.tif",))
    names = {"before": ["pre.tif"], "after": ["post.tif"]}
    with metered(meter), mock.patch.object(inference, "_predict_tiles", timed), tempfile.TemporaryDirectory() as work:
        cpu, wall = time.process_time(), time.perf_counter()
        mapping.make_map(
            lambda: model, sources, Path(work, "out"), Path(work, "tiles"), names=names, windows=windows, features=True
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    network_used = predictor.network
    assert isinstance(network_used, StandIn)
    count = len(plan(side, side, windows.tile, windows.overlap))
    return Result(meter.seconds, cpu, count, took[0], network_used.slept, wall)


def table(result: Result, gpu_ms: float) -> str:
    """The stages in their order, and how many cores a GPU needs."""
    stand_in = result.seconds["network's stand-in"]
    beside = result.whole - stand_in
    stages = [*READ.values(), *(stage for stage, *_ in STAGES if stage not in (*READ.values(), "network's stand-in"))]
    rows = {stage: result.seconds[stage] for stage in stages}
    rows["the rest, with GDAL's own threads"] = beside - sum(rows.values())
    lines = ["| stage | CPU s | ms a window | share |", "|---|---|---|---|"]
    for stage, seconds in {**rows, "**all**": beside}.items():
        lines.append(
            f"| {stage} | {seconds:.2f} | {1000 * seconds / result.windows:.1f} | {100 * seconds / beside:.0f} % |"
        )
    cores = 1000 * beside / result.windows / gpu_ms
    return "\n".join(
        [
            *lines,
            "",
            f"{result.windows} windows; {cores:.0f} cores for a GPU of {gpu_ms:g} ms a window",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imagery_cpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--side", type=int, default=8192, help="pixels of a side (%(default)s)")
    parser.add_argument("--gpu-ms", type=float, default=2.1, help="milliseconds of a window on a GPU (%(default)s)")
    parser.add_argument("--workers", type=int, default=Windows.workers, help="threads that read ahead (%(default)s)")
    parser.add_argument("--busy", action="store_true", help="also simulate a GPU, with sleeps")
    parser.add_argument("--cores", type=int, default=2, help="of this machine, for --busy (%(default)s)")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = sorted(a.raw.glob("*/images/*_pre_disaster.png"))
        posts = [Path(str(path).replace("_pre_", "_post_")) for path in images]
        mosaic(images, Path(folder, "pre.tif"), a.side, 0)
        mosaic(posts, Path(folder, "post.tif"), a.side, 0.5)
        result = predict(Path(folder), a.side, a.workers)
        print(table(result, a.gpu_ms), flush=True)
        if a.busy:
            beside = result.whole - result.seconds["network's stand-in"]
            stretched = beside / result.windows / a.cores
            busy = predict(Path(folder), a.side, a.workers, stretched)
            print(
                f"with {1000 * stretched:.0f} ms of sleep a window: asleep for {100 * busy.slept / busy.took:.0f} % of "
                f"the windows' prediction, {100 * busy.slept / busy.wall:.0f} % of the whole map"
            )


if __name__ == "__main__":
    main()

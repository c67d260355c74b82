"""What a map of a million buildings takes: its shards are made, and merged by the step's own code.

python -m benchmarks.million [--buildings 1000000] [--shards 8] [--workers 2] [--work DIR]

A block of 1,024² pixels with 1,521 small buildings of all angles, some of which reach over its edges, is laid side by
side; images are black, features are noise of the width of the full network. Shards stay in the folder of --work and are
used again. Memory is the largest sum of what the kernel counts for all processes (PSS), looked at twice a second.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from base.files import new_folder
from imagery.find.buildings import find_pieces
from imagery.find.joining import Pieces
from imagery.give import outputs
from imagery.give.look import factor_of, reduced
from imagery.predict.blending import BANDS, BLOCK
from imagery.predict.domain import Parts
from imagery.predict.tile_features import Scale
from imagery.predict.tile_store import CLASSES
from imagery.read.alignment import Alignment
from imagery.read.bands import Bands
from imagery.read.grid import Grid
from imagery.settings import Reading
from imagery.shards import merging, stored
from imagery.shards.division import divide
from imagery.shards.indexing import checksum
from imagery.shards.plan import Plan, PlannedAlignment, PlannedFile, PlannedGrid, PlannedImage
from imagery.shards.stored import StoredShard

SIDE = 39  # buildings of a side of a block
SCALES = (Scale(4, 32), Scale(8, 64), Scale(16, 128), Scale(32, 256))  # of the full network
CORNER = Affine(0.5, 0, 400_000, 0, -0.5, 4_000_000)


def block() -> Any:
    """A block's bands, uint8 [6, 1024, 1024], which fits to itself on all sides."""
    generator = np.random.default_rng(0)
    bands = np.zeros((6, BLOCK, BLOCK), np.uint8)
    houses = [
        np.array([(-9, -6), (9, -6), (9, 6), (-9, 6)]),
        np.array([(-9, -6), (9, -6), (9, 2), (2, 2), (2, 7), (-9, 7)]),
    ]
    step = BLOCK / SIDE
    for row, column in np.ndindex(SIDE, SIDE):
        turn = generator.uniform(0, 2 * np.pi)
        corners = (
            houses[(row + column) % 2]
            / 9
            * generator.uniform(5, 10)
            @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        )
        shape = np.zeros((2 * BLOCK, 2 * BLOCK), np.uint8)[:64, :64]
        cv2.fillPoly(shape, [(corners + 32).round().astype(np.int32)], 1)
        rows, columns = np.nonzero(shape)
        rows, columns = (rows + int(row * step) - 32) % BLOCK, (columns + int(column * step) - 32) % BLOCK
        shares = generator.dirichlet([6, 1, 1, 1])
        bands[0, rows, columns], bands[1, rows, columns] = shares.argmax() + 1, 200
        bands[2:, rows, columns] = np.rint(255 * shares).astype(np.uint8)[:, None]
    return bands


def make_plan(folder: Path, side: int, shards: int) -> Plan:
    """A plan of side x side blocks, and its images."""
    grid = Grid(CRS.from_epsg(32633), CORNER, side * BLOCK, side * BLOCK)
    images = []
    for name in ("pre.tif", "post.tif"):
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "crs": grid.crs, "transform": grid.transform}
        options = {"tiled": True, "compress": "deflate", "sparse_ok": True, "photometric": "rgb"}
        with rasterio.open(folder / name, "w", width=grid.width, height=grid.height, **profile, **options):
            pass
        file = PlannedFile(
            location=str(folder / name), sha256=checksum(folder / name), crs="EPSG:32633", gsd_m=0.5, extent="",
            box=(0, 0, grid.width, grid.height),
        )  # fmt: skip
        images.append(PlannedImage(name=name, files=(file,), bands=Bands((1, 2, 3), ""), vrt=None))
    facts = {
        "before": ["pre.tif"], "after": ["post.tif"], "alignment": {"said": "off"}, "doubts": [], "event": None,
        "bands": {"before": "1, 2, 3", "after": "1, 2, 3"}, "model": {"said": "made by hand", "calibrated": False},
    }  # fmt: skip
    alignment = Alignment("off", 0.0, 0.0, 0.0, False, None, (), (), False)
    return Plan(
        model="a model", network="a model", identity="made", domain=None, event=None, views=1, reading=Reading(),
        tile=1024, overlap=256, features=True, footprints=None, pre=images[0], post=images[1],
        grid=PlannedGrid.of(grid), ranges=(None, None),
        alignment=PlannedAlignment.of(alignment), facts=facts,
        shards=divide(grid.width, grid.height, np.ones((side, side), np.int64), shards), left_out=(),
    )  # fmt: skip


def make_shard(plan: Plan, number: int, bands: Any, folder: Path, alike: StoredShard | None) -> None:
    """A shard as `imagery.shards.predicting.predict_shard` leaves it. alike: another one of the same size, which saves
    to look for its buildings.
    """
    part, grid = plan.shards[number].window, plan.grid.grid
    channels = sum(scale.channels for scale in SCALES)
    generator = np.random.default_rng(number)
    with new_folder(folder, stored.is_ours) as own:
        if alike is None:
            pieces = draw(own / CLASSES, bands, part, grid)
        else:
            pieces = moved(own / CLASSES, alike, plan.shards[alike.number].window, part, grid)
        stored.write_buildings(own, pieces)
        count = len(pieces.first)
        means = np.lib.format.open_memmap(own / stored.MEANS, "w+", np.float16, (count, channels))
        for start in range(0, count, 8192):
            means[start : start + 8192] = generator.standard_normal((min(8192, count - start), channels), np.float32)
        del means
        going_on = np.unique(np.concatenate(pieces.edges))
        going_on = going_on[going_on > 0] - 1
        sums = generator.integers(1, 1000, (len(going_on), 2, 1 + channels))
        np.savez_compressed(own / stored.SUMS, going_on=going_on, sums=sums)
        small = reduced(part, factor_of(grid))
        black = np.zeros((small.height, small.width, 3), np.uint8)
        stored.write_images(own, [black, black])
        stored.write_compared(own, Parts({}, {}))
        stored.write_facts(own, plan, number, has_data=True, scales=SCALES)


def draw(classes: Path, bands: Any, part: Window, grid: Grid) -> Pieces:
    """Writes the classes of a part of the grid, and finds its buildings."""
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": len(BANDS), "crs": grid.crs, "width": part.width,
        "height": part.height, "transform": grid.cut(part).transform, "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "zlevel": 1,
    }  # fmt: skip
    with rasterio.open(classes, "w", **profile) as out:
        for row, column in np.ndindex(part.height // BLOCK, part.width // BLOCK):
            out.write(bands, window=Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK))
    return find_pieces(classes, corner=(part.col_off, part.row_off), width=grid.width)


def moved(classes: Path, alike: StoredShard, before: Window, part: Window, grid: Grid) -> Pieces:
    """The same, of a part that looks like another one."""
    shutil.copy(alike.classes, classes)
    with rasterio.open(classes, "r+") as dataset:
        dataset.transform = grid.cut(part).transform
    pieces = alike.pieces()
    by = np.array([part.col_off - before.col_off, part.row_off - before.row_off])
    outlines = np.asarray(shapely.transform(pieces.buildings.outlines[:], by.__add__), dtype=object)
    first = pieces.first + by[1] * grid.width + by[0]
    return pieces._replace(buildings=pieces.buildings._replace(outlines=outlines), first=first)


@contextmanager
def timed(found: dict[str, float], names: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Adds up the seconds that functions, as modules know them, take."""
    before = [(module, name, getattr(module, name)) for module, name in names]

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                found[name] = found.get(name, 0) + time.perf_counter() - start

        return call

    for module, name, function in before:
        setattr(module, name, wrapped(name, function))
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


PARTS = (
    (merging, "join_shards"),
    (merging, "of_buildings"),
    (outputs, "mean_over_pixels"),
    (outputs, "by_cells"),
    (outputs, "write_geojson"),
    (outputs, "draw_table"),
    (outputs, "squares_of"),
    (outputs, "write_report"),
)


def make_all(plan: Plan, folders: Sequence[Path]) -> None:
    """The shards of a plan."""
    bands = block()
    known = dict[tuple[int, int], StoredShard]()
    for number, folder in enumerate(folders):
        size = plan.shards[number].width, plan.shards[number].height
        make_shard(plan, number, bands, folder, known.get(size))
        known.setdefault(size, stored.read_shard(folder, plan, number))


def processes() -> Iterator[Path]:
    """In /proc, this one and all that it started, as far as they are left."""
    parents = dict[str, str]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[path.parent.name] = path.read_text().rpartition(")")[2].split()[1]
    own = {str(os.getpid())}
    while more := {number for number, parent in parents.items() if parent in own} - own:
        own |= more
    return (Path("/proc", number) for number in own)


class Watch:
    """Memory in MB and CPU seconds of this process and all that it started, looked at twice a second."""

    def __init__(self) -> None:
        self.peak, self._cpu, self._over = 0.0, dict[str, float](), threading.Event()
        self.look()
        self._before = dict(self._cpu)
        threading.Thread(target=self._go_on, daemon=True).start()

    def _go_on(self) -> None:
        while not self._over.wait(0.5):
            self.look()

    def look(self) -> None:
        total = 0
        for process in processes():
            with suppress(OSError, IndexError):
                total += int((process / "smaps_rollup").read_text().split("\nPss:")[1].split()[0])
                used = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
                self._cpu[process.name] = sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
        self.peak = max(self.peak, total / 1e3)

    def stop(self) -> float:
        """CPU seconds since the beginning."""
        self.look()
        self._over.set()
        return sum(self._cpu.values()) - sum(self._before.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Prints how long the merge took, in which parts, and its peak."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--buildings", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the shards and the map")
    a = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        work = a.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        plan = make_plan(work, max(1, round((a.buildings / SIDE**2) ** 0.5)), a.shards)
        folders = [work / f"{a.shards}" / stored.name_of(number) for number in range(a.shards)]
        if any(not (folder / stored.SHARD).exists() for folder in folders):
            making = multiprocessing.get_context("spawn").Process(target=make_all, args=(plan, folders))
            making.start()
            making.join()
        shards = [stored.read_shard(folder, plan, number) for number, folder in enumerate(folders)]
        found: dict[str, float] = {}
        watch, start = Watch(), time.perf_counter()
        before = watch.peak
        with timed(found, PARTS), outputs.crew_of(a.workers) as crew:
            summary, _ = merging.merge_shards(plan, shards, [], Path, work / "map", work / "merging", crew=crew)
            cpu = watch.stop()
        wall = time.perf_counter() - start
        size = {path.name: path.stat().st_size / 1e6 for path in sorted((work / "map").iterdir()) if path.is_file()}
        print(f"{len(summary):,} buildings of {a.shards} shards, {plan.grid.width:,} x {plan.grid.height:,} pixels")
        print(f"merge: {wall:.0f} s with {a.workers} processes, {cpu:.0f} CPU s")
        print(f"peak {watch.peak:.0f} MB, before the merge {before:.0f} MB")
        print("seconds:", json.dumps({name: round(value, 1) for name, value in found.items()}))
        print("MB:", json.dumps({name: round(value, 1) for name, value in size.items()}))


if __name__ == "__main__":
    main()

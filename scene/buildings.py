"""The single buildings of a predicted scene, block by block: each whole, each once, whatever the blocks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.windows import Window

from model.buildings import GradedBuilding, buildings_of, grade, separate
from scene.blending import NODATA

HALO = 64  # pixels around a block that are read with it; more, where a building goes on


def find_buildings(classes: Path, block: int = 1024) -> Iterator[GradedBuilding]:
    """The buildings of classes.tif (see `scene.inference.predict_scene`), their polygons in pixels of the scene.

    block: pixels of a side of what is looked at together; memory is that of a block and of the largest building.
    """
    with rasterio.open(classes) as dataset:
        for y in range(0, dataset.height, block):
            for x in range(0, dataset.width, block):
                core = Window(x, y, min(block, dataset.width - x), min(block, dataset.height - y))
                yield from _of_block(dataset, core)


def _of_block(dataset: Any, core: Window) -> list[GradedBuilding]:
    """The buildings whose first pixel, row by row, lies in the block."""
    margin = HALO
    while True:
        window = _grown(core, margin, dataset)
        damage = dataset.read(1, window=window)
        labels = separate(((damage > 0) & (damage != NODATA)).astype(np.uint8))
        top, left = int(core.row_off - window.row_off), int(core.col_off - window.col_off)
        inside = np.unique(labels[top : top + int(core.height), left : left + int(core.width)])
        inside = inside[inside > 0]
        if len(inside) == 0:
            return []
        if not np.isin(inside, _at_border(labels, window, dataset)).any():
            break
        margin *= 2
    own = _starting(labels, inside, top, left, core)
    if len(own) == 0:
        return []
    labels = np.where(np.isin(labels, own), labels, 0)
    grading = grade(labels, dataset.read([3, 4, 5, 6], window=window).astype(np.float32) / 255)
    return [
        GradedBuilding(
            building.number,
            building.grade,
            building.confidence,
            building.area,
            building.shares,
            shapely.affinity.translate(building.polygon, window.col_off, window.row_off),
        )
        for building in buildings_of(grading)
    ]


def _grown(core: Window, margin: int, dataset: Any) -> Window:
    left, top = max(0, int(core.col_off) - margin), max(0, int(core.row_off) - margin)
    right = min(dataset.width, int(core.col_off + core.width) + margin)
    bottom = min(dataset.height, int(core.row_off + core.height) + margin)
    return Window(left, top, right - left, bottom - top)


def _at_border(labels: npt.NDArray[np.int32], window: Window, dataset: Any) -> npt.NDArray[np.int32]:
    """Numbers at the borders of the window beyond which the scene goes on."""
    borders = [
        (window.row_off > 0, labels[0]),
        (window.row_off + window.height < dataset.height, labels[-1]),
        (window.col_off > 0, labels[:, 0]),
        (window.col_off + window.width < dataset.width, labels[:, -1]),
    ]
    return np.unique(np.concatenate([border for goes_on, border in borders if goes_on] or [labels[:0, 0]]))


def _starting(
    labels: npt.NDArray[np.int32], numbers: npt.NDArray[np.int32], top: int, left: int, core: Window
) -> npt.NDArray[np.int32]:
    """Those whose first pixel lies in the core, which begins at (top, left) of the window."""
    found, first = np.unique(labels, return_index=True)
    rows, columns = np.divmod(first, labels.shape[1])
    starts = (rows >= top) & (rows < top + core.height) & (columns >= left) & (columns < left + core.width)
    return np.intersect1d(found[starts], numbers)

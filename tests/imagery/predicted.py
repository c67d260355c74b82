"""Predicted imagery made by the tests, as `imagery.predict.inference.predict_classes` writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from imagery.give.look import Look
from imagery.give.outputs import write_outputs
from imagery.give.summary import Summary
from imagery.read.raster import Tile
from imagery.read.vectors import read_polygons
from model.judge.page import photo
from tests.imagery.geotiff import ORIGIN, UTM, write_tif

SURE = 153  # 255 x 0.6
GREY = photo(np.full((8, 8, 3), 128, np.uint8), 8)
FACTS = {
    "before": ["pre.tif"], "after": ["post.tif"], "gsd_m": 0.5, "alignment": {"said": "off"}, "doubts": [],
    "bands": {"before": "1, 2, 3", "after": "1, 2, 3"}, "event": None, "domain": None,
    "model": {"said": "trained on real scenes of an event", "calibrated": False, "adjusted": False},
}  # fmt: skip


def write_classes(
    path: Path, damage: npt.NDArray[Any], crs: str = UTM, transform: Affine = ORIGIN, grades: Any = None
) -> Path:
    """classes.tif of a damage map [H, W]. grades: 255 x their probabilities, [4, H, W]; without them 0.6 for the grade
    of each pixel.
    """
    if grades is None:
        grades = np.stack([np.where(damage == grade, SURE, 34) for grade in range(1, 5)])
    bands = np.stack([damage, np.full(damage.shape, SURE), *grades]).astype(np.uint8)
    return write_tif(path, bands, crs, transform, tiled=True, blockxsize=64, blockysize=64)


def give_out(classes: Path, out: Path, **more: Any) -> Summary:
    """`write_outputs` of a pair of grey images; paths of footprints and areas are read."""
    with rasterio.open(classes) as dataset:
        look = Look(GREY, GREY, {"width": dataset.width, "height": dataset.height, **FACTS})
    more |= {name: read_polygons(value) for name, value in more.items() if isinstance(value, Path)}
    return write_outputs(classes, out, look, **more)


def black(window: Window) -> Tile:
    """Both images of a pair, without anything on them."""
    nothing = np.zeros((3, window.height, window.width), np.uint8)
    return Tile(nothing, nothing, np.ones(nothing.shape[1:], bool))


def draw(shapes: Sequence[tuple[Any, int]], size: tuple[int, int], transform: Affine = ORIGIN) -> npt.NDArray[np.uint8]:
    """Polygons with their grades on a damage map [H, W], by GDAL's own rasterization."""
    drawn: npt.NDArray[np.uint8] = rasterize(shapes, size, transform=transform, dtype="uint8")
    return drawn

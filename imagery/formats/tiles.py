"""Both images of a map as tiles of the web's maps (XYZ), for tools that show people a place before and after, such as
MapSwipe. Any web server or bucket that has the folder serves them.

Tiles are those of https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames, with a TileJSON beside each set,
https://github.com/mapbox/tilejson-spec/tree/master/3.0.0.
"""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from imagery.find.buildings import SIDE as BLOCK
from imagery.give.look import Read
from imagery.give.names import TILES
from imagery.give.writing import OutputError
from imagery.read.grid import HALF_EQUATOR, NORTHERNMOST, WEB_MERCATOR, WGS84, Grid, blocks, convert
from imagery.read.image import Image

SIDE = 256  # pixels of a tile
QUALITY = 85  # of JPEG
FINEST = 22  # the last zoom level that tools know
SETS = ("before", "after")
_LEAF = 2  # levels below a part that is read at once: 4 x 4 tiles
Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]  # colours [H, W, 3] and where there is data [H, W]


class Pyramid(NamedTuple):
    """The tiles that a grid reaches into. left, top: column and row of the first one of the finest level, zoom, in
    which they are `columns` and `rows`; the column may lie beyond the antimeridian. coarsest: the level in which the
    map is hardly larger than a tile.
    """

    zoom: int
    coarsest: int
    left: int
    top: int
    columns: int
    rows: int

    @property
    def grid(self) -> Grid:
        """The pixels of the finest level."""
        pixel = 2 * HALF_EQUATOR / (SIDE * 2**self.zoom)
        corner = Affine.translation(-HALF_EQUATOR, HALF_EQUATOR) @ Affine.scale(pixel, -pixel)
        transform = corner @ Affine.translation(SIDE * self.left, SIDE * self.top)
        return Grid(WEB_MERCATOR, transform, SIDE * self.columns, SIDE * self.rows)


def pyramid_of(grid: Grid) -> Pyramid:
    """The tiles of a grid: the finest level has pixels of the grid's size, to the nearest level.

    Raises OutputError where it reaches beyond what web maps show.
    """
    middle = grid.transform @ (grid.width / 2, grid.height / 2)
    (longitude,), (latitude,) = convert(np.array([middle[0]]), np.array([middle[1]]), grid.crs, WGS84)
    refuse_poles(grid, "tiles")
    near = HALF_EQUATOR * float(longitude) / 180
    x, y = convert(*grid.outline(), grid.crs, WEB_MERCATOR, near=near)
    ground = 2 * HALF_EQUATOR * math.cos(math.radians(float(latitude)))
    zoom = min(FINEST, max(0, round(math.log2(ground / (SIDE * grid.gsd)))))
    tile = 2 * HALF_EQUATOR / 2**zoom
    left, top = math.floor((x.min() + HALF_EQUATOR) / tile), math.floor((HALF_EQUATOR - y.max()) / tile)
    right, bottom = math.ceil((x.max() + HALF_EQUATOR) / tile), math.ceil((HALF_EQUATOR - y.min()) / tile)
    columns, rows = right - left, bottom - top
    return Pyramid(zoom, max(0, zoom - math.ceil(math.log2(max(columns, rows)))), left, top, columns, rows)


def refuse_poles(grid: Grid, name: str) -> None:
    """Raises OutputError where a grid reaches beyond what web maps show. name: the format that is for these."""
    _, latitudes = convert(*grid.outline(), grid.crs, WGS84)
    if not np.abs(latitudes).max() < NORTHERNMOST:
        raise OutputError(
            f"--formats {name}: found a map that reaches beyond {NORTHERNMOST} degrees, expected one that web maps can "
            f"show. Leave {name} out."
        )


def write_tiles(folder: Path, read: Read, grid: Grid) -> None:
    """Writes TILES/before/{z}/{x}/{y}.jpg and TILES/after/..., black where there is no data, and TILES/before.json and
    after.json; tiles without any data are not there. Memory is that of a few tiles, whatever the map's size.

    read: both images in a window of the grid. Raises OutputError as `pyramid_of`, RasterError.
    """
    pyramid, root = pyramid_of(grid), folder / TILES
    root.mkdir()
    with _flat(root, read, grid) as paths:
        for name, path in zip(SETS, paths, strict=True):
            with Image([path]) as image:
                image.place(pyramid.grid)
                _Writer(root / name, image, pyramid).write()
            (root / f"{name}.json").write_text(_described(name, pyramid, grid), encoding="utf-8")


@contextmanager
def _flat(folder: Path, read: Read, grid: Grid) -> Iterator[list[Path]]:
    """Both images as they lie on the map, as rasters of their own that are gone in the end."""
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 4, "crs": grid.crs, "transform": grid.transform,
        "width": grid.width, "height": grid.height, "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "lzw", "bigtiff": "if_safer",
    }  # fmt: skip
    paths = [folder / f"{name}.tif" for name in SETS]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(rasterio.open(path, "w", **profile)) for path in paths]
            for file in files:
                file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
            for window in blocks(grid.width, grid.height, BLOCK):
                tile = read(window)
                data = np.where(tile.valid, np.uint8(255), np.uint8(0))[None]
                for file, colours in zip(files, (tile.pre, tile.post), strict=True):
                    file.write(np.concatenate([colours, data]), window=window)
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


class _Writer:
    def __init__(self, folder: Path, image: Image, pyramid: Pyramid) -> None:
        self._folder, self._image, self._pyramid = folder, image, pyramid
        self._leaf = max(pyramid.coarsest, pyramid.zoom - _LEAF)

    def write(self) -> None:
        """All tiles, each out of those below it."""
        level, pyramid = self._pyramid.coarsest, self._pyramid
        for row in self._span(level, pyramid.top, pyramid.rows):
            for column in self._span(level, pyramid.left, pyramid.columns):
                self._tile(level, column, row)

    def _span(self, level: int, first: int, count: int) -> range:
        factor = 2 ** (self._pyramid.zoom - level)
        return range(first // factor, (first + count - 1) // factor + 1)

    def _tile(self, level: int, column: int, row: int) -> Part | None:
        """Writes a tile and those below it; None where none of them has data."""
        inside = column in self._span(level, self._pyramid.left, self._pyramid.columns)
        if not (inside and row in self._span(level, self._pyramid.top, self._pyramid.rows)):
            return None
        if level == self._leaf:
            return self._leaves(level, column, row)
        below = [self._tile(level + 1, 2 * column + right, 2 * row + down) for down, right in _QUARTERS]
        if all(part is None for part in below):
            return None
        whole = _nothing(2 * SIDE)
        for (down, right), part in zip(_QUARTERS, below, strict=True):
            if part is not None:
                here = np.s_[down * SIDE : (down + 1) * SIDE, right * SIDE : (right + 1) * SIDE]
                whole[0][here], whole[1][here] = part
        return self._save(level, column, row, _halved(whole))

    def _leaves(self, level: int, column: int, row: int) -> Part | None:
        """The part of the finest level that a tile covers, read at once and cut."""
        depth, pyramid = self._pyramid.zoom - level, self._pyramid
        side = SIDE * 2**depth
        left, top = SIDE * ((column << depth) - pyramid.left), SIDE * ((row << depth) - pyramid.top)
        first, last = max(0, left), min(SIDE * pyramid.columns, left + side)
        upper, lower = max(0, top), min(SIDE * pyramid.rows, top + side)
        colours, valid = self._image.read(Window(first, upper, last - first, lower - upper), None)
        if not valid.any():
            return None
        whole = _nothing(side)
        here = np.s_[upper - top : lower - top, first - left : last - left]
        whole[0][here], whole[1][here] = colours.transpose(1, 2, 0), valid
        for finer in range(depth, -1, -1):
            count = 2**finer
            for down in range(count):
                for right in range(count):
                    cut = np.s_[down * SIDE : (down + 1) * SIDE, right * SIDE : (right + 1) * SIDE]
                    part = whole[0][cut], whole[1][cut]
                    if part[1].any():
                        self._save(level + finer, (column << finer) + right, (row << finer) + down, part)
            if finer:
                whole = _halved(whole)
        return whole

    def _save(self, level: int, column: int, row: int, part: Part) -> Part:
        path = self._folder / str(level) / str(column % 2**level) / f"{row}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        _, content = cv2.imencode(".jpg", cv2.cvtColor(part[0], cv2.COLOR_RGB2BGR), quality)
        path.write_bytes(content.tobytes())
        return part


_QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # down, right


def _nothing(side: int) -> Part:
    return np.zeros((side, side, 3), np.uint8), np.zeros((side, side), bool)


def _halved(part: Part) -> Part:
    """Two by two pixels become the mean of those with data."""
    colours, valid = part
    height, width = valid.shape
    seen = valid.reshape(height // 2, 2, width // 2, 2).sum((1, 3), dtype=np.uint16)
    sums = (colours * valid[..., None]).reshape(height // 2, 2, width // 2, 2, 3).sum((1, 3), dtype=np.uint16)
    return ((sums + seen[..., None] // 2) // np.maximum(seen, 1)[..., None]).astype(np.uint8), seen > 0


def _described(name: str, pyramid: Pyramid, grid: Grid) -> str:
    """The TileJSON of a set, whose address of tiles is relative to itself."""
    west, south, east, north = (float(value) for value in grid.extent.split())
    bounds = [west, south, east, north] if east <= 180 else [-180.0, south, 180.0, north]
    content = {
        "tilejson": "3.0.0", "name": f"image {name}", "tiles": [f"./{name}/{{z}}/{{x}}/{{y}}.jpg"],
        "minzoom": pyramid.coarsest, "maxzoom": pyramid.zoom, "bounds": bounds,
    }  # fmt: skip
    return json.dumps(content, indent=2) + "\n"

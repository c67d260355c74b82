"""A pair of rasters on one grid, read window by window: post is warped to the grid of pre, over what both show."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform_bounds
from rasterio.windows import Window

from scene.grid import Grid
from scene.mosaic import mosaic
from xbd.errors import InputError

TYPES = ("uint8", "uint16", "int16", "float32")
LOOK = 1024  # pixels of the longer side of what the value range is taken from


class RasterError(InputError):
    """A raster that cannot be used; names file, finding, expectation and remedy."""


class Tile(NamedTuple):
    """pre, post: uint8 RGB [3, H, W], 0 where not valid; valid: bool [H, W], what both images show."""

    pre: npt.NDArray[np.uint8]
    post: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sources:
    """What a pair is read from; can be sent to another process.

    pre, post: one raster each, or the tiles of a mosaic. value_range: what becomes 0 and 255 in images of more than 8
    bits; None takes `percentiles` of each band over the whole scene. resample_to: metres of a pixel; None keeps pre's.
    """

    pre: tuple[Path, ...]
    post: tuple[Path, ...]
    value_range: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (2.0, 98.0)
    resample_to: float | None = None


class ScenePair:
    """An open pair, a context manager; `grid` is that of pre, cut to where both images are.

    Bands are red, green and blue as the file names them, else the first three. Raises RasterError.
    """

    def __init__(self, sources: Sources) -> None:
        self._stack = ExitStack()
        try:
            pre, post = (self._stack.enter_context(_open(paths)) for paths in (sources.pre, sources.post))
            grid = _grid_of(pre)
            if sources.resample_to is not None:
                grid = grid.resampled(sources.resample_to)
            self.grid = grid.cut(_common(grid, post, sources))
            self._images = [
                _Image(paths[0], self._stack.enter_context(_on_grid(dataset, self.grid)), sources)
                for paths, dataset in ((sources.pre, pre), (sources.post, post))
            ]
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, window: Window) -> Tile:
        """Both images in a window of the grid, which may reach beyond it."""
        height, width = int(window.height), int(window.width)
        inside = window.intersection(Window(0, 0, self.grid.width, self.grid.height))
        parts = [image.read(inside) for image in self._images]
        valid = np.zeros((height, width), bool)
        rows, columns = int(inside.height), int(inside.width)
        valid[:rows, :columns] = parts[0][1] & parts[1][1]
        colours = []
        for values, _ in parts:
            full = np.zeros((3, height, width), np.uint8)
            full[:, :rows, :columns] = values
            colours.append(full * valid)
        return Tile(colours[0], colours[1], valid)


class _Image:
    """One of the two, on the grid of both."""

    def __init__(self, name: Path, dataset: Any, sources: Sources) -> None:
        self._name, self._dataset, self._bands = name, dataset, _colours(dataset)
        self._low, self._high = self._range(sources)

    def read(self, window: Window) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Colours uint8 [3, H, W], and which pixels the image has, [H, W]."""
        values, valid = self._read(window=window)
        if self._high is not None:
            valid &= np.isfinite(values).all(0)
            scaled = (values.astype(np.float32) - self._low) * (255 / (self._high - self._low))
            values = np.nan_to_num(scaled).round().clip(0, 255).astype(np.uint8)
        return values, valid

    def _read(self, out_shape: Sequence[int] | None = None, **where: Any) -> tuple[npt.NDArray[Any], Any]:
        """Colours and mask of a window, or of all in so many rows and columns."""
        shapes = ({}, {}) if out_shape is None else ({"out_shape": (3, *out_shape)}, {"out_shape": tuple(out_shape)})
        try:
            values = self._dataset.read(self._bands, **where, **shapes[0])
            return values, self._dataset.dataset_mask(**where, **shapes[1]) > 0
        except RasterioError as error:
            raise RasterError(f"{self._name}: is damaged or truncated ({error}). Fetch the file again.") from error

    def _range(self, sources: Sources) -> tuple[Any, Any]:
        """Values of 0 and 255, float32 [3, 1, 1]; None for 8 bits, which stay as they are."""
        if self._dataset.dtypes[0] == "uint8":
            return None, None
        if sources.value_range is not None:
            low, high = (np.full((3, 1, 1), value, np.float32) for value in sources.value_range)
            return low, high
        scale = min(1.0, LOOK / max(self._dataset.shape))
        shape = [max(1, round(side * scale)) for side in self._dataset.shape]
        # An overview, where the file has one: what is read is bounded whatever the size of the scene.
        values, valid = self._read(out_shape=shape)
        values = values.astype(np.float32)
        valid &= np.isfinite(values).all(0)
        if not valid.any():
            return np.zeros((3, 1, 1), np.float32), np.ones((3, 1, 1), np.float32)
        low, high = np.percentile(values[:, valid], sources.percentiles, axis=1).astype(np.float32)
        return low[:, None, None], np.where(high > low, high, low + 1)[:, None, None]


def _open(paths: Sequence[Path]) -> Any:
    """A raster that can be placed on the ground; several are one."""
    name = paths[0]
    try:
        for name in paths:
            rasterio.open(name).close()
        dataset = rasterio.open(name if len(paths) == 1 else mosaic(paths))
    except (RasterioError, CRSError) as error:
        raise RasterError(f"{name}: is no raster that can be read ({error}). Give a GeoTIFF.") from error
    if dataset.crs is None or dataset.transform == Affine.identity():
        missing = "coordinate reference system" if dataset.crs is None else "place on the ground (geotransform)"
        raise RasterError(f"{name}: has no {missing}. Give the georeferenced image, or add it with gdal_edit.")
    if dataset.count < 3:
        raise RasterError(f"{name}: has {dataset.count} bands, expected red, green and blue. Give a colour image.")
    if dataset.dtypes[0] not in TYPES:
        raise RasterError(f"{name}: has values of {dataset.dtypes[0]}, expected one of {', '.join(TYPES)}. Convert it.")
    return dataset


def _colours(dataset: Any) -> list[int]:
    named = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    found = list(dataset.colorinterp)
    return [found.index(colour) + 1 for colour in named] if all(colour in found for colour in named) else [1, 2, 3]


def _grid_of(dataset: Any) -> Grid:
    """The raster's own grid, made north-up where it is not."""
    transform = dataset.transform
    if transform.b == transform.d == 0 and transform.a > 0:
        if transform.e > 0:
            transform = transform @ Affine(1, 0, 0, 0, -1, dataset.height)
        return Grid(dataset.crs, transform, dataset.width, dataset.height)
    size = dataset.width, dataset.height
    turned, width, height = calculate_default_transform(dataset.crs, dataset.crs, *size, *dataset.bounds)
    return Grid(dataset.crs, turned, width, height)


def _common(grid: Grid, post: Any, sources: Sources) -> Window:
    """The window of the grid, in whole pixels, that post covers."""
    left, bottom, right, top = transform_bounds(post.crs, grid.crs, *_bounds(post), densify_pts=21)
    corners = [~grid.transform @ corner for corner in ((left, top), (right, bottom))]
    # Rounding of coordinates must not cost a row of pixels.
    first = [max(0, int(np.floor(value + 1e-6))) for value in corners[0]]
    last = [
        min(size, int(np.ceil(value - 1e-6))) for value, size in zip(corners[1], (grid.width, grid.height), strict=True)
    ]
    if last[0] <= first[0] or last[1] <= first[1]:
        other = Grid(post.crs, _grid_of(post).transform, post.width, post.height).extent
        raise RasterError(
            f"{sources.post[0]}: shows nothing of what {sources.pre[0]} shows: it lies at {other} degrees (west, "
            f"south, east, north), the other at {grid.extent}. Give two images of the same place."
        )
    return Window(first[0], first[1], last[0] - first[0], last[1] - first[1])


def _bounds(dataset: Any) -> tuple[float, float, float, float]:
    corners = [dataset.transform @ (x, y) for x in (0, dataset.width) for y in (0, dataset.height)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _on_grid(dataset: Any, grid: Grid) -> Any:
    """The raster warped to the grid; pixels that already lie on it keep their values."""
    has_mask = dataset.nodata is not None or ColorInterp.alpha in dataset.colorinterp
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.bilinear,
        add_alpha=not has_mask,
    )

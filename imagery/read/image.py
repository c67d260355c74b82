"""One image of a pair as a raster: opened and checked, placed on a grid, its values brought to 8 bits."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from imagery.errors import RasterError
from imagery.read.grid import HALF_EQUATOR, WEB_MERCATOR, Grid, meet, turns
from imagery.read.mosaic import mosaic

TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
LOOK = 1024  # pixels of the longer side of what percentiles are taken from
Range = tuple[tuple[float, ...], tuple[float, ...]]  # what becomes 0, and what becomes 255, of each colour


class Image:
    """An image that lies on the ground, of one file or of tiles; a context manager. grid: its own pixels.

    Bands are red, green and blue as the file names them, else the first three that are not alpha.
    Raises RasterError where the files cannot be used; so do its methods where they break off.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it is an error here, below
            with ExitStack() as seen:  # GDAL opens those tiles of a mosaic that it needs, and not all at once
                tiles = [(path, _open(path, seen)) for path in paths]
                for path, tile in tiles:
                    _check(tile, path)
                self._source = paths[0] if len(paths) == 1 else mosaic(tiles)
                self.files = sorted({file for _, tile in tiles for file in tile.files if os.path.isfile(file)})
            self._file = _open(self._source, stack)
            self._bands = _colours(self._file)
            self.grid = Grid(self._file.crs, self._file.transform, self._file.width, self._file.height)
            try:
                self.gsd = self.grid.gsd
            except ProjError as error:
                raise RasterError(
                    f"{self.name}: its coordinate reference system has no place on the earth ({_plain(error)}). "
                    "Give the image in a geographic or projected one."
                ) from error
            self._stack = stack.pop_all()
        self._reader, self._column, self._row = self._file, 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def upright(self) -> Grid:
        """The image's own pixels with north up; where they lie askew, pixels of about their size."""
        grid, transform = self.grid, self.grid.transform
        if transform.b == transform.d == 0 and transform.a > 0:
            flip = Affine(1, 0, 0, 0, -1, grid.height)
            return grid if transform.e < 0 else Grid(grid.crs, transform @ flip, grid.width, grid.height)
        with WarpedVRT(self._file) as turned:
            return Grid(grid.crs, turned.transform, turned.width, turned.height)

    def place(self, grid: Grid) -> None:
        """From now on, windows are windows of `grid`: pixels that lie on it are read as they are, others are warped."""
        placed = ~self.grid.transform @ grid.transform
        corner = round(placed.c), round(placed.f)
        exact = Affine.translation(*corner)
        reach = max(grid.width, grid.height)
        if grid.crs == self.grid.crs and placed.almost_equals(exact, 0.01 / reach) and self._holds(corner, grid):
            self._reader, (self._column, self._row) = self._file, corner
            return
        file = self._coarser(grid)
        crs, moved = _without_break(self.grid, grid)
        # Bands of one pixel go together: a pixel without data has none in any band.
        settings = {"tolerance": 0.01, "UNIFIED_SRC_NODATA": "YES"}
        self._column, self._row = 0, 0
        self._reader = self._stack.enter_context(
            WarpedVRT(
                file,
                src_crs=crs,
                src_transform=Affine.translation(moved, 0) @ file.transform,
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                resampling=Resampling.cubic,  # the usual one for optical imagery; widened where pixels get coarser
                add_alpha=ColorInterp.alpha not in file.colorinterp,
                **settings,
            )
        )

    @property
    def has_8_bits(self) -> bool:
        """Whether its values are what the model knows."""
        return all(self._file.dtypes[band - 1] == "uint8" for band in self._bands)

    def look_for_range(self, grid: Grid, percentiles: tuple[float, float]) -> Range:
        """Percentiles of each colour where the image lies in `grid`.

        Taken from at most 1024 x 1024 pixels, of an overview where the file has one: memory is bounded.
        """
        window = meet(self.grid, grid) or Window(0, 0, self.grid.width, self.grid.height)
        scale = min(1.0, LOOK / max(window.height, window.width))
        shape = [max(1, round(side * scale)) for side in (window.height, window.width)]
        with self._errors_named():
            values = self._file.read(self._bands, window=window, out_shape=(3, *shape)).astype(np.float32)
            valid = _mask(self._file, window=window, out_shape=tuple(shape))
        valid &= np.isfinite(values).all(0)
        if not valid.any():
            return (0.0,) * 3, (1.0,) * 3
        low, high = np.percentile(values[:, valid], percentiles, axis=1).tolist()
        return tuple(low), tuple(high)

    def read(self, window: Window, limits: Range | None) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Colours of a window of the grid it was placed on, uint8 [3, H, W], and where it has data, bool [H, W]."""
        window = Window(self._column + window.col_off, self._row + window.row_off, window.width, window.height)
        with self._errors_named():
            values = self._reader.read(self._bands, window=window)
            valid = _mask(self._reader, window=window)
        if limits is not None:
            valid &= np.isfinite(values).all(0)
            low, high = (np.array(limit, np.float32)[:, None, None] for limit in limits)
            values = (values.astype(np.float32) - low) * (255 / np.where(high > low, high - low, 1))
            values = np.nan_to_num(values).round().clip(0, 255)
        return (values * valid).astype(np.uint8), valid

    def _holds(self, corner: tuple[int, int], grid: Grid) -> bool:
        column, row = corner
        return min(corner) >= 0 and column + grid.width <= self.grid.width and row + grid.height <= self.grid.height

    def _coarser(self, grid: Grid) -> Any:
        """The file, or the overview of it that is still at least as fine as the grid."""
        fitting = [factor for factor in self._file.overviews(self._bands[0]) if factor * self.gsd <= grid.gsd * 1.001]
        return _open(self._source, self._stack, overview_level=len(fitting) - 1) if fitting else self._file

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except RasterioError as error:
            raise RasterError(
                f"{self.name}: breaks off or is damaged ({_plain(error.__cause__ or error)}). Fetch the file again."
            ) from error


def _open(source: Path | str, stack: ExitStack, **options: Any) -> Any:
    try:
        return stack.enter_context(rasterio.open(source, **options))
    except RasterioError as error:
        raise RasterError(f"{source}: is no raster that can be read ({_plain(error)}). Give a GeoTIFF.") from error


def _check(file: Any, name: Path) -> None:
    if file.crs is None:
        raise RasterError(
            f"{name}: has no coordinate reference system. Give the georeferenced image, or set it with rio edit-info."
        )
    if file.transform == Affine.identity() or file.transform.is_degenerate:
        raise RasterError(
            f"{name}: has no place on the ground (no geotransform). Give the georeferenced image, or set it with rio "
            "edit-info."
        )
    colours = _colours(file)
    if len(colours) < 3:
        raise RasterError(f"{name}: has {file.count} bands, expected red, green and blue. Give a colour image.")
    odd = [kind for kind in (file.dtypes[band - 1] for band in colours) if kind not in TYPES]
    if odd:
        raise RasterError(f"{name}: has values of {odd[0]}, expected one of {', '.join(TYPES)}. Convert it.")


def _colours(file: Any) -> list[int]:
    """Numbers of the bands red, green and blue; fewer than three where the file has fewer."""
    kinds = list(file.colorinterp)
    if all(colour in kinds for colour in COLOURS):
        return [kinds.index(colour) + 1 for colour in COLOURS]
    return [number for number, kind in enumerate(kinds, start=1) if kind != ColorInterp.alpha][:3]


def _mask(file: Any, **part: Any) -> npt.NDArray[np.bool_]:
    """Where there is data; of nodata values and mask bands, where any band has some."""
    if ColorInterp.alpha in file.colorinterp:  # which GDAL makes a mask of only for unsigned values
        return np.asarray(file.read(file.colorinterp.index(ColorInterp.alpha) + 1, **part) > 0)
    return np.asarray(file.dataset_mask(**part) > 0)


def _without_break(image: Grid, grid: Grid) -> tuple[Any, float]:
    """The image's CRS, and what to add to its x, so that they go on where the image crosses the antimeridian: other
    systems know no 180.001 degrees, and of one system GDAL takes x as they are.
    """
    same = image.crs == grid.crs
    moved = 0.0
    if same or (image.crs.is_geographic and grid.crs.is_geographic):
        moved = float(turns(image.transform.c, grid.transform.c, image.crs))
    x = [(image.transform @ corner)[0] + moved for corner in ((0, 0), (image.width, image.height))]
    side = 1 if max(x) > -min(x) else -1
    if not same and image.crs.is_geographic and max(map(abs, x)) > 180:
        return CRS.from_string(f"{image.crs.to_proj4()} +lon_wrap={180 * side}"), moved
    if not same and image.crs == WEB_MERCATOR and max(map(abs, x)) > HALF_EQUATOR:
        return CRS.from_string(
            f"+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0={180 * side} +x_0={HALF_EQUATOR * side} +y_0=0 +k=1 "
            "+units=m +nadgrids=@null +wktext +no_defs"
        ), moved
    return image.crs, moved


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")

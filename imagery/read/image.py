"""One image of a pair as a raster: opened and checked, placed on a grid, its values brought to 8 bits."""

import math
import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from imagery.errors import RasterError
from imagery.read.bands import Bands, Numbers, choose_bands
from imagery.read.doubts import Seen, find_collar, smaller
from imagery.read.file import alpha_is_mask, check_raster, errors_named, mask_of, open_raster, plain
from imagery.read.grid import HALF_EQUATOR, WEB_MERCATOR, Grid, meet, turns
from imagery.read.mosaic import mosaic
from imagery.read.shifting import AFTER, BEFORE, TYPES, shifted
from imagery.settings import GSDS

SMALLEST, LARGEST = GSDS[0] / 10, GSDS[1] * 10  # metres of a pixel, beyond which a geotransform is taken for damaged
Range = tuple[tuple[float, ...], tuple[float, ...]]  # what becomes 0, and what becomes 255, of each colour


class KnownImage(NamedTuple):
    """What was found out of an image's files. name: in errors; bands: to take; files: that there are, also beside those
    that were given; source: what GDAL is to open, the path of the only one, or a VRT of the tiles.
    """

    name: str
    bands: Bands
    files: tuple[str, ...]
    source: str


class Image:
    """An image that lies on the ground, of one file or of tiles; a context manager.

    bands: numbers of red, green and blue; else as `imagery.read.bands` finds them. nodata: the value that says of a
    pixel that there is no data, instead of what the files say. known: that of another Image of the same, for what need
    not be looked for again.
    grid: its own pixels. doubts: what of it was guessed and may be wrong, a sentence each.
    Raises RasterError where the files cannot be used; so do its methods where they break off.
    """

    def __init__(
        self, paths: Sequence[Path], bands: Numbers | None = None, nodata: float | None = None,
        known: KnownImage | None = None,
    ) -> None:  # fmt: skip
        self.doubts: list[str] = []
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it is an error here, below
            self.known = known or self._find(paths, bands, nodata)
            self.name, self.bands = self.known.name, self.known.bands
            self._file = open_raster(self.known.source, stack)
            self._bands = list(self.bands.numbers)
            self.grid = Grid(self._file.crs, self._file.transform, self._file.width, self._file.height)
            self.gsd = self._gsd()
            self._stack = stack.pop_all()
        self._reader, self._column, self._row = self._file, 0, 0
        self._shift: tuple[float, float] | None = None
        self._collar: float | None = None

    def _find(self, paths: Sequence[Path], given: Numbers | None, nodata: float | None) -> KnownImage:
        with ExitStack() as stack:  # GDAL opens those tiles of a mosaic that it needs, and not all at once
            tiles = [(path, open_raster(path, stack)) for path in paths]
            for path, tile in tiles:
                with errors_named(path):
                    check_raster(tile, path, given, nodata)
            bands = choose_bands(tiles[0][1], given)
            if bands.doubt:
                self.doubts.append(f"bands {bands}, but {bands.doubt}. --bands chooses others")
            elif not bands.is_told and tiles[0][1].count > len(bands.numbers):
                self.doubts.append(f"bands {bands}")
            masked = nodata is None
            for path, tile in tiles if masked else ():
                with errors_named(path):
                    masked = masked and alpha_is_mask(tile)
            if nodata is None and not masked:
                self.doubts.append(
                    "a band is tagged alpha but has many values, as near infrared has: it was taken for data, and not "
                    "for a mask. --nodata names the value without data, if there is one"
                )
            files = sorted({file for _, tile in tiles for file in tile.files if os.path.isfile(file)})
            alone = len(paths) == 1 and nodata is None and masked
            source = str(paths[0]) if alone else mosaic(tiles, nodata, masked=masked)
            name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
            return KnownImage(name, bands, tuple(files), source)

    def _gsd(self) -> float:
        """Metres of a pixel of its own."""
        try:
            gsd = self.grid.gsd
        except ProjError as error:
            raise RasterError(
                f"{self.name}: its coordinate reference system has no place on the earth ({plain(error)}). Give the "
                "image in a geographic or projected one."
            ) from error
        if not SMALLEST <= gsd <= LARGEST:  # nor where it is no number
            found = f"makes pixels of {gsd:g} m" if math.isfinite(gsd) else "lies beyond the earth"
            raise RasterError(
                f"{self.name}: its geotransform {found}, expected pixels of {SMALLEST:g} to {LARGEST:g} m. Give the "
                "georeferenced image, or correct it with rio edit-info."
            )
        return gsd

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
        with errors_named(self.name), WarpedVRT(self._file) as turned:
            return Grid(grid.crs, turned.transform, turned.width, turned.height)

    def place(self, grid: Grid) -> None:
        """From now on, windows are windows of `grid`: pixels that lie on it are read as they are, others are warped, or
        only moved where the grids differ by nothing else.
        """
        placed = ~self.grid.transform @ grid.transform
        corner = round(placed.c), round(placed.f)
        small = 0.01 / max(grid.width, grid.height)
        is_moved = grid.crs == self.grid.crs and placed.almost_equals(Affine.translation(placed.c, placed.f), small)
        self._shift = None
        if is_moved and placed.almost_equals(Affine.translation(*corner), small) and self._holds(corner, grid):
            self._reader, (self._column, self._row) = self._file, corner
            return
        file = self._coarser(grid)
        crs, moved = _without_break(self.grid, grid)
        if is_moved and moved == 0 and self._kind in TYPES:
            self._shift = placed.c, placed.f
        # Bands of one pixel go together: a pixel without data has none in any band.
        settings = {"tolerance": 0.01, "UNIFIED_SRC_NODATA": "YES"}
        self._column, self._row = 0, 0
        with errors_named(self.name):
            warped = WarpedVRT(
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
        self._reader = self._stack.enter_context(warped)

    @property
    def _kind(self) -> str:
        """Of the values of its colours."""
        return str(self._file.dtypes[self._bands[0] - 1])

    @property
    def has_8_bits(self) -> bool:
        """Whether its values are what the model knows."""
        return self._kind == "uint8"

    def look(self, grid: Grid, percentiles: tuple[float, float]) -> Range | None:
        """Percentiles of each colour where the image lies in `grid`; None for 8 bits. A collar is no part of them, and
        becomes one of `doubts`.

        Taken from at most 1024 x 1024 pixels, of an overview where the file has one: memory is bounded.
        """
        tagged = self._file.nodata is not None or ColorInterp.alpha in self._file.colorinterp
        if tagged and self.has_8_bits:
            return None
        window = meet(self.grid, grid) or Window(0, 0, self.grid.width, self.grid.height)
        shape = smaller(window.height, window.width)
        with errors_named(self.name):
            values = self._file.read(self._bands, window=window, out_shape=(3, *shape))
            valid = mask_of(self._file, window=window, out_shape=shape)
        valid &= np.isfinite(values).all(0)
        collar = None if tagged else find_collar(values, valid)
        if collar is not None:
            left_out = "" if self.has_8_bits else " They were left out of the percentiles."
            self.doubts.append(
                f"{100 * collar.share:.0f} % of the pixels are {collar.value:g}, from the border on, and no nodata "
                f"value is set.{left_out} Give --nodata {collar.value:g} if they show nothing"
            )
            valid &= ~collar.where
            self._collar = collar.value
        if self.has_8_bits:
            return None
        if not valid.any():
            return (0.0,) * 3, (1.0,) * 3
        low, high = np.percentile(values[:, valid].astype(np.float32), percentiles, axis=1).tolist()
        return tuple(low), tuple(high)

    def seen(self, grid: Grid) -> Seen:
        """Where the image has data, and no collar, of the grid it was placed on, in few pixels: those of `smaller`."""
        part = {"window": Window(self._column, self._row, grid.width, grid.height)}
        shape = smaller(grid.height, grid.width)
        with errors_named(self.name):
            valid = mask_of(self._reader, **part, out_shape=shape)
            if self._collar is not None:
                values = self._reader.read(self._bands, **part, out_shape=(3, *shape))
                valid &= (values != self._collar).any(0)
        return valid

    def read(self, window: Window, limits: Range | None) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Colours of a window of the grid it was placed on, uint8 [3, H, W], and where it has data, bool [H, W]."""
        with errors_named(self.name):
            if self._shift is not None:
                values, valid = self._moved(window, self._shift)
            else:
                left, top = self._column + window.col_off, self._row + window.row_off
                window = Window(left, top, window.width, window.height)
                values, valid = self._reader.read(self._bands, window=window), mask_of(self._reader, window=window)
        if limits is not None:
            valid &= np.isfinite(values).all(0)
            low, high = (np.array(limit, np.float32)[:, None, None] for limit in limits)
            values = (values.astype(np.float32) - low) * (255 / np.where(high > low, high - low, 1))
            values = np.nan_to_num(values).round().clip(0, 255)
        return (values * valid).astype(np.uint8), valid

    def read_end(self) -> None:
        """Reads the last pixels; raises RasterError where the files break off before these."""
        with errors_named(self.name):
            self._file.read(self._bands, window=Window(self.grid.width - 1, self.grid.height - 1, 1, 1))

    def _moved(self, window: Window, by: tuple[float, float]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values and where there are some, of a window that lies `by` columns and rows beside the file's pixels."""
        left, top = (
            math.floor(part) + start - BEFORE for part, start in zip(by, (window.col_off, window.row_off), strict=True)
        )
        width, height = (size + BEFORE + AFTER for size in (window.width, window.height))
        values = np.zeros((len(self._bands), height, width), self._kind)
        valid = np.zeros((height, width), bool)
        columns, rows = (
            (max(0, start), min(start + size, whole))
            for start, size, whole in ((left, width, self.grid.width), (top, height, self.grid.height))
        )
        if columns[0] < columns[1] and rows[0] < rows[1]:
            there = Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
            inside = np.s_[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
            values[:, *inside] = self._file.read(self._bands, window=there)
            valid[inside] = mask_of(self._file, window=there)
        return shifted(values, valid, (by[0] % 1, by[1] % 1))

    def _holds(self, corner: tuple[int, int], grid: Grid) -> bool:
        column, row = corner
        return min(corner) >= 0 and column + grid.width <= self.grid.width and row + grid.height <= self.grid.height

    def _coarser(self, grid: Grid) -> Any:
        """The file, or the overview of it that is still at least as fine as the grid."""
        fitting = [factor for factor in self._file.overviews(self._bands[0]) if factor * self.gsd <= grid.gsd * 1.001]
        return open_raster(self.known.source, self._stack, overview_level=len(fitting) - 1) if fitting else self._file


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

"""Where pixels lie: the grid of a raster, its resolution on the ground, and where two grids meet."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

WGS84 = CRS.from_epsg(4326)
WEB_MERCATOR = CRS.from_epsg(3857)
HALF_EQUATOR = 20037508.342789244  # metres; where Web Mercator ends in the west and in the east
NORTHERNMOST = 85.05  # degrees, where it ends in the north and in the south
_ELLIPSOID = Geod(ellps="WGS84")
Box = tuple[float, float, float, float]
_SLACK = 1e-3  # of a pixel: what rounding of coordinates may differ by without costing or adding a row of pixels
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Pixels on the ground. transform: column and row of a pixel's corner to x and y, in this order in every CRS."""

    crs: CRS
    transform: Affine
    width: int
    height: int

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height in metres of the pixel at the centre, on the ellipsoid; pyproj's errors where it has no
        place on the earth.
        """
        points = [(self.width / 2 + dx, self.height / 2 + dy) for dx, dy in ((0, 0), (1, 0), (0, 1))]
        x, y = zip(*(self.transform @ point for point in points), strict=True)
        (east, *others), (north, *to) = Transformer.from_crs(self.crs, WGS84, always_xy=True).transform(
            x, y, errcheck=True
        )
        across, along = (_ELLIPSOID.inv(east, north, *point)[2] for point in zip(others, to, strict=True))
        return across, along

    @property
    def gsd(self) -> float:
        """Ground sampling distance in metres: the geometric mean of a pixel's sides."""
        return math.sqrt(math.prod(self.sides))

    @property
    def extent(self) -> str:
        """West, south, east and north in degrees, as an error tells them; across the antimeridian east is above 180."""
        middle = self.transform @ (self.width / 2, self.height / 2)
        near, _ = convert(np.array([middle[0]]), np.array([middle[1]]), self.crs, WGS84)
        x, y = convert(*self.outline(), self.crs, WGS84, near=float(near[0]))
        return " ".join(f"{value:.5f}" for value in (np.nanmin(x), np.nanmin(y), np.nanmax(x), np.nanmax(y)))

    def cut(self, window: Window) -> "Grid":
        """The grid of this window of whole pixels."""
        transform = self.transform @ Affine.translation(window.col_off, window.row_off)
        return replace(self, transform=transform, width=int(window.width), height=int(window.height))

    def resampled(self, gsd: float) -> "Grid":
        """The grid of the same area whose pixels are squares of `gsd` metres, to the nearest whole number of them."""
        across, along = (side / gsd for side in self.sides)
        return replace(
            self,
            transform=self.transform @ Affine.scale(1 / across, 1 / along),
            width=max(1, round(self.width * across)),
            height=max(1, round(self.height * along)),
        )

    def outline(
        self, left: float = 0, top: float = 0, right: float | None = None, bottom: float | None = None
    ) -> tuple[Floats, Floats]:
        """Points along the border of the grid, or of a part of it in pixels: x and y, in its CRS."""
        steps = np.linspace(0, 1, 65)
        columns = left + (self.width if right is None else right - left) * steps
        rows = top + (self.height if bottom is None else bottom - top) * steps
        ends = np.ones_like(steps)
        column = np.concatenate([columns, columns, columns[0] * ends, columns[-1] * ends])
        row = np.concatenate([rows[0] * ends, rows[-1] * ends, rows, rows])
        return self.places(column, row)

    def places(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Where these places, in pixels, lie: x and y, in its CRS."""
        return _apply(self.transform, columns, rows)


def blocks(width: int, height: int, side: int) -> Iterator[Window]:
    """Windows of `side` pixels that cover a raster, row by row."""
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield Window(x, y, min(side, width - x), min(side, height - y))


def meet(grid: Grid, other: Grid) -> Window | None:
    """The smallest window of whole pixels of `grid` that holds what `other` covers of it; None where they do not meet.

    Near its corners the window may have pixels that `other` does not cover: the two need not lie parallel.
    """
    box = _box(grid.outline(), grid, other, margin=2)
    if box is None:
        return None
    box = _box(other.outline(*box), other, grid, margin=0)
    if box is None:
        return None
    left, top = (math.floor(value + _SLACK) for value in box[:2])
    right, bottom = (math.ceil(value - _SLACK) for value in box[2:])
    return Window(left, top, right - left, bottom - top) if right > left and bottom > top else None


def _apply(transform: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def _box(
    points: tuple[Floats, Floats], start: Grid, end: Grid, margin: float
) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom in pixels of `end` that the points of `start` span there, None if that is nothing."""
    centre = end.transform @ (end.width / 2, end.height / 2)
    x, y = convert(*points, start.crs, end.crs, near=centre[0])
    columns, rows = _apply(~end.transform, x, y)
    if np.isnan(columns).all():  # too far away for the other's projection
        return (0, 0, end.width, end.height) if margin else None
    left, right = max(0, np.nanmin(columns) - margin), min(end.width, np.nanmax(columns) + margin)
    top, bottom = max(0, np.nanmin(rows) - margin), min(end.height, np.nanmax(rows) + margin)
    return (left, top, right, bottom) if right > left and bottom > top else None


def convert(x: Floats, y: Floats, start: CRS, end: CRS, near: float | None = None) -> tuple[Floats, Floats]:
    """Coordinates in another CRS, NaN where it has none; near: of the x that mean one place, take the nearest to it."""
    found = Transformer.from_crs(start, end, always_xy=True).transform(x, y)
    u, v = (np.where(np.isfinite(part), part, np.nan) for part in found)
    return (u if near is None else u + turns(u, near, end)), v


def turns(x: Any, near: float, crs: CRS) -> Any:
    """What to add to x for the same place nearest to `near`: whole turns around the earth."""
    around = 360.0 if crs.is_geographic else 2 * HALF_EQUATOR if crs == WEB_MERCATOR else None
    return 0.0 * x if around is None else around * np.round((near - x) / around)

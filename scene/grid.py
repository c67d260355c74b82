"""Where pixels lie: the grid of a raster, and its resolution on the ground."""

import math
from dataclasses import dataclass, replace

from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

WGS84 = "EPSG:4326"
_ELLIPSOID = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Grid:
    """North-up pixels. transform: column and row of a pixel's corner to x and y, in this order in every CRS."""

    crs: CRS
    transform: Affine
    width: int
    height: int

    @property
    def gsd(self) -> float:
        """Ground sampling distance in metres, at the centre: the geometric mean of a pixel's sides on the ellipsoid."""
        to_degrees = Transformer.from_crs(self.crs, WGS84, always_xy=True)
        corners = [(self.width / 2 + dx, self.height / 2 + dy) for dx, dy in ((0, 0), (1, 0), (0, 1))]
        points = [to_degrees.transform(*(self.transform @ corner)) for corner in corners]
        sides = [_ELLIPSOID.inv(*points[0], *point)[2] for point in points[1:]]
        return math.sqrt(sides[0] * sides[1])

    @property
    def extent(self) -> str:
        """Its corners in degrees, west, south, east, north, as an error tells them."""
        to_degrees = Transformer.from_crs(self.crs, WGS84, always_xy=True)
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        west, south, east, north = to_degrees.transform_bounds(left, bottom, right, top)
        return f"{west:.5f} {south:.5f} {east:.5f} {north:.5f}"

    def cut(self, window: Window) -> "Grid":
        """The grid of this window of whole pixels."""
        transform = self.transform @ Affine.translation(window.col_off, window.row_off)
        return replace(self, transform=transform, width=int(window.width), height=int(window.height))

    def resampled(self, gsd: float) -> "Grid":
        """The grid of the same area whose pixels are `gsd` metres large, to the nearest whole number of pixels."""
        factor = self.gsd / gsd
        width, height = max(1, round(self.width * factor)), max(1, round(self.height * factor))
        scale = Affine.scale(self.width / width, self.height / height)
        return replace(self, transform=self.transform @ scale, width=width, height=height)

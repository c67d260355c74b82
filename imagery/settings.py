"""What imagery is read from and how it is taken apart: plain values that a command line can check before any work."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

from base.errors import InputError

ALIGNMENTS = ("off", "global", "local")  # of post with pre
ALIGN = "global"
FORMATS = ("flatgeobuf", "geoparquet", "pmtiles", "stac", "tiles")  # of a map, on request
CELL = 500.0  # metres of a side of the squares that a map is summed up by
CELLS = (1.0, 1e6)  # the smallest and the largest: a zone of UTM is not a million metres wide
GSDS = (0.01, 1000.0)  # metres of a pixel that can be asked for
LARGEST = {"tile": 16384, "batch": 1024, "workers": 256}  # what a machine has memory and threads for
PERCENTILES = (2.0, 98.0)
RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".ntf", ".img")  # endings of files that lie on the ground
CACHE = 32 * 2**20  # bytes of blocks that GDAL keeps; by default it is 5 % of the machine's memory
STRIDE = 32  # pixels of the coarsest branch's pixel, `model.dual_hrnet.STRIDE`, here without torch


class SettingsError(InputError):
    """A setting of a map that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a pair is read.

    value_range: what becomes 0 and 255 in images of more than 8 bits; None takes `percentiles` of each band over what
    both images show, as QGIS does by default
    (https://docs.qgis.org/latest/en/docs/user_manual/working_with_raster/raster_properties.html, "Cumulative count
    cut"), by default PERCENTILES. resample_to: metres of a pixel; None keeps pre's.
    bands: numbers of red, green and blue, from 1. nodata: the value of pixels without data. Each is one for both images
    or one for pre and one for post; None: as the file says. Raises SettingsError.
    """

    value_range: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    resample_to: float | None = None
    bands: Sequence[tuple[int, ...] | None] = (None,)
    nodata: Sequence[float | None] = (None,)

    def __post_init__(self) -> None:
        if self.value_range is not None and not -inf < self.value_range[0] < self.value_range[1] < inf:
            low, high = self.value_range
            raise SettingsError(f"--range: found {low:g} {high:g}, expected the lower value first, and a higher one.")
        low, high = self.percentiles or PERCENTILES
        if not 0 <= low < high <= 100:
            raise SettingsError(f"--percentiles: found {low:g} {high:g}, expected two from 0 to 100, the lower first.")
        if self.resample_to is not None and not GSDS[0] <= self.resample_to <= GSDS[1]:
            raise SettingsError(
                f"--resample-to: found {self.resample_to:g}, expected metres of a pixel from {GSDS[0]:g} to "
                f"{GSDS[1]:g}, such as 0.5."
            )
        for option, given in (("--bands", self.bands), ("--nodata", self.nodata)):
            if len(given) not in (1, 2):
                raise SettingsError(
                    f"{option}: found {len(given)} values, expected one, or one for pre and one for post."
                )

    def facts(self) -> dict[str, Any]:
        """By name, fit for JSON, from which a later step reads the same images alike."""
        return {field.name: getattr(self, field.name) for field in fields(Reading)}


@dataclass(frozen=True)
class Sources(Reading):
    """What a pair is read from, and how. pre, post: one raster each, or the tiles of a mosaic."""

    pre: tuple[Path, ...]
    post: tuple[Path, ...]


@dataclass(frozen=True)
class Windows:
    """How imagery is taken apart. tile, overlap: pixels, multiples of 32; batch: tiles that are predicted at once;
    workers: threads that read ahead, and processes that share the work on many buildings. Raises SettingsError.
    """

    tile: int = 1024
    overlap: int = 256
    batch: int = 1
    workers: int = 2

    def __post_init__(self) -> None:
        if self.tile % STRIDE or self.overlap % STRIDE or self.tile < 64 or not 0 <= self.overlap <= self.tile // 2:
            raise SettingsError(
                f"--tile, --overlap: found {self.tile} and {self.overlap}, expected multiples of {STRIDE}, a tile of "
                "64 pixels or more, and at most half of it as overlap."
            )
        if self.batch < 1 or self.workers < 0:
            found = f"{self.batch} and {self.workers}"
            raise SettingsError(f"--batch, --workers: found {found}, expected 1 or more, and 0 or more.")
        for name, largest in LARGEST.items():
            if getattr(self, name) > largest:
                raise SettingsError(f"--{name}: found {getattr(self, name)}, expected at most {largest}.")

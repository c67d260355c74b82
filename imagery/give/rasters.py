"""Cloud-optimized GeoTIFFs of a map, for map programs and web servers."""

import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError

from base.grades import LEGEND
from imagery.find.buildings import DAMAGE_BAND, SIDE
from imagery.predict.blending import NODATA
from imagery.read.grid import blocks

CONFIDENCE_BAND = 2  # of classes.tif
DAMAGE, CONFIDENCE = "damage.tif", "confidence.tif"
_PERCENT = np.rint(np.arange(256) / 2.55).astype(np.uint8)  # of 255 x a probability


def write_rasters(classes: Path, folder: Path) -> None:
    """Writes damage.tif, 0-4 with the colours of the paper, and confidence.tif, percent, of classes.tif into `folder`.

    Both are uint8 on its grid, 255 where no data is. For the layout see https://gdal.org/drivers/raster/cog.html.
    Raises RasterioError where they cannot be written.
    """
    plain = {name: folder / f"plain-{name}" for name in (DAMAGE, CONFIDENCE)}
    with ExitStack() as stack:
        source = stack.enter_context(rasterio.open(classes))
        profile = {
            "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NODATA, "crs": source.crs,
            "transform": source.transform, "width": source.width, "height": source.height, "tiled": True,
            "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer",
        }  # fmt: skip
        damage, confidence = (stack.enter_context(rasterio.open(path, "w", **profile)) for path in plain.values())
        damage.set_band_description(1, "damage grade")
        damage.write_colormap(1, {value: (*colour, 255) for value, (_, colour) in LEGEND.items() if value != NODATA})
        damage.update_tags(1, **{f"GRADE_{value}": name for value, (name, _) in LEGEND.items() if value != NODATA})
        confidence.set_band_description(1, "confidence")
        confidence.set_band_unit(1, "percent")
        written = dict.fromkeys(plain, 0)
        for window in blocks(source.width, source.height, SIDE):
            grades, certain = source.read([DAMAGE_BAND, CONFIDENCE_BAND], window=window)
            percent = cv2.LUT(certain, _PERCENT)
            percent[grades == NODATA] = NODATA
            for name, out, values in ((DAMAGE, damage, grades), (CONFIDENCE, confidence, percent)):
                out.write(values, 1, window=window)
                written[name] = _sum(values, written[name])
    for name, resampling in ((DAMAGE, Resampling.nearest), (CONFIDENCE, Resampling.average)):
        # Level 6, the usual one, takes twice the time for 8 % less.
        options = {"compress": "deflate", "level": "5", "overview_resampling": resampling.name, "bigtiff": "if_safer"}
        try:
            rasterio.shutil.copy(plain[name], folder / name, driver="COG", num_threads="all_cpus", **options)
        except CPLE_BaseError as error:  # which is no RasterioError
            raise RasterioIOError(str(error)) from error
        plain[name].unlink()
        _verify(folder / name, written[name])


def _verify(path: Path, expected: int) -> None:
    """GDAL tells nobody that the disk was full when it closes a file."""
    found = 0
    with rasterio.open(path) as dataset:
        for window in blocks(dataset.width, dataset.height, SIDE):
            found = _sum(dataset.read(1, window=window), found)
    if found != expected:
        raise RasterioIOError(f"{path.name}: is not what was written")


def _sum(values: npt.NDArray[Any], before: int) -> int:
    return zlib.crc32(values.tobytes(), before)

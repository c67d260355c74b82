"""A raster as GDAL opens it: what cannot be used is told apart, and where there is data."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.drivers import raster_driver_extensions
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from base.access import denial
from imagery.errors import RasterError
from imagery.read.bands import Numbers, choose_bands
from imagery.read.doubts import is_mask, smaller

# What rasterio raises of a file; the last of text in it that is no text, such as a unit or a name of a band.
_READ_ERRORS = (RasterioError, CPLE_BaseError, UnicodeDecodeError)
# How a source of a VRT begins that lies in an archive, in memory or on a server, is read by a driver, or is XML itself.
_NO_FILE = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9_+.-]+:|\s*<")
TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@contextmanager
def errors_named(name: object) -> Iterator[None]:
    """Turns what reading pixels raises into a RasterError that names the image."""
    try:
        yield
    except _READ_ERRORS as error:
        raise RasterError(
            f"{name}: breaks off or is damaged ({plain(error.__cause__ or error)}). Fetch the file again."
        ) from error


def open_raster(source: Path | str, stack: ExitStack, **options: Any) -> Any:
    """A dataset that the stack closes. Raises RasterError, which tells what is missing, damaged, or not supported."""
    try:
        return stack.enter_context(rasterio.open(source, **options))
    except _READ_ERRORS as error:
        if denied := denial(Path(source)):
            raise RasterError(f"{source}: {denied}") from error
        ending = Path(source).suffix.lower().removeprefix(".")
        if not os.path.exists(source):
            remedy = "Correct the path"
        elif ending in raster_driver_extensions():
            remedy = "The file is damaged, or not what its ending says. Fetch it again"
        else:
            remedy = "Its format is not supported. Convert it to a GeoTIFF with a program that reads it, such as QGIS"
        raise RasterError(f"{source}: is no raster that can be read ({plain(error)}). {remedy}.") from error


def check_raster(file: Any, name: Path, bands: Numbers | None, nodata: float | None) -> None:
    """Raises RasterError where an open dataset cannot be used, or not with these bands and this value of no data."""
    if file.driver == "VRT":
        _check_sources(name)
    if not file.count and file.subdatasets:
        raise RasterError(
            f"{name}: holds {len(file.subdatasets)} rasters, expected one. Write the one you mean to a file of its "
            f"own, such as by rio convert '{file.subdatasets[0]}' image.tif."
        )
    if file.crs is None and (file.gcps[0] or file.rpcs):
        raise RasterError(
            f"{name}: is not laid on the ground yet, it has only control points or the camera's model. Warp it with "
            "gdalwarp, or take the vendor's orthorectified image."
        )
    if file.crs is None:
        raise RasterError(
            f"{name}: has no coordinate reference system. Give the georeferenced image, or set it with rio edit-info."
        )
    if (
        file.transform == Affine.identity()
        or file.transform.is_degenerate
        or not all(map(math.isfinite, file.transform))
    ):
        raise RasterError(
            f"{name}: has no place on the ground (no geotransform). Give the georeferenced image, or set it with rio "
            "edit-info."
        )
    if bands is not None and max(bands) > file.count:
        raise RasterError(f"{name}: has {file.count} bands, --bands asks for band {max(bands)}. Correct --bands.")
    colours = choose_bands(file, bands).numbers
    if len(colours) < 3:
        raise RasterError(f"{name}: has {file.count} bands, expected red, green and blue. Give a colour image.")
    kinds = [file.dtypes[band - 1] for band in colours]
    odd = [kind for kind in kinds if kind not in TYPES]
    if odd:
        raise RasterError(f"{name}: has values of {odd[0]}, expected one of {', '.join(TYPES)}. Convert it.")
    if len(set(kinds)) > 1:
        raise RasterError(f"{name}: has colours of {', '.join(kinds)}, expected one kind of value. Convert it.")
    with np.errstate(invalid="ignore"):  # of NaN as a whole number
        fits = nodata is None or all(rasterio.dtypes.can_cast_dtype([nodata], kind) for kind in kinds)
    if not fits:
        raise RasterError(f"{name}: has values of {kinds[0]}, --nodata is {nodata:g}. Give a value that can be there.")


def _check_sources(vrt: Path) -> None:
    """Raises RasterError where one of the files that a VRT is made of is missing or may not be read: GDAL opens them
    late, and tells it as damage.
    """
    try:
        elements = list(ElementTree.parse(vrt).iter())
    except ElementTree.ParseError:  # GDAL is not as strict
        return
    named = {
        vrt.parent / one.text if one.get("relativeToVRT") == "1" else Path(one.text)
        for one in elements
        if one.tag in ("SourceFilename", "SourceDataset") and one.text and not _NO_FILE.match(one.text)
    }
    for path in sorted(named):
        found = denial(path) if path.exists() else "is missing. Bring it back, or make the VRT anew with gdalbuildvrt"
        if found:
            raise RasterError(f"{vrt}: shows {path}, which {found}.")


def alpha_is_mask(file: Any) -> bool:
    """Whether the alpha band tells where there is data; also true where there is no such band."""
    if ColorInterp.alpha not in file.colorinterp:
        return True
    return is_mask(_alpha(file, out_shape=smaller(file.height, file.width)))


def _alpha(file: Any, **part: Any) -> npt.NDArray[Any]:
    return np.asarray(file.read(file.colorinterp.index(ColorInterp.alpha) + 1, **part))


def mask_of(file: Any, **part: Any) -> npt.NDArray[np.bool_]:
    """Where there is data; of nodata values and mask bands, where any band has some."""
    if ColorInterp.alpha in file.colorinterp:  # which GDAL makes a mask of only for unsigned values
        return np.asarray(_alpha(file, **part) > 0)
    return np.asarray(file.dataset_mask(**part) > 0)


def plain(error: BaseException) -> str:
    """The error in one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".")

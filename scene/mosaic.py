"""Tiles of one image as one raster, by a description that names them: no pixel is copied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio

from xbd.errors import InputError

_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}


class MosaicError(InputError):
    """Tiles that are not of one image."""


def mosaic(paths: Sequence[Path]) -> str:
    """A GDAL VRT of the tiles, which rasterio opens; where tiles overlap, the later one is on top.

    Raises MosaicError where they differ in coordinate system, resolution, bands, type or nodata value, or do not lie on
    one grid. Format: https://gdal.org/drivers/raster/vrt.html
    """
    tiles = [_describe(path) for path in paths]
    first = tiles[0]
    for tile in tiles[1:]:
        for what in ("crs", "pixel", "bands", "type", "nodata"):
            if tile[what] != first[what]:
                raise MosaicError(
                    f"{tile['path']}: has {what} {tile[what]}, {first['path']} {first[what]}: expected tiles of one "
                    "image. Give a mosaic of them."
                )
    a, e = first["pixel"]
    left = min(tile["x"] for tile in tiles)
    top = (max if e < 0 else min)(tile["y"] for tile in tiles)
    root = ET.Element("VRTDataset")
    ET.SubElement(root, "SRS").text = first["crs"]
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, (left, a, 0.0, top, 0.0, e)))
    size = [0, 0]
    for tile in tiles:
        offset = [(tile["x"] - left) / a, (tile["y"] - top) / e]
        tile["offset"] = [round(value) for value in offset]
        if max(abs(value - round(value)) for value in offset) > 0.01:
            raise MosaicError(
                f"{tile['path']}: lies between the pixels of {first['path']}. Give a mosaic of the tiles."
            )
        size = [max(known, at + own) for known, at, own in zip(size, tile["offset"], tile["size"], strict=True)]
    root.attrib.update(rasterXSize=str(size[0]), rasterYSize=str(size[1]))
    for number, colour in enumerate(first["colours"], start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType=_TYPES.get(first["type"], "Byte"), band=str(number))
        if first["nodata"] is not None:
            ET.SubElement(band, "NoDataValue").text = repr(first["nodata"])
        ET.SubElement(band, "ColorInterp").text = colour
        for tile in tiles:
            _add(band, tile, number)
    return ET.tostring(root, encoding="unicode")


def _describe(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as dataset:
        transform = dataset.transform
        return {
            "path": path,
            "crs": "none" if dataset.crs is None else dataset.crs.to_wkt(),
            "pixel": (transform.a, transform.e),
            "bands": dataset.count,
            "type": dataset.dtypes[0],
            "nodata": dataset.nodata,
            "x": transform.c,
            "y": transform.f,
            "size": (dataset.width, dataset.height),
            "colours": [colour.name.capitalize() for colour in dataset.colorinterp],
        }


def _add(band: ET.Element, tile: dict[str, Any], number: int) -> None:
    source = ET.SubElement(band, "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(Path(tile["path"]).absolute())
    ET.SubElement(source, "SourceBand").text = str(number)
    width, height = (str(side) for side in tile["size"])
    ET.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
    x, y = (str(value) for value in tile["offset"])
    ET.SubElement(source, "DstRect", xOff=x, yOff=y, xSize=width, ySize=height)

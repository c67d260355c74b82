"""Tiles of one image as one raster, by a description that names them: no pixel is copied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from affine import Affine
from rasterio.enums import ColorInterp

from imagery.errors import RasterError
from imagery.read.bands import choose_bands

_TYPES = {
    "uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32", "float32": "Float32",
    "float64": "Float64",
}  # fmt: skip


Kind = tuple[tuple[str, str], ...]


class MosaicError(RasterError):
    """Tiles that are not of one image."""


class _Placed(NamedTuple):
    """A tile and where its first pixel lies in the mosaic."""

    path: Path
    dataset: Any
    column: int
    row: int


def mosaic(tiles: Sequence[tuple[Path, Any]], nodata: float | None = None, *, masked: bool = True) -> str:
    """A GDAL VRT of the tiles (path and open dataset), which rasterio opens; where they overlap, the later is on top.

    nodata: instead of what the files say. masked: whether their alpha bands and masks tell where there is data; else
    there is some wherever a tile lies, but for nodata.
    Raises MosaicError where they differ in coordinate system, resolution, bands, type or nodata value, or do not lie on
    one grid. Format: https://gdal.org/en/stable/drivers/raster/vrt.html
    """
    first_path, first = tiles[0]
    for path, dataset in tiles[1:]:
        check_alike(path, kind_of(dataset), first_path, kind_of(first))
    placed, transform, width, height = _place(tiles)
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(root, "SRS").text = first.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, transform.to_gdal()))
    nodata = first.nodata if nodata is None else nodata
    kinds = [colour if masked or colour != ColorInterp.alpha else ColorInterp.undefined for colour in first.colorinterp]
    for number, colour in enumerate(kinds, start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType=_TYPES.get(first.dtypes[0], "Byte"), band=str(number))
        ET.SubElement(band, "ColorInterp").text = colour.name.capitalize()
        if nodata is not None:
            ET.SubElement(band, "NoDataValue").text = repr(nodata)
        is_whole = nodata is None and not masked  # and GDAL copies it, in a third of the time
        for tile in placed:
            source = _add(band, tile, str(number), "SimpleSource" if is_whole else "ComplexSource")
            if colour == ColorInterp.alpha:
                ET.SubElement(source, "NODATA").text = "0"
            elif nodata is not None:
                ET.SubElement(source, "NODATA").text = repr(nodata)
            elif masked:
                ET.SubElement(source, "UseMaskBand").text = "true"
    if nodata is None and ColorInterp.alpha not in kinds:
        # Where no tile lies would count as black otherwise.
        mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for tile in placed:
            source = _add(mask, tile, "mask,1" if masked else "1")
            if masked:
                ET.SubElement(source, "NODATA").text = "0"
            else:  # data wherever it lies
                ET.SubElement(source, "ScaleOffset").text = "255"
                ET.SubElement(source, "ScaleRatio").text = "0"
    return ET.tostring(root, encoding="unicode")


def renamed(vrt: str, names: Mapping[str, str]) -> str:
    """The description, each of its files under another name."""
    root = ET.fromstring(vrt)
    for source in root.iter("SourceFilename"):
        source.text = names[str(source.text)]
    return ET.tostring(root, encoding="unicode")


def check_alike(path: object, kind: Kind, other_path: object, other: Kind) -> None:
    """Raises MosaicError where two tiles are not of one image, by `kind_of`."""
    for (what, found), (_, expected) in zip(kind, other, strict=True):
        if found != expected:
            raise MosaicError(
                f"{path}: has {what} {found}, {other_path} {expected}, expected tiles of one image. Give a mosaic "
                "of them."
            )


def check_between(path: object, corner: tuple[float, float], other_path: object) -> None:
    """Raises MosaicError where a tile's corner, in pixels of another tile, is none of its pixels' corners."""
    if max(abs(value - round(value)) for value in corner) > 0.01:
        raise MosaicError(f"{path}: lies between the pixels of {other_path}. Give a mosaic of the tiles.")


def kind_of(dataset: Any) -> Kind:
    """What all tiles must have in common, and how it reads."""
    transform = dataset.transform
    return (
        ("coordinate system", dataset.crs.to_string()),
        ("pixels of", " x ".join(f"{value:.10g}" for value in (transform.a, transform.e, *transform[1:4:2]) if value)),
        ("bands", str(dataset.count)),
        ("values of", dataset.dtypes[0]),
        ("nodata", str(dataset.nodata)),
        ("colours", ", ".join(colour.name for colour in dataset.colorinterp)),
        ("red, green and blue in bands", ", ".join(map(str, choose_bands(dataset).numbers))),
    )


def _place(tiles: Sequence[tuple[Path, Any]]) -> tuple[list[_Placed], Affine, int, int]:
    """The tiles on the mosaic, and its transform, width and height."""
    base = tiles[0][1].transform
    corners = []
    for path, dataset in tiles:
        corner = ~base @ (dataset.transform.c, dataset.transform.f)
        check_between(path, corner, tiles[0][0])
        corners.append((round(corner[0]), round(corner[1])))
    left, top = (min(values) for values in zip(*corners, strict=True))
    placed = [
        _Placed(path, dataset, column - left, row - top)
        for (path, dataset), (column, row) in zip(tiles, corners, strict=True)
    ]
    width = max(tile.column + tile.dataset.width for tile in placed)
    height = max(tile.row + tile.dataset.height for tile in placed)
    transform = base @ Affine.translation(left, top)
    return placed, transform, width, height


def _add(band: ET.Element, tile: _Placed, source_band: str, kind: str = "ComplexSource") -> ET.Element:
    source = ET.SubElement(band, kind)
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(tile.path.absolute())
    ET.SubElement(source, "SourceBand").text = source_band
    width, height = str(tile.dataset.width), str(tile.dataset.height)
    ET.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
    ET.SubElement(source, "DstRect", xOff=str(tile.column), yOff=str(tile.row), xSize=width, ySize=height)
    return source

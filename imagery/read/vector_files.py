"""How vector files are opened as they are published, in formats that OGR alone takes for something else or not at all.

Microsoft's footprints are lines of GeoJSON in a .csv.gz, Google's a CSV with WKT, Overture's GeoParquet, exports of
OpenStreetMap a shapefile in a folder of a zip archive, and text in them is not always the UTF-8 that it claims to be.
"""

import gzip
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyogrio
from shapely.errors import ShapelyError

from base.errors import InputError, printable
from imagery.read.grid import WGS84

GEOMETRIES = ("geometry", "wkt", "geom", "the_geom", "geom_wkt", "wkt_geom", "polygon")  # names of columns of WKT
# The first is that of OGR's own errors, the last that of pyogrio where a coordinate system's name is no text.
READ_ERRORS = (
    RuntimeError, ShapelyError, ValueError, OSError, KeyError, TypeError, EOFError, zlib.error, zipfile.BadZipFile,
    UnboundLocalError,
)  # fmt: skip
_GIVEN = "given_geometry"  # an attribute of this name, which the frame needs for itself
_IN_ZIP = (".shp", ".gpkg", ".geojson", ".json", ".geojsonl", ".geojsons", ".csv", ".fgb", ".kml", ".gml", ".osm")
_HEAD, _CHUNK = 4096, 2**20  # bytes that tell what a file is, and that are checked at a time


class VectorError(InputError):
    """A vector file that cannot be used; names file, finding, expectation and remedy."""


class Layer(NamedTuple):
    """frame: a GeoDataFrame as read; types: NumPy's name of each attribute's type in the file; is_osm: whether the
    attributes are tags of OpenStreetMap; notes: what was taken for granted, a sentence each.
    """

    frame: Any
    types: dict[str, str]
    is_osm: bool
    notes: tuple[str, ...]


class _Source(NamedTuple):
    """What OGR opens, the name of the file that this is, and how the file begins."""

    opened: str
    name: str
    head: bytes


def open_layer(path: Path) -> Layer:
    """The one layer of a file that may hold polygons, whatever of the formats above it is in.

    Raises VectorError, or one of READ_ERRORS that says why the file cannot be read.
    """
    if path.is_file() and path.open("rb").read(4) == b"PAR1":
        return _read_parquet(path)
    source = _source(path)
    first = source.head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\x1e \t\r\n")[:1]
    if source.name.lower().endswith(".csv") and first == b"{":
        # By its ending OGR takes it for a table.
        return _read(path, f"GeoJSONSeq:{source.opened}")
    if source.name.lower().endswith((".csv", ".tsv")):
        return _read_table(path, source)
    return _read(path, source.opened)


def _source(path: Path) -> _Source:
    if not path.is_file():
        return _Source(str(path), path.name, b"")
    head = _head(path)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path) as file:
            head = file.read(_HEAD)
            while file.read(_CHUNK):  # to its checksum: OGR takes a file that breaks off for a shorter one
                pass
        return _Source(f"/vsigzip/{path.absolute()}", path.name.removesuffix(".gz"), head)
    if head.startswith(b"PK") and path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.lower().endswith(_IN_ZIP) and not _is_hidden(name)]
            if len(inside) != 1:
                found = ", ".join(inside[:3]) + (" and more" if len(inside) > 3 else "") if inside else "none"
                raise VectorError(
                    f"{path}: holds {len(inside)} vector files ({printable(found)}), expected one. Unpack it and name "
                    "the file."
                )
            with archive.open(inside[0]) as file:
                return _Source(f"/vsizip/{{{path.absolute()}}}/{inside[0]}", inside[0], file.read(_HEAD))
    return _Source(str(path), path.name, head)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _is_hidden(name: str) -> bool:
    """Whether it is one of those that macOS packs beside each file."""
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith(".")


def _read_parquet(path: Path) -> Layer:
    import geopandas

    try:
        frame = geopandas.read_parquet(path)
    except ImportError as error:
        raise VectorError(
            f"{path}: is GeoParquet, and pyarrow is not installed. Convert it: ogr2ogr {path.stem}.gpkg {path.name}"
        ) from error
    if _GIVEN not in frame and "geometry" in frame and frame.geometry.name != "geometry":
        frame = frame.rename(columns={"geometry": _GIVEN})
    types = {str(name): str(kind) for name, kind in frame.dtypes.items() if name != frame.geometry.name}
    return Layer(frame, types, False, ())


def _read_table(path: Path, source: _Source) -> Layer:
    """A table with a column of WKT."""
    options = {
        "GEOM_POSSIBLE_NAMES": ",".join(GEOMETRIES), "KEEP_GEOM_COLUMNS": "NO", "AUTODETECT_TYPE": "YES",
        "AUTODETECT_WIDTH": "NO",
    }  # fmt: skip
    # OGR looks for the columns before it tells of a geometry, so that the layer need not be asked for.
    found = _read(path, source.opened, needs_layer=False, **options)
    if "geometry" not in found.frame:
        columns = printable(", ".join(map(str, found.frame.columns[:9])))
        raise VectorError(
            f"{path}: has no column of polygons as WKT (found {columns}), expected one named {', '.join(GEOMETRIES)}. "
            "Rename the column."
        )
    if found.frame.crs is not None:
        return found
    west, south, east, north = found.frame.total_bounds
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):  # of numbers that are none, too
        raise VectorError(
            f"{path}: has no coordinate reference system, and its coordinates are no degrees. Convert it: ogr2ogr "
            f"-a_srs EPSG:CODE -oo GEOM_POSSIBLE_NAMES={GEOMETRIES[0]} {Path(source.name).stem}.gpkg {path.name}"
        )
    note = f"{path}: names no coordinate reference system, its coordinates were taken as longitude and latitude"
    return found._replace(frame=found.frame.set_crs(WGS84), notes=(*found.notes, note))


def _read(path: Path, opened: str, *, needs_layer: bool = True, **options: str) -> Layer:
    layer = _layer(path, opened) if needs_layer else None
    try:
        return _decode(path, opened, layer, None, options)
    except UnicodeDecodeError:
        found = _decode(path, opened, layer, "ISO-8859-1", options)
        return found._replace(notes=(f"{path}: its text is not UTF-8, and was read as Latin-1",))


def _decode(path: Path, opened: str, layer: str | None, encoding: str | None, options: dict[str, str]) -> Layer:
    known: dict[str, Any] = {"layer": layer, "encoding": encoding, **options}
    info = pyogrio.read_info(opened, **known)
    twice = [name for name, count in Counter(map(str, info["fields"])).items() if count > 1]
    if twice:  # of which pyogrio would give the last, under both names
        raise VectorError(
            f"{path}: has several columns {printable(twice[0])}, expected one of each name. Rename the others."
        )
    frame = pyogrio.read_dataframe(opened, on_invalid="fix", **known)
    types = dict(zip(map(str, info["fields"]), map(str, info["dtypes"]), strict=True))
    if "geometry" in types:  # of which OGR makes no column, as the polygons are called so
        own = pyogrio.read_dataframe(opened, columns=["geometry"], read_geometry=False, **known)
        name = _GIVEN
        while name in types:
            name = f"given_{name}"
        frame[name] = own["geometry"]
        types[name] = types.pop("geometry")
    return Layer(frame, types, info.get("driver") == "OSM", ())


def _layer(path: Path, opened: str) -> str:
    """The name of the one layer of the file that may hold polygons."""
    layers = [(name, kind) for name, kind in pyogrio.list_layers(opened) if kind is not None]
    fitting = [name for name, kind in layers if "Polygon" in kind or "Surface" in kind or "Unknown" in kind]
    if len(fitting) > 1:
        raise VectorError(
            f"{path}: has {len(fitting)} layers of polygons ({printable(', '.join(fitting))}), expected one. Write the "
            "one you mean to a file of its own with ogr2ogr."
        )
    if not fitting:
        found = printable(", ".join(f"{name} of {kind}" for name, kind in layers)) or "no map layer"
        raise VectorError(f"{path}: holds no polygon ({found}). Give a layer of polygons.")
    return str(fitting[0])

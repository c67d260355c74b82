"""Polygons in files of map programs: any format is read, GeoPackage and GeoJSON are written. OGR stays in here."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError

from base.access import denial
from base.errors import printable
from base.processes import ALONE, Crew
from imagery.read.grid import WGS84, convert
from imagery.read.vector_files import READ_ERRORS, VectorError, open_layer

LAYER = "buildings"
WRITE_ERRORS = (DataLayerError, DataSourceError)  # of what cannot be written
LONGEST = 300  # characters of what a library says of a file
INT64 = 2**63 - 1
_FEATURES, _END = b'"features": [\n', b"\n]\n}\n"  # before and behind the features of a GeoJSON file of GDAL
_NOWHERE = b"null }"  # how the line of a feature without a polygon ends
_DECIMALS = 7  # of degrees: a centimetre
_FEATURE_ID = "id of the feature"
# Tags of what is no building; beside `building` they tell a table of OpenStreetMap from others with such a column.
_OTHER_TAGS = ("landuse", "leisure", "natural", "amenity")
_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


class Polygons(NamedTuple):
    """What a file holds. path: the file; frame: a GeoDataFrame of polygons in the file's CRS with their attributes;
    notes: what was left out or mended, a sentence each.
    """

    path: Path
    frame: Any
    notes: tuple[str, ...]

    def named(self, name: str) -> "Polygons":
        """The same, whose notes call the file so: how it was given, where `path` is a copy."""
        return self._replace(notes=tuple(note.replace(str(self.path), name) for note in self.notes))


def read_polygons(path: Path) -> Polygons:
    """Polygons of a file with one layer of them, of any format that OGR reads or `imagery.read.vector_files` knows.
    Heights are dropped, invalid polygons are made valid, those without a place on the earth are left out; lists and
    objects among the attributes become JSON text, and whole numbers of 2^64 and more decimal ones. Raises VectorError.
    """
    return _polygons(path, buildings=False)


def read_footprints(path: Path) -> Polygons:
    """Buildings of a file, as `read_polygons` reads them; of the tags of OpenStreetMap only what has `building`."""
    return _polygons(path, buildings=True)


def _polygons(path: Path, *, buildings: bool) -> Polygons:
    try:
        frame, types, is_osm, notes = open_layer(path)
        given = np.asarray(frame.geometry, dtype=object)
        polygons = given.copy()
        odd = ~_is_plain(given)
        polygons[odd] = [_polygon(geometry) for geometry in given[odd]]
    except VectorError:
        raise
    except READ_ERRORS as error:
        if denied := denial(path):
            raise VectorError(f"{path}: {denied}") from error
        found = printable(str(error).split(";")[0]).removeprefix(f"{path}: ").removeprefix(f"'{path}' ")
        found = found if len(found) <= LONGEST else f"{found[:LONGEST]} ..."
        raise VectorError(
            f"{path}: cannot be read ({found.rstrip(' .')}). Give a GeoJSON, GeoPackage or Shapefile; ogr2ogr converts "
            "others."
        ) from error
    usable = np.array([polygon is not None for polygon in polygons], bool)
    if not usable.any():
        raise VectorError(f"{path}: holds no polygon in {len(frame)} features. Give a layer of polygons.")
    if frame.crs is None:
        raise VectorError(
            f"{path}: has no coordinate reference system. Bring its .prj file, or convert it with "
            "ogr2ogr -a_srs EPSG:CODE."
        )
    said = list(notes)
    if count := int((~usable).sum()):
        said.append(f"{path}: {count} of {len(frame)} features are no polygons and were left out")
    is_placed = _on_earth(polygons, frame.crs, path)
    if not (usable & is_placed).any():
        raise VectorError(
            f"{path}: none of {int(usable.sum())} polygons has a place on the earth by its coordinate reference system "
            f"({frame.crs.name}). Correct that, such as with ogr2ogr -a_srs EPSG:CODE."
        )
    if count := int((usable & ~is_placed).sum()):
        said.append(f"{path}: {count} of {len(frame)} features have no place on the earth and were left out")
    usable &= is_placed
    if buildings and (is_osm or {"building", *_OTHER_TAGS} & set(types) > {"building"}):
        is_building = np.array([_is_tag(value) for value in frame["building"]], bool)
        count, usable = int((usable & ~is_building).sum()), usable & is_building
        if not usable.any():
            raise VectorError(f"{path}: none of {count} polygons has the tag building. Give the buildings of the map.")
        if count:
            said.append(f"{path}: {count} of {len(frame)} features have no tag building and were left out")
    if count := int((~shapely.is_valid(given[usable])).sum()):
        said.append(f"{path}: {count} of {len(frame)} polygons were invalid and were made valid")
    plain = _plain(frame.drop(columns=frame.geometry.name), types)
    kept = geopandas.GeoDataFrame(plain[usable], geometry=polygons[usable], crs=frame.crs)
    return Polygons(path, kept.reset_index(drop=True), tuple(said))


def write_geopackage(frames: Iterable[Any], path: Path) -> None:
    """Writes frames of the same columns, one after the other, as the layer `buildings`. Of columns whose names differ
    only by case, which a GeoPackage cannot hold, the later ones get a number.
    """
    for _ in through_geopackage(frames, path):
        pass


def through_geopackage(frames: Iterable[Any], path: Path) -> Iterator[Any]:
    """The same, and gives on each frame that is written."""
    for number, frame in enumerate(frames):
        names = {name: new for name, new in zip(frame.columns, _distinct(frame.columns), strict=True) if name != new}
        taken = {str(name).lower() for name in frame.columns if name != frame.geometry.name}
        options = {
            option: next(name for name in names_of if name not in taken)
            for option, names_of in (("FID", ("fid", "gpkg_fid")), ("GEOMETRY_NAME", ("geom", "gpkg_geom")))
        }
        pyogrio.write_dataframe(
            frame.rename(columns=names), path, layer=LAYER, driver="GPKG", promote_to_multi=True, layer_options=options,
            geometry_type="MultiPolygon", append=number > 0,
        )  # fmt: skip
        yield frame


def write_geojson(frames: Iterable[Any], path: Path, crew: Crew = ALONE) -> None:
    """Writes frames of the same columns, in degrees, one after the other, by RFC 7946: rings counter-clockwise,
    7 decimals, a column `id` as id of the features besides. crew: shares the work.

    Source: https://www.rfc-editor.org/rfc/rfc7946
    """
    parts = ((frame, path.with_name(f"part-{number}-{path.name}")) for number, frame in enumerate(frames))
    with path.open("wb") as file:
        behind = b""
        for part in crew.map(_geojson, parts):
            before, features, behind = part
            file.write(b",\n" if file.tell() else before)
            file.write(features)
        file.write(behind)


def _geojson(frame_and_path: tuple[Any, Path]) -> tuple[bytes, bytes, bytes]:
    """What a file of the frame has before its features, these, with a line each, and what stands behind.

    GDAL writes the attributes, into a file that is taken away again, and what rounding makes invalid or what reaches
    over the antimeridian, which it mends; shapely writes all other polygons, in a third of the time.
    """
    frame, path = frame_and_path
    polygons = np.asarray(frame.geometry, dtype=object)
    rounded = shapely.transform(polygons, lambda points: points.round(_DECIMALS) + 0.0)  # without -0.0
    west, _, east, _ = shapely.bounds(rounded).reshape(-1, 4).T
    is_plain = shapely.is_valid(rounded) & (west >= -180) & (east <= 180) & (east - west < 180)
    rest = polygons.copy()
    rest[is_plain] = None
    options = {"RFC7946": "YES"}
    if "id" in frame.columns:  # a property, too, as map programs take an id for a mere number of rows
        frame, options["ID_FIELD"] = frame.assign(**{_FEATURE_ID: frame["id"]}), _FEATURE_ID
    frame = frame.assign(**{frame.geometry.name: geopandas.GeoSeries(rest, frame.index, frame.crs)})
    pyogrio.write_dataframe(frame, path, layer=LAYER, driver="GeoJSON", geometry_type="Unknown", layer_options=options)
    before, lines, behind = _taken_apart(path.read_bytes(), len(frame))
    path.unlink()
    texts = shapely.to_geojson(shapely.orient_polygons(rounded[is_plain])).tolist()
    for number, text in zip(np.flatnonzero(is_plain).tolist(), texts, strict=True):
        assert lines[number].endswith(_NOWHERE)
        lines[number] = b"%b%b }" % (lines[number].removesuffix(_NOWHERE), text.encode())
    return before, b",\n".join(lines), behind


def _taken_apart(content: bytes, count: int) -> tuple[bytes, list[bytes], bytes]:
    """A file that GDAL wrote: what stands before its `count` features, the line of each, and what stands behind.

    GDAL tells nobody that the disk was full when it closes a file.
    """
    start, end = content.find(_FEATURES) + len(_FEATURES), content.rfind(_END)
    lines = content[start:end].split(b",\n") if end > start else []
    if not content.startswith(b"{") or end < 0 or len(lines) != count:
        raise DataSourceError(f"the GeoJSON has {len(lines)} features instead of {count}")
    return content[:start], lines, content[end:]


def write_flatgeobuf(frame: Any, path: Path) -> None:
    """Writes the frame as the layer `buildings`, in the order of its spatial index."""
    pyogrio.write_dataframe(
        frame, path, layer=LAYER, driver="FlatGeobuf", promote_to_multi=True, geometry_type="MultiPolygon"
    )
    _check_count(frame, path)


def write_geoparquet(frame: Any, path: Path) -> None:
    """Writes the frame as GeoParquet 1.1, with the box of each polygon, by which readers pass over what they do not
    ask for, unless the frame has such a column of its own.
    """
    names = {name: str(name) for name in frame.columns}
    frame.rename(columns=names).to_parquet(
        path, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox="bbox" not in names
    )


def _check_count(frame: Any, path: Path) -> None:
    """GDAL tells nobody that the disk was full when it closes a file."""
    if (found := pyogrio.read_info(path, force_feature_count=True)["features"]) != len(frame):
        raise DataSourceError(f"{path.name}: has {found} features instead of {len(frame)}")


def _is_plain(given: Any) -> Any:
    """Which geometries are what `_polygon` makes of them already: bool [N]."""
    is_polygon = shapely.get_type_id(given) == shapely.GeometryType.POLYGON
    return is_polygon & shapely.is_valid(given) & ~shapely.has_z(given) & (shapely.area(given) > 0)


def _polygon(geometry: shapely.Geometry | None) -> shapely.Geometry | None:
    """The polygons of a geometry, valid and flat; None where there are none."""
    if geometry is None:
        return None
    valid = shapely.make_valid(shapely.force_2d(geometry))
    # Collections within collections too, as OSM has them.
    parts = [part for piece in shapely.get_parts(valid) for part in shapely.get_parts(piece)]
    polygons = [part for part in parts if shapely.get_type_id(part) in _POLYGONS and part.area > 0]
    if len(polygons) < 2:
        return polygons[0] if polygons else None
    whole = shapely.MultiPolygon(polygons)
    return whole if whole.is_valid else shapely.union_all(polygons)  # those of a collection may overlap


def _on_earth(polygons: Any, crs: Any, path: Path) -> Any:
    """Which of the polygons, None among them, have all of their corners on the earth: bool [N]."""
    points, owners = shapely.get_coordinates(polygons, return_index=True)
    try:
        is_map = crs.is_geographic or crs.is_projected  # of one of heights pyproj leaves coordinates as they are
        longitude, latitude = convert(points[:, 0], points[:, 1], crs, WGS84) if is_map else points.T
    except ProjError:  # of another planet
        is_map = False
    if not is_map:
        raise VectorError(
            f"{path}: its coordinate reference system ({crs.name}) is none of places on the earth. Convert it to "
            "another one with ogr2ogr -t_srs, or correct it with -a_srs."
        )
    found = np.ones(len(polygons), bool)
    found[owners[~((np.abs(longitude) <= 360) & (np.abs(latitude) <= 90))]] = False  # of NaN, too
    return found


def _is_tag(value: Any) -> bool:
    """Whether it is the value of a tag, and not "no"."""
    return isinstance(value, str) and value not in ("", "no")


def _plain(attributes: Any, types: dict[str, str]) -> Any:
    """Attributes as the file has them: whole numbers and truths stay such where some are missing."""
    attributes = attributes.copy()
    for name, kind in types.items():
        column = attributes[name]
        if column.isna().any() and kind.startswith(("int", "uint", "bool")):
            attributes[name] = column.astype("boolean" if kind == "bool" else "Int64")
        elif kind == "uint64" and (column > INT64).any():  # which no file that is written can hold
            attributes[name] = column.astype(str)
        elif column.dtype == object:
            attributes[name] = [_text(value) for value in column]
    return attributes


def _text(value: Any) -> Any:
    """Lists and objects as JSON, and bytes as text."""
    if isinstance(value, np.ndarray | list | dict):
        return json.dumps(value, ensure_ascii=False, default=_plainer)
    return value.hex() if isinstance(value, bytes) else value


def _plainer(value: Any) -> Any:
    """What JSON has no word for, within a list or an object."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _distinct(names: Iterable[Any]) -> list[str]:
    """The names, with a number behind those that stand there already in other letters."""
    taken: set[str] = set()
    found = []
    for name in map(str, names):
        new, number = name, 2
        while new.lower() in taken:
            new, number = f"{name}_{number}", number + 1
        taken.add(new.lower())
        found.append(new)
    return found

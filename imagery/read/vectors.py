"""Polygons in files of map programs: the one door to OGR. Reads any vector format, writes GeoPackage and GeoJSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from base.errors import InputError

LAYER = "buildings"
WRITE_ERRORS = (DataLayerError, DataSourceError)  # of what cannot be written
_FEATURE_ID = "id of the feature"
_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


class VectorError(InputError):
    """A vector file that cannot be used; names file, finding, expectation and remedy."""


class Polygons(NamedTuple):
    """What a file holds. path: the file; frame: a GeoDataFrame of polygons in the file's CRS with their attributes;
    notes: what was left out or mended, a sentence each.
    """

    path: Path
    frame: Any
    notes: tuple[str, ...]


def read_polygons(path: Path) -> Polygons:
    """Polygons of a file of any format that OGR reads, with one layer of them. Heights are dropped, invalid polygons
    are made valid, lists and objects among the attributes become JSON text. Raises VectorError.
    """
    try:
        layer = _layer(path)
        frame = pyogrio.read_dataframe(path, layer=layer, on_invalid="fix")
        info = pyogrio.read_info(path, layer=layer)
    except (DataLayerError, DataSourceError) as error:
        found = str(error).split(";")[0].removeprefix(f"{path}: ").removeprefix(f"'{path}' ").rstrip(".")
        raise VectorError(f"{path}: cannot be read ({found}). Give a GeoJSON, GeoPackage or Shapefile.") from error
    given = np.asarray(frame.geometry, dtype=object)
    polygons = np.array([_polygon(geometry) for geometry in given], dtype=object)
    usable = np.array([polygon is not None for polygon in polygons], bool)
    if not usable.any():
        raise VectorError(f"{path}: holds no polygon in {len(frame)} features. Give a layer of polygons.")
    if frame.crs is None:
        raise VectorError(
            f"{path}: has no coordinate reference system. Bring its .prj file, or convert it with "
            "ogr2ogr -a_srs EPSG:CODE."
        )
    notes = []
    if count := int((~usable).sum()):
        notes.append(f"{path}: {count} of {len(frame)} features are no polygons and were left out")
    if count := int((~shapely.is_valid(given[usable])).sum()):
        notes.append(f"{path}: {count} of {len(frame)} polygons were invalid and were made valid")
    plain = _plain(frame.drop(columns=frame.geometry.name), dict(zip(info["fields"], info["dtypes"], strict=True)))
    kept = geopandas.GeoDataFrame(plain[usable], geometry=polygons[usable], crs=frame.crs)
    return Polygons(path, kept.reset_index(drop=True), tuple(notes))


def write_geopackage(frame: Any, path: Path) -> None:
    """Writes the frame as the layer `buildings`. Of columns whose names differ only by case, which a GeoPackage cannot
    hold, the later ones get a number.
    """
    names = {name: new for name, new in zip(frame.columns, _distinct(frame.columns), strict=True) if name != new}
    taken = {str(name).lower() for name in frame.columns if name != frame.geometry.name}
    options = {
        option: next(name for name in names_of if name not in taken)
        for option, names_of in (("FID", ("fid", "gpkg_fid")), ("GEOMETRY_NAME", ("geom", "gpkg_geom")))
    }
    pyogrio.write_dataframe(
        frame.rename(columns=names), path, layer=LAYER, driver="GPKG", promote_to_multi=True, layer_options=options,
        geometry_type="MultiPolygon",
    )  # fmt: skip


def write_geojson(frame: Any, path: Path) -> None:
    """Writes the frame, in degrees, by RFC 7946: rings counter-clockwise, 7 decimals, a column `id` as id of the
    features besides.

    Source: https://www.rfc-editor.org/rfc/rfc7946
    """
    options = {"RFC7946": "YES"}
    if "id" in frame.columns:  # a property, too, as map programs take an id for a mere number of rows
        frame, options["ID_FIELD"] = frame.assign(**{_FEATURE_ID: frame["id"]}), _FEATURE_ID
    pyogrio.write_dataframe(frame, path, layer=LAYER, driver="GeoJSON", geometry_type="Unknown", layer_options=options)
    # GDAL tells nobody that the disk was full when it closes a file.
    if (found := pyogrio.read_info(path, force_feature_count=True)["features"]) != len(frame):
        raise DataSourceError(f"{path.name}: has {found} features instead of {len(frame)}")


def _layer(path: Path) -> str:
    """The name of the one layer of the file that may hold polygons."""
    layers = [(name, kind) for name, kind in pyogrio.list_layers(path) if kind is not None]
    fitting = [name for name, kind in layers if "Polygon" in kind or "Surface" in kind or "Unknown" in kind]
    if len(fitting) > 1:
        raise VectorError(
            f"{path}: has {len(fitting)} layers of polygons ({', '.join(fitting)}), expected one. Write the one you "
            "mean to a file of its own with ogr2ogr."
        )
    if not fitting:
        found = ", ".join(f"{name} of {kind}" for name, kind in layers) or "no map layer"
        raise VectorError(f"{path}: holds no polygon ({found}). Give a layer of polygons.")
    return str(fitting[0])


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
    return shapely.MultiPolygon(polygons)


def _plain(attributes: Any, types: dict[str, str]) -> Any:
    """Attributes as the file has them: whole numbers and truths stay such where some are missing."""
    attributes = attributes.copy()
    for name, kind in types.items():
        column = attributes[name]
        if column.isna().any() and kind.startswith(("int", "uint", "bool")):
            attributes[name] = column.astype("boolean" if kind == "bool" else "Int64")
        elif column.dtype == object:
            attributes[name] = [_text(value) for value in column]
    return attributes


def _text(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


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

"""The STAC item of a map, by which catalogs and map programs find it: where it lies, when it is of, its files.

Source: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md, and of the extensions
https://github.com/stac-extensions/projection/tree/v2.0.0 and https://github.com/stac-extensions/file/tree/v2.1.0.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely

from base.times import rfc3339
from imagery.delivering.delivered import Delivered
from imagery.give.names import FEATURES, GEOJSON, GEOPACKAGE, STYLE
from imagery.give.rasters import CONFIDENCE, DAMAGE
from imagery.give.report import REPORT
from imagery.give.summary import SUMMARY_FILES
from imagery.read.grid import WGS84, Grid, convert
from imagery.sampling.judgements_file import JUDGE

ITEM = "item.json"
VERSION = "1.1.0"
EXTENSIONS = ("projection/v2.0.0", "file/v2.1.0")
PREFIX = "dual_hrnet"  # of properties of our own
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
# Key, title, media type and roles of each file of a map; what is not listed is an asset of its own name.
_ASSETS = {
    DAMAGE: ("damage", "Damage grade of each pixel: 0 background, 1 no damage to 4 destroyed", _COG, ["data"]),
    CONFIDENCE: ("confidence", "Percent by which the network is sure of each pixel", _COG, ["data"]),
    GEOJSON: ("buildings", "Buildings and their grades", "application/geo+json", ["data"]),
    GEOPACKAGE: ("buildings-gpkg", "Buildings and their grades", "application/geopackage+sqlite3", ["data"]),
    FEATURES: ("features", "What the network sees of each building", "application/vnd.apache.parquet", ["metadata"]),
    REPORT: ("report", "Page of the map, both images under a slider", "text/html", ["overview"]),
    SUMMARY_FILES[0]: ("summary-table", "Buildings and areas of each grade", "text/csv", ["metadata"]),
    SUMMARY_FILES[1]: ("summary", "Buildings and areas, and how the map was made", "application/json", ["metadata"]),
    STYLE: ("style", "Style of the buildings for QGIS", "application/xml", ["metadata"]),
    JUDGE: ("judge", "Order in which buildings are judged", "application/json", ["metadata"]),
}  # fmt: skip
_SIDES = 16  # parts of each side of the footprint, which are no lines in degrees


def make_item(folder: Path, name: str, found: Delivered, taken: str | None) -> dict[str, Any]:
    """The item, whose files lie beside it in `folder`.

    taken: when the image from after the disaster was, by RFC 3339; without it the item is of the time at which it is
    made, and says so. Raises RasterioError, OSError.
    """
    made = rfc3339(datetime.now(UTC))
    with rasterio.open(folder / DAMAGE) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    geometry, bbox = footprint(grid)
    properties: dict[str, Any] = {
        "title": f"Building damage: {name}",
        "description": found.said + ("" if taken else " The datetime is that at which the map was delivered."),
        "datetime": taken or made,
        "created": made,
        "gsd": round(grid.gsd, 4),
        **_projection(grid),
        **{f"{PREFIX}:{key}": value for key, value in found.numbers.items()},
        **{f"{PREFIX}:{key}": value for key, value in found.facts.items()},
        f"{PREFIX}:state": found.state,
        f"{PREFIX}:left_out": [dict(each) for each in found.left_out],
    }
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in EXTENSIONS],
        "id": name,
        "geometry": geometry,
        "bbox": bbox,
        "properties": properties,
        "links": [],
        "assets": dict(_asset(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()),
    }


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """The ground of a grid as GeoJSON's geometry, and west, south, east, north, all in degrees.

    Across the antimeridian the geometry is cut in two, and west is larger than east, as RFC 7946 (3.1.9, 5.2) has it.
    """
    steps = np.linspace(0, 1, _SIDES, endpoint=False)
    ones = np.ones(_SIDES)
    # Counterclockwise where rows go south: down on the left, to the right below, up, and back.
    columns = np.concatenate([0 * ones, steps, ones, 1 - steps]) * grid.width
    rows = np.concatenate([steps, ones, 1 - steps, 0 * ones]) * grid.height
    x, y = grid.places(columns, rows)
    (near,), _ = convert(*grid.places(np.array([grid.width / 2]), np.array([grid.height / 2])), grid.crs, WGS84)
    longitude, latitude = convert(x, y, grid.crs, WGS84, near=float(near))
    whole = shapely.orient_polygons(shapely.Polygon(np.stack([longitude, latitude], 1)).simplify(1e-7))
    west, south, east, north = shapely.bounds(whole).tolist()
    if -180 <= west and east <= 180:
        return shapely.geometry.mapping(_rounded(whole)), [round(value, 7) for value in (west, south, east, north)]
    parts: list[Any] = []
    for turn in (-360, 0, 360):
        part = whole.intersection(shapely.box(-180 + turn, -90, 180 + turn, 90))
        if part.area:
            parts.append(shapely.affinity.translate(part, -turn))
    cut = shapely.orient_polygons(shapely.MultiPolygon(parts))
    bbox = [round(value, 7) for value in ((west + 180) % 360 - 180, south, (east + 180) % 360 - 180, north)]
    return shapely.geometry.mapping(_rounded(cut)), bbox


def _rounded(shape: Any) -> Any:
    return shapely.transform(shape, lambda points: np.round(points, 7))


def _projection(grid: Grid) -> dict[str, Any]:
    known = grid.crs.to_authority()
    code = {"proj:code": ":".join(known)} if known else {"proj:code": None, "proj:wkt2": grid.crs.to_wkt()}
    return {**code, "proj:shape": [grid.height, grid.width], "proj:transform": list(grid.transform)[:6]}


def _asset(path: Path, folder: Path) -> tuple[str, Mapping[str, Any]]:
    name = path.relative_to(folder).as_posix()
    key, title, media, roles = _ASSETS.get(name, (name, name, "application/octet-stream", ["metadata"]))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = {"href": f"./{name}", "title": title, "type": media, "roles": roles}
    # A multihash: 12 is SHA-256, 20 are its 32 bytes.
    return key, {**known, "file:size": path.stat().st_size, "file:checksum": f"1220{digest}"}

"""A map as a STAC item: where it lies, its files, what stands in its summary, and the model that made it.

The item is of a folder as it lies there, and its links to the files are relative: whoever delivers a map elsewhere
copies the item with it, or describes what was delivered. How it points to the model is as
https://github.com/stac-extensions/mlm/blob/main/best-practices.md says, "Processing Extension".
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely

from base import stac
from base.access import unreadable
from base.files import write_file
from base.grades import LEGEND
from base.times import rfc3339
from imagery.find.ground import place, to_degrees
from imagery.give.names import FEATURES, FLATGEOBUF, GEOJSON, GEOPACKAGE, GEOPARQUET, PMTILES, STYLE, TILES, hash_of
from imagery.give.page.report import REPORT
from imagery.give.rasters import CONFIDENCE, DAMAGE
from imagery.give.summary import SUMMARY_FILES
from imagery.give.writing import OutputError
from imagery.predict.blending import NODATA
from imagery.read.grid import Grid
from imagery.sampling.judgements_file import JUDGE

EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("processing/v1.1.0", "projection/v2.0.0", "file/v2.1.0")
)
OURS = "dual-hrnet:"  # how properties begin that no extension has
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_PARQUET = "application/vnd.apache.parquet"
_CLASSES = [{"value": value, "description": name} for value, (name, _) in LEGEND.items() if value != NODATA]
_BANDS = {
    DAMAGE: [{"name": "damage", "data_type": "uint8", "nodata": NODATA, "classification:classes": _CLASSES}],
    CONFIDENCE: [{"name": "confidence", "data_type": "uint8", "nodata": NODATA, "unit": "%"}],
}
# Of each file that a map may have: its key among the assets, media type, role and title.
_FILES = {
    DAMAGE: ("damage", _COG, "data", "damage grade of each pixel"),
    CONFIDENCE: ("confidence", _COG, "data", "confidence of each pixel's class, percent"),
    GEOPACKAGE: ("buildings", "application/geopackage+sqlite3", "data", "buildings by damage"),
    GEOJSON: ("buildings-geojson", stac.GEOJSON, "data", "buildings by damage"),
    STYLE: ("style", "application/xml", "metadata", "how QGIS draws the buildings"),
    REPORT: ("report", "text/html", "overview", "page with both images and the buildings"),
    SUMMARY_FILES[0]: ("summary", "text/csv", "metadata", "buildings and areas of each grade, by place"),
    SUMMARY_FILES[1]: ("summary-json", stac.JSON, "metadata", "the same, and how the map was made"),
    FEATURES: ("features", _PARQUET, "data", "what the network sees of each building"),
    FLATGEOBUF: ("buildings-flatgeobuf", "application/vnd.flatgeobuf", "data", "buildings by damage"),
    GEOPARQUET: ("buildings-geoparquet", _PARQUET, "data", "buildings by damage"),
    PMTILES: ("buildings-pmtiles", "application/vnd.pmtiles", "data", "buildings by damage, vector tiles"),
    f"{TILES}/before.json": ("tiles-before", stac.JSON, "overview", "tiles of the image before, TileJSON"),
    f"{TILES}/after.json": ("tiles-after", stac.JSON, "overview", "tiles of the image after, TileJSON"),
    JUDGE: ("judge", stac.JSON, "metadata", "the order in which buildings are judged"),
}


class MadeBy(NamedTuple):
    """The model of a map. location: where it was; item: the address of the STAC item that describes it, with the fields
    of the MLM extension, and name: its `mlm:name`, both None where nobody described it.
    """

    location: str
    item: str | None = None
    name: str | None = None


class Taken(NamedTuple):
    """When the first image before and the last one after were taken, None where that is not known."""

    before: datetime | None = None
    after: datetime | None = None


UNKNOWN = Taken()


def describe_map(
    folder: Path, made_by: MadeBy | None, created: datetime, taken: Taken = UNKNOWN, name: str | None = None
) -> dict[str, Any]:
    """The STAC item of the map in a folder of `imagery.give.outputs.give_out`, fit for JSON; files that are not there
    are not named in it. Two maps of one place with the same buildings have the same id.

    made_by: None where nobody recorded the model. taken: goes before what the map itself knows. created: when the map
    was made; it stands for the time of the images, too, where that of the image after is not known, and the item says
    so. name: the id, by default one of the map's content. Raises OutputError where the folder holds no map.
    """
    content = _summary(folder / SUMMARY_FILES[1])
    facts = content["scene"]
    try:
        with rasterio.open(folder / DAMAGE) as dataset:
            grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        known = [hash_of(folder / GEOJSON), grid.crs.to_wkt(), *grid.transform, grid.width, grid.height]
    except (rasterio.errors.RasterioIOError, OSError) as error:
        raise OutputError(f"{folder}: is no map ({error}), expected {DAMAGE} and {GEOJSON}. Make it again.") from error
    identity = f"map-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    geometry, box = _frame(grid)
    taken = _known(facts, taken)
    assets = {
        key: {
            "href": f"./{file}",
            "type": kind,
            "roles": [role],
            "title": title,
            **_bands(file),
            **_content(folder / file),
        }
        for file, (key, kind, role, title) in _FILES.items()
        if (folder / file).exists()
    }
    properties = {
        **_times(created, taken),
        "description": _described(content, taken),
        "gsd": facts["gsd_m"],
        **_projection(grid),
        "processing:level": "L4",  # "model output or results from analyses of lower level data"
        "processing:lineage": _lineage(facts, made_by),
        **_expression(made_by),
        **{f"{OURS}{key}": value for key, value in content["total"].items()},
        **{f"{OURS}{key}": value for key, value in _made(facts).items()},
        f"{OURS}state": "partial" if facts.get("left_out") else "complete",
        f"{OURS}left_out": facts.get("left_out", []),
    }
    return stac.item(name or identity, geometry, box, properties, assets, _links(facts, made_by), EXTENSIONS)


def write_item(
    folder: Path, made_by: MadeBy | None, created: datetime, taken: Taken = UNKNOWN, name: str | None = None
) -> Path:
    """Writes the item of `describe_map` into the map's folder, as ITEM of `base.stac`; returns its path."""
    content = json.dumps(describe_map(folder, made_by, created, taken, name), indent=2, ensure_ascii=False)
    write_file(folder / stac.ITEM, content + "\n")
    return folder / stac.ITEM


def read_made_by(directory: Path, location: str, address: str) -> MadeBy:
    """The model of a directory at this address; its item is that which lies in it, if there is one. location: what is
    said of where the model is.
    """
    try:
        name = json.loads((directory / stac.ITEM).read_text(encoding="utf-8"))["properties"]["mlm:name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or none that is known here
        return MadeBy(location)
    return MadeBy(location, f"{address}/{stac.ITEM}", str(name))


def _summary(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["total"]["buildings"], int) or "gsd_m" not in content["scene"]:
            raise KeyError("scene")
        return dict(content)
    except OSError as error:
        raise OutputError(f"{path}: {unreadable(path, error, ', expected the folder of a map.')}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(f"{path}: is not the summary of a map, expected one of predict. Make it again.") from error


def _frame(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """The outline of the grid in degrees, as GeoJSON, and the box around it; across the antimeridian its west is larger
    than its east (RFC 7946, 5.2).
    """
    steps = np.linspace(0, 1, 9)  # a straight line in a CRS is a curve in degrees
    ends = np.zeros_like(steps), np.ones_like(steps)
    across = np.concatenate([steps, ends[1], steps[::-1], ends[0]]) * grid.width
    down = np.concatenate([ends[0], steps, ends[1], steps[::-1]]) * grid.height
    frame = np.array([shapely.Polygon(np.stack([across, down], axis=1))], dtype=object)
    (outline,) = to_degrees(place(frame, grid.transform), grid.crs)
    outline = shapely.set_precision(shapely.simplify(outline, 1e-7), 1e-7)
    parts = [shapely.bounds(part) for part in shapely.get_parts(outline)]
    west, east = min(part[0] for part in parts), max(part[2] for part in parts)
    if len(parts) > 1:  # one ends at 180 degrees, the other begins at -180
        west, east = max(part[0] for part in parts), min(part[2] for part in parts)
    south, north = min(part[1] for part in parts), max(part[3] for part in parts)
    box = [round(float(value), 7) for value in (west, south, east, north)]
    return dict(json.loads(shapely.to_geojson(shapely.orient_polygons(outline)))), box


def _projection(grid: Grid) -> dict[str, Any]:
    known = grid.crs.to_authority()
    code = {"proj:code": ":".join(known)} if known else {"proj:code": None, "proj:wkt2": grid.crs.to_wkt()}
    return {**code, "proj:shape": [grid.height, grid.width], "proj:transform": list(grid.transform)[:6]}


def _content(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # A multihash: 12 is SHA-256, 20 are its 32 bytes.
    return {"file:size": path.stat().st_size, "file:checksum": f"1220{digest}"}


def _bands(name: str) -> dict[str, Any]:
    return {"bands": _BANDS[name]} if name in _BANDS else {}


def _made(facts: Mapping[str, Any]) -> dict[str, str]:
    """What tells the network and the plan from others, where the summary knows them."""
    found = {"network": facts.get("model", {}).get("identity"), "plan": facts.get("plan", {}).get("sha256")}
    return {key: value for key, value in found.items() if value is not None}


def _known(facts: Mapping[str, Any], taken: Taken) -> Taken:
    """With what the summary knows, where nothing else was said."""
    if "taken" not in facts:
        return taken
    before, after = (datetime.fromisoformat(facts["taken"][when][end]) for when, end in (("before", 0), ("after", 1)))
    return Taken(taken.before or before, taken.after or after)


def _times(created: datetime, taken: Taken) -> dict[str, str]:
    known = {"datetime": rfc3339(taken.after or created), "created": rfc3339(created)}
    if taken.before is not None and taken.after is not None:
        known |= {"start_datetime": rfc3339(taken.before), "end_datetime": rfc3339(taken.after)}
    return known


def _described(content: Mapping[str, Any], taken: Taken) -> str:
    facts, count = content["scene"], content["total"]["buildings"]
    said = [f"Damage of {count} building{'s' * (count != 1)}, by a network, from an image before and one after."]
    if taken.after is None:
        said.append("When the images were taken is not known: datetime is when the map was made.")
    return " ".join([*said, *facts.get("doubts", [])])


def _lineage(facts: Mapping[str, Any], made_by: MadeBy | None) -> str:
    model = "not recorded" if made_by is None else made_by.location
    about = facts.get("model", {}).get("said", "nobody recorded what it was trained on")
    lies = facts.get("alignment", {}).get("said", "not recorded")
    return f"model {model}, {about}; alignment of the image after: {lies}"


def _expression(made_by: MadeBy | None) -> dict[str, Any]:
    if made_by is None or made_by.item is None:
        return {}
    return {"processing:expression": {"format": "stac-mlm", "expression": made_by.item}}


def _links(facts: Mapping[str, Any], made_by: MadeBy | None) -> list[dict[str, str]]:
    """To the model, and to those images that have an address; paths lead nowhere from elsewhere."""
    links = []
    if made_by is not None and made_by.item is not None:
        named = {} if made_by.name is None else {"mlm:name": made_by.name}
        title = "the model that made the map"
        links.append({"rel": "derived_from", "href": made_by.item, "type": stac.GEOJSON, "title": title, **named})
    for when in ("before", "after"):
        for location in facts.get(when, ()):
            if "://" in location:
                links.append({"rel": "derived_from", "href": location, "title": f"image {when}"})
    return links

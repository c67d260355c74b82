"""What an item of STAC 1.1.0 must be, written down from its specification, apart from the code that makes items.

Source: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md and commons/common-metadata.md,
RFC 7946 for geometry and bbox, RFC 3339 for times.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import shapely

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+(; ?[a-z]+=[a-z0-9-]+)*")


def broken_rules(item: dict[str, Any]) -> list[str]:
    """The rules that an item breaks."""
    return [*_of_fields(item), *_of_place(item), *_of_time(item["properties"]), *_of_assets(item["assets"])]


def _of_fields(item: dict[str, Any]) -> Iterator[str]:
    needed = {"type", "stac_version", "id", "geometry", "bbox", "properties", "links", "assets"}
    if missing := needed - item.keys():
        yield f"fields are missing: {missing}"
    if item["type"] != "Feature" or item["stac_version"] != "1.1.0":
        yield "type and version"
    if not (isinstance(item["id"], str) and item["id"]):
        yield "id is no text"
    for extension in item.get("stac_extensions", ()):
        if not re.fullmatch(r"https://\S+/v\d+\.\d+\.\d+/schema\.json", extension):
            yield f"extension {extension}"
    prefixes = {key.split(":")[0] for key in item["properties"] if ":" in key}
    for prefix, extension in (("proj", "/projection/"), ("file", "/file/")):
        if prefix in prefixes and not any(extension in each for each in item["stac_extensions"]):
            yield f"{prefix}: without its extension"
    for link in item["links"]:
        if not (link.get("rel") and link.get("href")):
            yield "link without rel or href"
    if any(link["rel"] == "collection" for link in item["links"]) != ("collection" in item):
        yield "collection and its link come together"


def _of_place(item: dict[str, Any]) -> Iterator[str]:
    shape = shapely.geometry.shape(item["geometry"])
    if not shape.is_valid or shape.is_empty:
        yield "geometry is not valid"
    west, south, east, north = item["bbox"]
    if not all(-180 <= value <= 180 for value in (west, east)) or not -90 <= south <= north <= 90:
        yield "bbox is not on the earth"
    if west <= east and shape.bounds != (west, south, east, north):
        yield "bbox is not that of the geometry"
    for part in shapely.get_parts(shape):
        if not part.exterior.is_ccw:
            yield "exterior ring is clockwise"


def _of_time(properties: dict[str, Any]) -> Iterator[str]:
    if "datetime" not in properties:
        yield "datetime is missing"
    if properties.get("datetime") is None and not {"start_datetime", "end_datetime"} <= properties.keys():
        yield "datetime is null without start and end"
    for name in ("datetime", "created", "updated", "start_datetime", "end_datetime"):
        value = properties.get(name)
        if value is not None and not RFC3339.fullmatch(value):
            yield f"{name} is no time of RFC 3339"
        if value is not None:
            datetime.fromisoformat(value)
    if not properties.get("gsd", 1) > 0:
        yield "gsd"


def _of_assets(assets: dict[str, Any]) -> Iterator[str]:
    for key, asset in assets.items():
        if not asset.get("href"):
            yield f"asset {key} without href"
        if not MEDIA_TYPE.fullmatch(asset["type"]):
            yield f"asset {key}: media type"
        if not all(isinstance(role, str) for role in asset["roles"]):
            yield f"asset {key}: roles"
        if not re.fullmatch("1220[0-9a-f]{64}", asset["file:checksum"]):
            yield f"asset {key}: no multihash of SHA-256"

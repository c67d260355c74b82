"""STAC items, by which catalogues find what lies somewhere: the frame that those of maps and of models share.

Source: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md
"""

from collections.abc import Mapping, Sequence
from typing import Any

ITEM = "stac.json"  # the item's file, in the folder that it describes
VERSION = "1.1.0"
GEOJSON, JSON = "application/geo+json", "application/json"


def item(
    identity: str, geometry: Mapping[str, Any] | None, box: Sequence[float] | None, properties: Mapping[str, Any],
    assets: Mapping[str, Mapping[str, Any]], links: Sequence[Mapping[str, Any]], extensions: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """An item, fit for JSON. geometry, box: in degrees, both None of what lies nowhere; properties: with `datetime`;
    assets: files by their keys; extensions: addresses of the schemas that its fields are of.
    """
    placed = {} if box is None else {"bbox": list(box)}
    return {
        "type": "Feature", "stac_version": VERSION, "stac_extensions": list(extensions), "id": identity,
        "geometry": geometry, **placed, "properties": dict(properties), "links": [dict(link) for link in links],
        "assets": {key: dict(asset) for key, asset in assets.items()},
    }  # fmt: skip

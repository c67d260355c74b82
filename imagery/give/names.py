"""The files of a map that later steps read too: how they are called, and what tells one map from others."""

import hashlib
import re
from pathlib import Path

from base.stac import ITEM

GEOPACKAGE, GEOJSON, STYLE = "buildings.gpkg", "buildings.geojson", "buildings.qml"
# A row for each building of GEOJSON; METADATA: the key of what its schema says of the model and the map, VECTORS: the
# column of the network's features, PROBABILITY: what the columns of the grades' sums begin with.
FEATURES = "features.parquet"
METADATA, VECTORS, PROBABILITY = b"dual-hrnet", "features", "probability_"
# Of what is written on request; TILES is a folder.
FLATGEOBUF, GEOPARQUET, PMTILES, TILES = "buildings.fgb", "buildings.parquet", "buildings.pmtiles", "tiles"
_TILE = re.compile(rf"{TILES}/(before|after)(\.json|/\d+/\d+/\d+\.jpg)")


def is_requested(path: Path) -> bool:
    """Whether a file, by its path in a map's folder, is one that is written on request."""
    return str(path) in (FLATGEOBUF, GEOPARQUET, PMTILES, ITEM) or _TILE.fullmatch(path.as_posix()) is not None


def hash_of(buildings: Path) -> str:
    """What tells a map from others: the SHA-256 of its GEOJSON. Raises OSError."""
    with buildings.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

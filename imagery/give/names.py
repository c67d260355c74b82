"""The files of a map that later steps read too: how they are called, and what tells one map from others."""

import hashlib
from pathlib import Path

GEOPACKAGE, GEOJSON, STYLE = "buildings.gpkg", "buildings.geojson", "buildings.qml"
# A row for each building of GEOJSON; METADATA: the key of what its schema says of the model and the map, VECTORS: the
# column of the network's features, PROBABILITY: what the columns of the grades' sums begin with.
FEATURES = "features.parquet"
METADATA, VECTORS, PROBABILITY = b"dual-hrnet", "features", "probability_"


def hash_of(buildings: Path) -> str:
    """What tells a map from others: the SHA-256 of its GEOJSON. Raises OSError."""
    with buildings.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

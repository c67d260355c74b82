"""Buildings as vector tiles in one file, PMTiles, of which a web map reads a part from any bucket or server.

Format: https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md; tiles by
https://github.com/mapbox/vector-tile-spec/tree/master/2.1. GDAL writes them: https://gdal.org/en/stable/drivers/vector/pmtiles.html
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from pyogrio.errors import DataSourceError

from imagery.find.ground import to_degrees
from imagery.read.grid import NORTHERNMOST, WGS84
from imagery.read.vectors import LAYER

COARSEST, FINEST = 13, 15  # zoom levels: a house is a pixel on a screen, and a tile's grid is as fine as outlines are
UNIT = 360 / 2**FINEST / 4096  # degrees of longitude between the lines of the finest grid: 0.3 m at the equator
# Beyond so many bytes GDAL makes a tile coarser, by default beyond a tenth: 60 bytes a building, 55,000 of them in each
# km² are in the finest tiles at the equator.
_LARGEST = 5_000_000
_SURE = 4  # units, from which on no polygon can vanish in the grid
_WIDEST = 0.1  # degrees: no building, and GDAL's time grows with the area


def write_pmtiles(frames: Callable[[], Iterable[Any]], path: Path) -> None:
    """Writes the layer `buildings` with all attributes; in the finest tiles is each polygon, in whole units of their
    grid, and one on the border of tiles is in each of them. What is narrower than the grid may be missing, and what is
    wider or higher than a tenth of a degree is. Where nothing is sure to be seen in Web Mercator no file is written:
    GDAL has none without tiles.

    frames: gives parts of the same columns, with polygons in degrees.
    Raises WRITE_ERRORS of `imagery.read.vectors`.
    """
    expected = sum(_certain(np.asarray(frame.geometry, dtype=object)) for frame in map(_shown, frames()))
    if not expected:
        return
    tables = _tables(map(_shown, frames()))
    first = next(tables)
    batches = (batch for table in chain([first], tables) for batch in table.to_batches())
    options = {"NAME": LAYER, "MINZOOM": str(COARSEST), "MAXZOOM": str(FINEST), "MAX_SIZE": str(_LARGEST)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one tile exceeded", RuntimeWarning)  # which only looks coarser
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(first.schema, batches), path, layer=LAYER, driver="PMTiles",
            geometry_name=first.column_names[-1], geometry_type="MultiPolygon", crs=WGS84.to_wkt(),
            dataset_options=options,
        )  # fmt: skip
    if (found := _count(path)) < expected:
        raise DataSourceError(f"{path.name}: has {found} features instead of {expected} or more")


def _shown(frame: Any) -> Any:
    """What of a frame is put into tiles: cut at the antimeridian, beyond which GDAL fills the world."""
    polygons = to_degrees(np.asarray(frame.geometry, dtype=object), WGS84)
    parts, owners = shapely.get_parts(polygons, return_index=True)
    west, south, east, north = shapely.bounds(parts).reshape(-1, 4).T
    is_small = np.ones(len(frame), bool)
    is_small[owners[np.maximum(east - west, north - south) > _WIDEST]] = False
    attributes = frame.drop(columns=frame.geometry.name)
    taken = {str(name).lower() for name in attributes.columns}  # as OGR compares them
    name = next(name for name in chain(["geometry"], map("outline{}".format, count())) if name not in taken)
    return geopandas.GeoDataFrame({**attributes, name: polygons}, geometry=name, crs=WGS84)[is_small]


def _tables(frames: Iterable[Any]) -> Iterator[Any]:
    """Parts as tables of Arrow, with one schema and the polygons last: what is of no type in a part may be text in the
    next.
    """
    for frame in frames:
        texts = {name: "string" for name, kind in frame.dtypes.items() if kind == np.dtype(object)}
        yield pa.table(frame.astype(texts).to_arrow(index=False))


def _certain(polygons: Any) -> int:
    """How many of the polygons in degrees must be in the finest tiles."""
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    # Of what is thin, about the width: by Mercator it only grows.
    width = 2 * shapely.area(polygons) / shapely.length(polygons)
    return int(((width > _SURE * UNIT) & (np.abs(bounds[:, [1, 3]]).max(axis=1) < NORTHERNMOST)).sum())


def _count(path: Path) -> int:
    """How many features the finest tiles have; GDAL tells nobody that the disk was full when it closes a file."""
    try:
        return int(pyogrio.read_info(path, force_feature_count=True)["features"])
    except DataSourceError:  # as it reads one without tiles
        return 0

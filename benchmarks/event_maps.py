"""Maps of real events that their model never saw, with the buildings of the labels as given footprints.

The scenes of an event lie side by side as one pair of GeoTIFFs, in an invented place on the equator, and predict makes
the map of them, as it does for anybody.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.features import rasterize

from benchmarks.demo_assess import Joined, join_scenes
from components.predict import predict_imagery
from imagery.assessing.judged_map import JudgedMap, read_map
from imagery.find.ground import place, to_degrees
from imagery.predict.inference import identity_of
from imagery.read.vectors import write_geojson
from imagery.sampling.draw import Draw, draw_buildings

UID = "uid"  # the column of a footprint that says which label it is
BINS = 8  # of a colour's histogram


class EventMap(NamedTuple):
    """given: the map; truth: [N] of its rows, of JUDGEMENTS; places: [N, 2] of the rows, in pixels; colours: [N, 48],
    the histograms of red, green and blue before and after.
    """

    given: JudgedMap
    truth: npt.NDArray[np.int64]
    places: npt.NDArray[np.float64]
    colours: npt.NDArray[np.float64]

    def draw(self, seed: int) -> Draw:
        """An order as that of the map's page, which has only one: by the same scores and places, with another seed."""
        scores = np.full(len(self.truth), np.nan)
        seen = self.given.draw.order
        scores[seen] = self.given.evidence.probabilities[seen, 1:].sum(1)
        return draw_buildings(scores, self.places, seed, self.given.sha256)


def map_event(raw: Path, disaster: str, model: Path, out: Path) -> EventMap:
    """The map of all scenes of a disaster, in OUT/map; what is there, and is of this model, is not predicted again.

    Post is not aligned with pre, as the labels lie where post shows the buildings, and each scene is shifted by itself.
    """
    out.mkdir(parents=True, exist_ok=True)
    joined = join_scenes([raw / "train", raw / "test"], out, disaster)
    footprints = write_footprints(joined, out / "footprints.geojson")
    folder = out / "map"
    if not folder.is_dir() or read_map(folder).network != identity_of(model):
        predict_imagery(
            str(model), [str(joined.pre)], [str(joined.post)], str(folder), footprints=str(footprints), align="off"
        )
    return read_event(folder, joined)


def write_footprints(joined: Joined, path: Path) -> Path:
    """The polygons of the labels, without what they say of damage."""
    polygons = np.array([label.polygon for label in joined.labels], dtype=object)
    degrees = to_degrees(place(polygons, joined.grid.transform), joined.grid.crs)
    uids = [label.uid for label in joined.labels]
    write_geojson([geopandas.GeoDataFrame({UID: uids}, geometry=degrees, crs="EPSG:4326")], path)
    return path


def read_event(folder: Path, joined: Joined) -> EventMap:
    """The map in the folder, with what the labels say of its buildings."""
    given = read_map(folder)
    labels = {label.uid: label for label in joined.labels}
    own = [labels[uid] for uid in given.table.frame[UID].tolist()]
    polygons = np.array([label.polygon for label in own], dtype=object)
    truth = np.array([label.grade for label in own], np.int64)
    places = shapely.get_coordinates(shapely.centroid(polygons))
    return EventMap(given, truth, places, colours_of(polygons, [joined.pre, joined.post]))


def colours_of(polygons: npt.NDArray[np.object_], images: Sequence[Path]) -> npt.NDArray[np.float64]:
    """The share of a polygon's pixels in each eighth of each band's values, of one image after the other. polygons: in
    pixels, [N]; images: uint8.
    """
    found = []
    for path in images:
        with rasterio.open(path) as image:
            bands = image.read()
        shapes = [(polygon, number) for number, polygon in enumerate(polygons, 1)]
        owners = rasterize(shapes, bands.shape[1:], all_touched=True, dtype=np.int32)
        inside = owners > 0
        for band in bands:
            cells = (owners[inside] - 1) * BINS + band[inside] // (256 // BINS)
            found.append(np.bincount(cells, minlength=BINS * len(polygons)).reshape(-1, BINS))
    counts = np.concatenate(found, axis=1).astype(np.float64)
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares

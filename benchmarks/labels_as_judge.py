"""xBD labels as the judge of a map, in the place of a person: they know of every building what it is.

Writes judgements.geojson in the form of a map's page, imagery/give/pages/judgements.js.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from base.files import write_file
from base.grades import BACKGROUND
from imagery.assessing.judged_map import JudgedMap
from imagery.estimating.totals import DAMAGED
from imagery.find.ground import Geometries, from_degrees, place, to_degrees
from imagery.read.grid import Grid
from xbd.labels import Building

SAME = 0.25  # of an outline that must lie on a labelled building, for a person to see that it means this one
SECONDS = 5.0  # that a person may take for a judgement


class Truth(NamedTuple):
    """What the labels say of a map. judgements: [N] of `imagery.sampling.judged.JUDGEMENTS`, for each of its rows;
    missed: labelled buildings that no outline shows, in pixels of the map's grid; damage: their grades.
    """

    judgements: npt.NDArray[np.int64]
    missed: Geometries
    damage: npt.NDArray[np.int64]


def judge_by_labels(given: JudgedMap, grid: Grid, labels: Sequence[Building]) -> Truth:
    """What a person would say who sees what the labels see: an outline is the labelled building that it shares most
    area with, and no building where less than SAME of it lies on one. labels: of post images, in pixels of the grid.
    """
    outlines = _pixels(given.table.polygons[:], grid)
    buildings = np.array([shapely.make_valid(label.polygon) for label in labels], dtype=object)
    grades = np.array([label.grade for label in labels], np.int64)
    label, outline = shapely.STRtree(outlines).query(buildings, predicate="intersects")
    shared = shapely.area(shapely.intersection(buildings[label], outlines[outline]))
    judgements = np.full(len(outlines), BACKGROUND, np.int64)
    meant = shared >= SAME * shapely.area(outlines)[outline]
    rising = np.flatnonzero(meant)[np.argsort(shared[meant], kind="stable")]
    judgements[outline[rising]] = grades[label[rising]]  # of several the last stands, the largest
    covered = np.bincount(label, shared, len(buildings))
    missed = covered < SAME * shapely.area(buildings)
    return Truth(judgements, buildings[missed], grades[missed])


def write_judgements(
    path: Path, given: JudgedMap, grid: Grid, truth: Truth, judged: int, looked: int, judge: str
) -> None:
    """Writes what the page would give out after the first `judged` buildings and `looked` squares of their orders.
    judge: the initials.
    """
    draw = given.draw
    inclusion = draw.inclusion(judged)
    geometries = given.table.polygons[:]
    features: list[dict[str, Any]] = []
    for rank, row in enumerate(draw.order[:judged].tolist()):
        properties = {
            "id": given.ids[row], "row": row, "judgement": int(truth.judgements[row]), "seconds": SECONDS,
            "judge": judge, "rank": rank, "stratum": int(draw.strata[rank]), "inclusion": float(inclusion[rank]),
            "map": draw.map_hash,
        }  # fmt: skip
        geometry = json.loads(shapely.to_geojson(geometries[row]))
        features.append({"type": "Feature", "id": given.ids[row], "properties": properties, "geometry": geometry})
    features += _counts(given, grid, truth, looked, judge)
    lines = ",\n".join(json.dumps(feature) for feature in features)
    write_file(path, f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n'.encode())


def _counts(given: JudgedMap, grid: Grid, truth: Truth, looked: int, judge: str) -> Iterator[dict[str, Any]]:
    """A missed building is counted in the square where its middle lies."""
    if given.squares is None:
        return
    draw = given.squares.draw
    boxes = given.squares.corners(grid.sides, (grid.width, grid.height))
    middles = shapely.get_coordinates(shapely.centroid(truth.missed))
    polygons = to_degrees(place(np.asarray(shapely.box(*boxes.T), dtype=object), grid.transform), grid.crs)
    for rank in range(looked):
        left, top, right, bottom = boxes[rank]
        own = ((middles >= (left, top)) & (middles < (right, bottom))).all(1)
        properties = {
            "square": int(draw.order[rank]), "rank": rank, "missed": int(own.sum()),
            "damaged": int((own & np.isin(truth.damage, DAMAGED)).sum()), "seconds": SECONDS, "judge": judge,
            "inclusion": looked / len(draw), "map": draw.map_hash,
        }  # fmt: skip
        geometry = json.loads(shapely.to_geojson(polygons[rank]))
        yield {"type": "Feature", "id": f"square {draw.order[rank]}", "properties": properties, "geometry": geometry}


def _pixels(geometries: Geometries, grid: Grid) -> Geometries:
    middle = (grid.transform @ (grid.width / 2, grid.height / 2))[0]
    return place(from_degrees(geometries, grid.crs, middle), ~grid.transform)

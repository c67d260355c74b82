"""The buildings that a map gives out, found or known before: as a table, and what is known of them beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from base.processes import ALONE, Crew
from imagery.find.buildings import building_pixels, find_buildings
from imagery.find.features import mean_features
from imagery.find.footprints import Footprints, footprint_pixels, grade_footprints
from imagery.find.ground import place, square_metres, to_degrees
from imagery.find.joining import Buildings
from imagery.find.outlines import straighten
from imagery.find.shapes import StoredShapes, bounds_of, of_wkb, parts_of, reaches_edge
from imagery.give.features import Seen
from imagery.give.table import Places, Table, joined, places_of, tabulate
from imagery.predict.tile_features import TileFeatures
from imagery.read.grid import Grid
from imagery.read.vectors import Polygons


class Found(NamedTuple):
    """table, seen: of the same buildings; notes: what was left out or mended of a file of them; are_given: whether they
    were known before.
    """

    table: Table
    seen: Seen
    notes: tuple[str, ...] = ()
    are_given: bool = False


def find(classes: Path, footprints: Polygons | None, tiles: TileFeatures | None, crew: Crew = ALONE) -> Found:
    """The buildings of classes.tif, or the `footprints` in it. tiles: the features of its pixels, if they were kept;
    crew: shares the work.

    Raises VectorError where no footprint lies in the imagery.
    """
    with rasterio.open(classes) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    if footprints is not None:
        graded = grade_footprints(footprints, classes)
        found, pixels = of_footprints(graded, grid), footprint_pixels(classes, graded)
    else:
        buildings = find_buildings(classes)
        found, pixels = of_buildings(buildings, grid, classes.parent, crew), building_pixels(classes, buildings)
    if tiles is None or not tiles.scales:
        return found
    means = mean_features(pixels, found.seen.votes[:, 1].sum(1), tiles)
    return found._replace(seen=found.seen._replace(scales=tiles.scales, means=means))


def of_footprints(graded: Footprints, grid: Grid) -> Found:
    """Buildings that were known before, with the attributes of their file, of a map on this grid; without features."""
    at_edge = reaches_edge(bounds_of(graded.placed), grid.width, grid.height)
    table = tabulate(graded.polygons, graded.votes, graded.attributes)
    return Found(table, Seen(graded.votes, at_edge, graded.partly), graded.notes, are_given=True)


def of_buildings(found: Buildings, grid: Grid, folder: Path, crew: Crew = ALONE) -> Found:
    """Buildings that were found in a map on this grid; without features. folder: of a disk with room for their
    polygons; crew: shares the work.
    """
    straight, polygons = straighten(found.outlines, folder, crew=crew), StoredShapes(folder)
    areas, places = list[npt.NDArray[np.float64]](), list[Places]()
    parts = ((straight.wkb(part), grid) for part in parts_of(len(straight)))
    for known, area, own in crew.map(_on_the_ground, parts):
        polygons.append_wkb(known)
        areas.append(area)
        places.append(own)
    table = tabulate(polygons, found.votes, areas=np.concatenate(areas), places=joined(places))
    at_edge = reaches_edge(straight.bounds, grid.width, grid.height)
    return Found(table, Seen(found.votes, at_edge, found.partly))


def _on_the_ground(part: tuple[Sequence[bytes], Grid]) -> tuple[list[bytes], npt.NDArray[np.float64], Places]:
    """Polygons in pixels of a grid: in degrees, their areas in square metres, and where they lie."""
    known, grid = part
    polygons = to_degrees(place(of_wkb(known), grid.transform), grid.crs)
    return shapely.to_wkb(polygons).tolist(), square_metres(polygons), places_of(polygons)

"""Geometries in a file come back as they were, whichever part of them is asked for."""

from pathlib import Path

import numpy as np
import shapely

from imagery.find.shapes import StoredShapes, bounds_of, parts_of, reaches_edge


def test_geometries_come_back_by_slices_and_by_numbers(tmp_path: Path) -> None:
    places = np.random.default_rng(0).normal(size=(50, 2))
    given = np.array([shapely.Point(place).buffer(1 + n % 3, quad_segs=1 + n % 5) for n, place in enumerate(places)])
    given[7] = shapely.MultiPolygon([given[7], shapely.box(9, 9, 10, 10)])
    given[11] = shapely.box(0, 0, 9, 9).difference(shapely.box(1, 1, 2, 2))
    stored = StoredShapes(tmp_path)
    assert len(stored) == 0 and len(stored[:]) == 0
    for part in parts_of(50, 13):
        stored.append(given[part])
    assert len(stored) == 50
    for which in (np.s_[:], np.s_[10:20], np.s_[3:3], np.array([4, 3, 3, 49, 0, 5]), np.zeros(0, np.int64)):
        assert shapely.equals_exact(stored[which], given[which], 0).all()
        assert [own.geom_type for own in stored[which]] == [own.geom_type for own in given[which]]
    assert list(tmp_path.iterdir()) == []


def test_what_touches_the_edge_of_a_raster_or_lies_beyond_it_is_known() -> None:
    boxes = [
        (1, 1, 9, 9),
        (0, 1, 2, 2),
        (1, 1, 10, 2),
        (-5, 3, -1, 4),
        (2, -1, 3, 1),
        (2, 7, 3, 20.5),
        (4, 19, 5, 19.9),
    ]
    found = reaches_edge(bounds_of(np.array([shapely.box(*box) for box in boxes])), 10, 20)
    assert found.tolist() == [False, True, True, True, True, True, False]

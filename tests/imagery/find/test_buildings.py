"""Buildings of a predicted scene: the same in blocks of any size, each voted on by its own pixels, straightened."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window

from imagery.find.buildings import building_pixels, find_buildings, find_pieces
from imagery.find.joining import Buildings, join_shards
from imagery.find.outlines import straighten
from imagery.find.votes import decide
from model.buildings import buildings_of, grade, separate
from tests.imagery.geotiff import values, write_tif
from tests.imagery.predicted import write_classes


def assert_equal(one: Buildings, other: Buildings) -> None:
    np.testing.assert_array_equal(one.votes, other.votes)
    np.testing.assert_array_equal(one.partly, other.partly)
    assert len(one.outlines) == len(other.outlines)
    assert shapely.equals_exact(one.outlines[:], other.outlines[:], 0).all()


@pytest.fixture(scope="module")
def damage() -> Any:
    """Buildings of all sizes and shapes, with holes, of mixed grades, and a part without data."""
    rng = np.random.default_rng(5)
    field = cv2.GaussianBlur(rng.normal(size=(600, 700)).astype(np.float32), (0, 0), 5.0)
    grades = cv2.GaussianBlur(np.asarray(rng.normal(size=field.shape)), (0, 0), 12)
    found = np.where(field > 0.04, 1 + (grades > 0) * 2, 0)
    found[240:250, 20:690] = 2  # longer than any block
    found[100:140, 300:] = 255
    found[400:] *= rng.random((200, 700)) < 0.62  # crumbs that hang together in all ways
    return found.astype(np.uint8)


@pytest.fixture(scope="module")
def grades(damage: Any) -> Any:
    shares = np.random.default_rng(6).dirichlet([1, 1, 1, 1], damage.shape).transpose(2, 0, 1)
    return np.rint(255 * shares).astype(np.uint8)


@pytest.fixture(scope="module")
def classes(damage: Any, grades: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("scene") / "classes.tif", damage, grades=grades)


@pytest.mark.parametrize("side", [32, 100, 256, 512])
def test_buildings_are_the_same_in_blocks_of_any_size(side: int, classes: Path) -> None:
    assert_equal(find_buildings(classes, side), find_buildings(classes, 1024))


def union_of_rows(mask: Any) -> shapely.Geometry:
    """The outline of a building by its definition: the union of its rows of pixels."""
    changes = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (rows, starts), (_, ends) = np.nonzero(changes == 1), np.nonzero(changes == -1)
    return shapely.union_all(shapely.box(starts, rows, ends, rows + 1))


def test_buildings_are_those_of_the_whole_map(damage: Any, grades: Any, classes: Path) -> None:
    """The other way: all of it at once, in floating point."""
    localization = ((damage > 0) & (damage < 255)).astype(np.uint8)
    labels = separate(localization)
    expected = buildings_of(grade(labels, grades.astype(np.float64)))
    votes, stored, partly, _ = find_buildings(classes, 128)
    outlines = stored[:]
    found = decide(votes)
    assert len(expected) == len(outlines) > 200
    assert found["grade"].tolist() == [building.grade for building in expected]
    assert votes[:, 1].sum(1).tolist() == [building.area for building in expected]
    assert shapely.area(outlines).tolist() == [building.area for building in expected]
    np.testing.assert_allclose(found["confidence"], [building.confidence / 255 for building in expected], atol=6e-5)
    np.testing.assert_allclose(found.filter(like="share_"), [building.shares for building in expected], atol=6e-5)
    beside = cv2.dilate((damage == 255).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    ending = np.unique(labels[(beside > 0) & (labels > 0)])
    assert (np.flatnonzero(partly) + 1).tolist() == ending.tolist() and 0 < len(ending) < 50
    rows = [union_of_rows(labels == number) for number in range(1, len(outlines) + 1)]
    assert shapely.equals(outlines, np.array(rows)).all()
    assert shapely.is_valid(outlines).all()
    assert shapely.get_num_interior_rings(outlines).sum() > 20


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.4, 0.6, 0.8])
)
def test_crumbs_of_any_kind_hang_together(height: int, width: int, side: int, seed: int, density: float) -> None:
    from tempfile import TemporaryDirectory

    rng = np.random.default_rng(seed)
    damage = rng.integers(1, 5, (height, width)) * (rng.random((height, width)) < density)
    with TemporaryDirectory() as folder:
        path = write_classes(Path(folder, "classes.tif"), damage)
        found = find_buildings(path, side)
        assert_equal(found, find_buildings(path, 16))
    assert shapely.is_valid(found.outlines[:]).all()
    assert shapely.area(found.outlines[:]).sum() == (damage > 0).sum()


# Parts of 600 x 700 pixels as column, row, width and height, also beside two others.
DIVISIONS = [
    [(0, 0, 700, 600)],
    [(0, 0, 700, 96), (0, 96, 700, 504)],
    [(0, 0, 320, 600), (320, 0, 380, 256), (320, 256, 160, 344), (480, 256, 220, 160), (480, 416, 220, 184)],
]


@pytest.mark.parametrize("division", DIVISIONS, ids=len)
@pytest.mark.parametrize("backwards", [False, True])
def test_buildings_of_parts_are_joined_to_those_of_the_whole(
    division: list[tuple[int, ...]], backwards: bool, classes: Path, tmp_path: Path
) -> None:
    expected, width = find_buildings(classes), values(classes).shape[2]
    shards, pixels = [], []
    for number, (column, row, *size) in enumerate(division[::-1] if backwards else division):
        window = Window(column, row, *size)
        part = write_tif(tmp_path / f"{number}.tif", values(classes)[:, *window.toslices()])
        pieces = find_pieces(part, 32, (column, row), width)
        shards.append((window, pieces))
        pixels.append([own for own in building_pixels(part, pieces.buildings, 32, (column, row))])
    found = join_shards(shards, tmp_path)
    assert_equal(found, expected)
    owners, known = np.full(values(classes).shape[1:], -1), 0
    for (_, pieces), own in zip(shards, pixels, strict=True):
        for block in own:
            owners[block.rows, block.columns] = found.parts[known + block.buildings[block.owners]]
        known += len(pieces.first)
    (whole,) = building_pixels(classes, expected)
    assert (owners >= 0).sum() == len(whole.rows)
    assert (owners[whole.rows, whole.columns] == whole.buildings[whole.owners]).all()


def test_a_ring_around_blocks_is_one_building_with_a_hole(tmp_path: Path) -> None:
    damage = np.zeros((100, 100), np.uint8)
    damage[10:90, 10:90] = 4
    damage[20:80, 20:80] = 0
    damage[45:55, 45:55] = 1  # and one in its yard
    found = find_buildings(write_classes(tmp_path / "classes.tif", damage), 30)
    yard = shapely.box(20, 20, 80, 80)
    expected = [shapely.box(10, 10, 90, 90).difference(yard), shapely.box(45, 45, 55, 55)]
    assert shapely.equals(found.outlines[:], np.array(expected)).all()
    assert decide(found.votes)["grade"].tolist() == [4, 1]


def test_touching_corners_and_missing_data_part_buildings(tmp_path: Path) -> None:
    damage = np.zeros((8, 8), np.uint8)
    damage[:2, :2] = damage[2:4, 2:4] = 1
    damage[6, :] = (3, 3, 255, 255, 3, 3, 3, 3)
    found = find_buildings(write_classes(tmp_path / "classes.tif", damage), 2)
    assert shapely.area(found.outlines[:]).tolist() == [4, 4, 2, 4]


def test_an_empty_scene_has_no_buildings(tmp_path: Path) -> None:
    found = find_buildings(write_classes(tmp_path / "classes.tif", np.zeros((10, 12))))
    assert (found.votes.shape, len(found.outlines), len(decide(found.votes))) == ((0, 2, 4), 0, 0)
    assert len(straighten(found.outlines, tmp_path)) == 0


def test_the_lower_of_two_equal_grades_wins_and_nothing_seen_is_no_grade() -> None:
    votes = np.zeros((3, 2, 4), np.int64)
    votes[0] = [[10, 255, 255, 0], [0, 1, 1, 0]]
    votes[1] = [[0, 0, 0, 510], [0, 0, 0, 2]]
    found = decide(votes)
    assert found["damage"].tolist() == ["minor-damage", "destroyed", "not-visible"]
    assert found["grade"].isna().tolist() == [False, False, True]
    assert found["confidence"].tolist()[:2] == [0.5, 1.0]
    assert found["share_major_damage"].tolist()[:2] == [0.5, 0.0]
    assert found.loc[2].drop("damage").isna().all()


def pixels_of(*polygons: shapely.Geometry) -> Any:
    """Outlines along pixel borders of what the polygons cover."""
    x, y = np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5)
    found = []
    for polygon in polygons:
        rows, columns = np.nonzero(shapely.contains_xy(polygon, x, y))
        found.append(
            shapely.normalize(shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1)).simplify(0))
        )
    return np.array(found, dtype=object)


@pytest.mark.parametrize("angle", [0, 7, 30, 45, 71])
@pytest.mark.parametrize("size", [(16, 12), (40, 18), (60, 60)])
def test_a_turned_rectangle_becomes_a_rectangle(angle: float, size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    truth = shapely.affinity.rotate(
        shapely.box(60 - width / 2, 60 - height / 2, 60 + width / 2, 60 + height / 2), angle
    )
    outlines = pixels_of(truth)
    (found,) = straighten(outlines, tmp_path)[:]
    assert len(found.exterior.coords) == 5
    assert found.area == pytest.approx(outlines[0].area, rel=1e-4)
    assert found.intersection(truth).area / found.union(truth).area > 0.9


def test_other_shapes_lose_their_steps_and_keep_area_and_holes(tmp_path: Path) -> None:
    shape = shapely.box(20, 20, 80, 40).union(shapely.box(20, 20, 40, 90))
    yard = shapely.box(20, 20, 90, 90).difference(shapely.box(45, 45, 70, 60))
    for angle in (0, 12, 33, 60):
        for polygon, corners in ((shape, 12), (yard, 16)):
            outlines = pixels_of(shapely.affinity.rotate(polygon, angle, origin=(60, 60)))
            (straight,) = straighten(outlines, tmp_path)[:]
            assert straight.is_valid
            assert straight.area == pytest.approx(outlines[0].area, rel=0.04)
            assert shapely.get_num_interior_rings(straight) == shapely.get_num_interior_rings(polygon)
            assert shapely.hausdorff_distance(straight, outlines[0]) < 1.6
            assert shapely.get_num_coordinates(straight) <= corners


def test_nothing_vanishes_and_nothing_overlaps(classes: Path, tmp_path: Path) -> None:
    outlines = find_buildings(classes).outlines[:]
    straight = straighten(outlines, tmp_path)[:]
    assert len(straight) == len(outlines)
    assert shapely.is_valid(straight).all()
    np.testing.assert_allclose(shapely.area(straight), shapely.area(outlines), rtol=0.0401)
    one, other = shapely.STRtree(straight).query(straight, predicate="intersects")
    overlap = shapely.area(shapely.intersection(straight[one], straight[other]))
    assert overlap[one != other].max(initial=0) == 0
    assert (shapely.get_num_coordinates(straight) < shapely.get_num_coordinates(outlines)).sum() > 50


@pytest.mark.parametrize("rows", [7, 64])
def test_outlines_are_straightened_alike_however_many_are_in_memory(rows: int, classes: Path, tmp_path: Path) -> None:
    """Also where they come in no order."""
    outlines = find_buildings(classes).outlines[:]
    whole = straighten(outlines, tmp_path)
    assert whole.kept.sum() > 5  # which would overlap others
    for order in (np.arange(len(outlines)), np.random.default_rng(1).permutation(len(outlines))):
        found = straighten(outlines[order], tmp_path, rows)
        assert found.kept.tolist() == whole.kept[order].tolist()
        assert shapely.equals_exact(found[:], whole[order], 0).all()

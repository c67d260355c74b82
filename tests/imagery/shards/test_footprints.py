"""Known buildings in shards are graded as on one machine, to the last byte, also where their borders cut them."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from base.grades import KEYS
from imagery.find.footprints import grade_footprints
from imagery.find.votes import CERTAIN
from imagery.give.outputs import FILES
from imagery.read.vector_files import VectorError
from imagery.read.vectors import read_footprints
from imagery.settings import Windows
from imagery.shards.plan import LeftOut, Plan, PlanError
from imagery.shards.stored import read_shard
from tests.conftest import tree
from tests.imagery.geotiff import UTM, moved, values, write_tif
from tests.imagery.shards.making import (
    SIDE,
    Event,
    merge,
    on_one_machine,
    plan_of,
    predict,
    small_blocks,
)

__all__ = ["small_blocks"]
WIDTH, HEIGHT = 224, 160  # pixels of the made event


def on_the_ground(polygon: Any) -> Any:
    """A polygon in pixels, where it lies."""
    return shapely.transform(polygon, lambda points: points * (0.5, -0.5) + (500_000, 4_000_000))


def turned(corner: Any, size: Any, angle: float) -> Any:
    return shapely.affinity.rotate(shapely.box(*corner, *(corner + size)), angle)


def polygons() -> list[Any]:
    """In pixels: anywhere and of any size; and at the borders of blocks, some with no pixel's centre or on one side of
    the border alone; what lies over all, beyond the images, or is no plain polygon.
    """
    random = np.random.default_rng(7)
    anywhere = [
        turned(random.uniform((-5, -5), (WIDTH, HEIGHT)), random.uniform(0.2, side, 2), random.uniform(0, 90))
        for side in (2, 12, 40) for _ in range(40)
    ]  # fmt: skip
    at_borders = [
        shapely.box(x - before, y - before, x + behind, y + behind)
        for x, y in ((SIDE, 20.5), (2 * SIDE, 2 * SIDE), (100.5, SIDE), (SIDE, SIDE))
        for before, behind in ((0.3, 0.3), (0.7, 0.2), (0.2, 0.7), (0.45, 0.45), (0.0, 0.4), (0.4, 0.0), (9, 9))
    ]  # fmt: skip
    thin = [shapely.box(3.6, 10.6, 210.2, 10.9), shapely.box(SIDE - 0.1, 3, SIDE + 0.1, 150)]
    bow = shapely.Polygon([(50, 50), (90, 90), (90, 50), (50, 90)])
    odd = [shapely.box(-50, -50, 900, 900), shapely.box(500, 20, 520, 40), bow, shapely.Point(3, 3)]
    parts = shapely.MultiPolygon([shapely.box(2, 2, 9, 9), shapely.box(200, 140, 215, 155)])
    return [*anywhere, *at_borders, *thin, *odd, parts]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("footprints") / "buildings.geojson"
    shapes = [on_the_ground(polygon) for polygon in polygons()]
    columns = {"osm_id": range(1000, 1000 + len(shapes)), "damage": ["before"] * len(shapes)}
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=UTM).to_crs("EPSG:4326").to_file(path)
    return path


@pytest.fixture(scope="module")
def whole(event: Event, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of one machine."""
    out = tmp_path_factory.mktemp("whole") / "out"
    summary = on_one_machine(event, out, footprints=read_footprints(file), align="off")
    assert len(summary.notes) == 2 and 0 < summary.total["buildings_not_visible"] < len(summary)
    return out


@pytest.mark.parametrize("count", [1, 2, 5])
def test_footprints_in_shards_make_the_same_map_to_the_last_byte(
    count: int, event: Event, file: Path, whole: Path, tmp_path: Path
) -> None:
    plan = plan_of(event, count, footprints=(str(file), str(file)), align="off")
    folders = [predict(plan, number, tmp_path / "shards") for number in reversed(range(count))]
    merge(plan, folders, tmp_path / "out")
    made, expected = tree(tmp_path / "out"), tree(whole)
    assert set(made) == set(expected) == set(FILES)
    summaries = [json.loads(own.pop("summary.json")) for own in (made, expected)]
    assert summaries[0]["scene"].pop("plan") == {"sha256": plan.digest, "shards": count}
    assert summaries[0] == summaries[1]
    assert {name for name in expected if made[name] != expected[name]} <= {"buildings.gpkg"}  # which has the time in it


def test_a_part_without_data_says_so_of_its_footprints(event: Event, file: Path, tmp_path: Path) -> None:
    """Post shows nothing below row 80, where whole shards have no data, and so no features."""
    shown = write_tif(tmp_path / "shown.tif", values(event.post[0]), transform=moved(0.3, 0.6), nodata=0)
    nothing = np.zeros((3, 80, WIDTH), np.uint16)
    post = [shown, write_tif(tmp_path / "nothing.tif", nothing, transform=moved(0.3, 80.6), nodata=0)]
    part = Event(event.pre, post)
    settings: dict[str, Any] = {"align": "off", "windows": Windows(tile=64, overlap=0, workers=1)}
    on_one_machine(part, tmp_path / "whole", footprints=read_footprints(file), **settings)
    plan = plan_of(part, 6, footprints=(str(file), str(file)), **settings)
    folders = [predict(plan, number, tmp_path / "shards") for number in range(6)]
    assert sum(not read_shard(folder, plan, number).scales for number, folder in enumerate(folders)) > 1
    merge(plan, folders, tmp_path / "out")
    for name in ("buildings.geojson", "features.parquet", "judge.json", "damage.tif"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_shards_without_a_footprint_add_nothing(event: Event, tmp_path: Path) -> None:
    path = tmp_path / "one.geojson"
    shapes = [on_the_ground(shapely.box(5, 5, 20, 15))]
    geopandas.GeoDataFrame(geometry=shapes, crs=UTM).to_crs("EPSG:4326").to_file(path)
    on_one_machine(event, tmp_path / "whole", footprints=read_footprints(path), align="off")
    plan = plan_of(event, 4, footprints=(str(path), str(path)), align="off")
    merge(plan, [predict(plan, number, tmp_path / "shards") for number in range(4)], tmp_path / "out")
    for name in ("buildings.geojson", "features.parquet", "judge.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_without_features_the_map_is_the_same_but_for_these(
    event: Event, file: Path, whole: Path, tmp_path: Path
) -> None:
    plan = plan_of(event, 3, footprints=(str(file), str(file)), align="off", features=False)
    merge(plan, [predict(plan, number, tmp_path / "shards") for number in range(3)], tmp_path / "out")
    for name in ("buildings.geojson", "damage.tif", "summary.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_where_a_shard_is_missing_nothing_has_data(event: Event, file: Path, tmp_path: Path) -> None:
    """As one machine grades the classes that are there."""
    plan = plan_of(event, 4, footprints=(str(file), str(file)), align="off")
    folders = [predict(plan, number, tmp_path / "shards") for number in (0, 2, 3)]
    merge(plan, folders, tmp_path / "out", missing=[LeftOut(what="shard-00001", why="it failed.")])
    expected = grade_footprints(read_footprints(file), tmp_path / ".merge" / "classes.vrt")
    found = pq.read_table(tmp_path / "out" / "features.parquet").to_pandas()
    sums = found[[f"probability_{key}" for key in KEYS]].to_numpy()
    np.testing.assert_allclose(sums, expected.votes[:, 0] / CERTAIN)
    assert (found["pixels"] == expected.votes[:, 1].sum(1)).all()
    assert (found["partly_without_data"] == expected.partly).all()
    assert 5 < expected.partly.sum() < len(found)


def changed(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"before", b"behind", 1))


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("harm", "said"), [(changed, "has changed since the plan was made: found SHA-256"), (gone, "cannot be read")]
)
def test_a_file_that_is_another_one_than_the_plans_is_refused(
    harm: Callable[[Path], None], said: str, event: Event, file: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copy(file, tmp_path / "own.geojson"))
    plan = plan_of(event, 1, footprints=("own.geojson", str(own)), align="off", features=False)
    folder = predict(plan, 0, tmp_path / "shards")
    harm(own)
    for work in (lambda: predict(plan, 0, tmp_path / "more"), lambda: merge(plan, [folder], tmp_path / "out")):
        with pytest.raises(PlanError, match=rf"^{own}: {said}.*Bring the file back, or make the plan again\.$"):
            work()
    assert not (tmp_path / "more").exists() and not (tmp_path / "out").exists()


def test_all_files_of_a_shapefile_belong_to_it(event: Event, file: Path, tmp_path: Path) -> None:
    shape = tmp_path / "own.shp"
    geopandas.read_file(file)[:100].to_file(shape)

    def found() -> str:
        planned = plan_of(event, 1, footprints=("own", str(shape)), align="off").footprints
        assert planned is not None
        return planned.sha256

    before = found()
    (tmp_path / "own.qml").write_text("a style")
    assert found() == before
    table = bytearray((tmp_path / "own.dbf").read_bytes())
    table[-3] ^= 1
    (tmp_path / "own.dbf").write_bytes(table)
    assert found() != before


@pytest.mark.parametrize(
    ("shapes", "error", "said"),
    [
        ([shapely.box(500, 500, 510, 510)], VectorError, "lies outside the imagery"),
        ([shapely.Point(5, 5)], VectorError, r"holds no polygon \(odd of Point\)"),
        (None, VectorError, "cannot be read"),
    ],
)
def test_what_cannot_be_graded_makes_no_plan(
    shapes: Sequence[Any] | None, error: type[Exception], said: str, event: Event, tmp_path: Path
) -> None:
    path = tmp_path / "odd.geojson"
    if shapes is not None:
        geopandas.GeoDataFrame(geometry=[*map(on_the_ground, shapes)], crs=UTM).to_crs("EPSG:4326").to_file(path)
    with pytest.raises(error, match=rf"^{path}: {said}"):
        plan_of(event, 1, footprints=("odd", str(path)), align="off")


def test_notes_name_the_file_as_it_was_given(event: Event, file: Path, tmp_path: Path) -> None:
    plan: Plan = plan_of(event, 1, footprints=("s3://given/buildings.geojson", str(file)), align="off", features=False)
    summary, _ = merge(plan, [predict(plan, 0, tmp_path)], tmp_path / "out")
    assert [note.partition(": ")[0] for note in summary.notes] == ["s3://given/buildings.geojson"] * 2

"""The Parquet file of features, from made tiles: the same from blocks of any size, of found and given buildings."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from imagery.find.buildings import building_pixels, find_buildings
from imagery.find.features import mean_features
from imagery.find.pixels import Pixels
from imagery.give.features import Kept
from imagery.give.writing import OutputError
from imagery.predict.tile_features import TileFeatures
from imagery.settings import Windows
from model.buildings import outlines, separate
from tests.imagery.geotiff import ORIGIN, UTM
from tests.imagery.predict.test_tile_features import features_of_all_pixels, write_tiles
from tests.imagery.predicted import black, give_out, write_classes
from tests.limits import files_up_to

SIZE = (300, 400)
WINDOWS = Windows(tile=128, overlap=32)


@pytest.fixture(scope="module")
def damage() -> Any:
    """Buildings over borders of tiles and blocks, at the edge, beside what has no data, and a ring around another."""
    damage = np.zeros(SIZE, np.uint8)
    for top, left, height, width, grade in (
        (5, 5, 30, 380, 1), (50, 100, 60, 50, 2), (50, 0, 20, 30, 3), (140, 140, 100, 100, 4), (200, 300, 1, 1, 1),
        (250, 30, 20, 40, 2), (120, 390, 9, 10, 1),
    ):  # fmt: skip
        damage[top : top + height, left : left + width] = grade
    damage[150:230, 150:230] = 0
    damage[180:200, 180:200] = 2
    damage[270:, 20:50] = 255
    return damage


@pytest.fixture(scope="module")
def grades() -> Any:
    shares = np.random.default_rng(6).dirichlet([1, 1, 1, 1], SIZE).transpose(2, 0, 1)
    return np.rint(255 * shares).astype(np.uint8)


@pytest.fixture(scope="module")
def classes(damage: Any, grades: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("scene") / "classes.tif", damage, grades=grades)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Any]:
    """Features as they are kept, and those of each pixel, [H, W, C]."""
    folder = tmp_path_factory.mktemp("tiles")
    maps = write_tiles(folder, SIZE, WINDOWS)
    return Kept(TileFeatures(folder, SIZE[1], SIZE[0], WINDOWS), "a hash", "a folder", black), features_of_all_pixels(
        maps, SIZE, WINDOWS
    )


@pytest.fixture(scope="module")
def out(classes: Path, pixels: tuple[Kept, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "out"
    give_out(classes, folder, kept=pixels[0])
    return folder


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "features.parquet")


def features_of(rows: pd.DataFrame) -> Any:
    """[N, C]."""
    return np.stack(rows["features"].tolist())


def test_a_row_is_what_lies_in_the_pixels_of_a_building(
    out: Path, damage: Any, grades: Any, pixels: tuple[Kept, Any]
) -> None:
    labels = separate(((damage > 0) & (damage < 255)).astype(np.uint8))
    rows, buildings = read(out), geopandas.read_file(out / "buildings.geojson")
    assert rows["id"].tolist() == buildings["id"].tolist() == list(range(1, 9))
    for name in ("area_m2", "confidence"):
        assert rows[name].tolist() == buildings[name].tolist()
    shares = rows.filter(like="probability_").to_numpy()
    for place in range(8):
        inside = labels == place + 1
        assert rows["pixels"][place] == inside.sum()
        np.testing.assert_allclose(shares[place], grades[:, inside].sum(1) / 255, rtol=1e-12)
        np.testing.assert_allclose(rows["features"][place], pixels[1][inside].mean(0), rtol=2**-10)
    assert rows.columns[3] == "probability_major_damage"
    assert rows["at_edge"].tolist() == [False, True, False, True, False, False, False, False]
    assert rows["partly_without_data"].tolist() == [False] * 7 + [True]


def test_a_block_that_names_a_building_without_pixels_of_it_leaves_its_features(pixels: tuple[Kept, Any]) -> None:
    """As of a footprint that ends at the border of two blocks, by a hair beyond it."""
    rows, columns = (part.ravel() for part in np.mgrid[10:20, 30:40])
    none = np.zeros(0, np.int64)
    whole, empty = Pixels(np.array([0]), np.zeros_like(rows), rows, columns), Pixels(np.array([0]), none, none, none)
    for blocks in ([whole, empty], [empty, whole]):
        found = [own for _, part in mean_features(blocks, np.array([100]), pixels[0].tiles) for own in part]
        assert len(found) == 1
        np.testing.assert_allclose(found[0], pixels[1][10:20, 30:40].mean((0, 1)), rtol=2**-10)


def test_the_file_says_whose_it_is_and_what_its_numbers_are(out: Path) -> None:
    schema = pq.read_schema(out / "features.parquet")
    facts = json.loads(pq.read_metadata(out / "features.parquet").metadata[b"dual-hrnet"])
    assert facts == {
        "model": "a hash",
        "location": "a folder",
        "map": {
            "file": "buildings.geojson",
            "sha256": hashlib.sha256((out / "buildings.geojson").read_bytes()).hexdigest(),
        },
        "features": [{"stride": 4, "channels": 3}, {"stride": 8, "channels": 5}, {"stride": 32, "channels": 2}],
    }
    assert str(schema.field("features").type) == "fixed_size_list<element: halffloat>[10]"


@pytest.mark.parametrize("side", [32, 100, 128, 512])
def test_features_are_the_same_in_blocks_of_any_size(
    side: int, out: Path, classes: Path, pixels: tuple[Kept, Any]
) -> None:
    found = find_buildings(classes, side)
    seen = mean_features(building_pixels(classes, found, side), found.votes[:, 1].sum(1), pixels[0].tiles)
    rows = {number: own for numbers, part in seen for number, own in zip(numbers.tolist(), part, strict=True)}
    np.testing.assert_array_equal(np.stack([rows[number] for number in range(8)]), features_of(read(out)))


def on_the_ground(polygons: list[Any]) -> Any:
    return shapely.transform(np.array(polygons), lambda points: points @ np.diag([0.5, -0.5]) + (ORIGIN.c, ORIGIN.f))


def test_footprints_along_the_pixels_of_buildings_have_their_numbers(
    out: Path, damage: Any, classes: Path, pixels: tuple[Kept, Any], tmp_path: Path
) -> None:
    """In any order, one of them twice; a tiny one has the pixel that it touches, one outside has none."""
    known = dict(outlines(separate(((damage > 0) & (damage < 255)).astype(np.uint8))))
    order = [8, 3, 1, 3, 2, 4, 5, 6, 7]
    polygons = [known[number] for number in order]
    polygons += [shapely.box(-50, 0, -40, 9), shapely.box(300.2, 200.2, 300.3, 200.3), shapely.box(30, 285, 60, 295)]
    names = [f"way/{number}" for number in range(12)]
    frame = geopandas.GeoDataFrame({"ID": names}, geometry=on_the_ground(polygons), crs=UTM)
    frame.to_file(tmp_path / "osm.gpkg")
    give_out(classes, tmp_path / "out", footprints=tmp_path / "osm.gpkg", kept=pixels[0])
    rows, found = read(tmp_path / "out"), read(out)
    assert rows["id"].tolist() == names
    numbers = [name for name in found.columns if name.startswith("probability_")] + ["pixels", "at_edge"]
    expected = found.iloc[[number - 1 for number in order]].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[numbers][:9], expected[numbers])
    np.testing.assert_array_equal(features_of(rows[:9]), features_of(expected))
    assert rows["pixels"][9] == 0 and np.isnan(rows["features"][9]).all() and np.isnan(rows["confidence"][9])
    assert rows["at_edge"][9] and not rows["at_edge"][10]
    np.testing.assert_array_equal(rows["features"][10], found["features"][labelled(damage, 200, 300)])
    assert rows["partly_without_data"].tolist() == [False] * 11 + [True] and rows["pixels"][11] == 100


def labelled(damage: Any, row: int, column: int) -> int:
    return int(separate(((damage > 0) & (damage < 255)).astype(np.uint8))[row, column]) - 1


def test_many_buildings_go_through_groups_of_rows(
    out: Path, classes: Path, pixels: tuple[Kept, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagery.give.features.ROWS", 3)
    give_out(classes, tmp_path / "out", kept=pixels[0])
    assert pq.read_metadata(tmp_path / "out" / "features.parquet").num_row_groups == 3
    pd.testing.assert_frame_equal(read(tmp_path / "out"), read(out))


def test_a_map_without_buildings_and_a_network_without_features_have_the_file(
    classes: Path, pixels: tuple[Kept, Any], tmp_path: Path
) -> None:
    empty = write_classes(tmp_path / "empty.tif", np.zeros(SIZE, np.uint8))
    give_out(empty, tmp_path / "none", kept=pixels[0])
    assert len(read(tmp_path / "none")) == 0 and "features" in read(tmp_path / "none")
    write_tiles(tmp_path / "tiles", SIZE, WINDOWS, channels=())
    kept = Kept(TileFeatures(tmp_path / "tiles", SIZE[1], SIZE[0], WINDOWS), "a hash", "a folder", black)
    give_out(classes, tmp_path / "plain", kept=kept)
    assert "features" not in read(tmp_path / "plain") and read(tmp_path / "plain")["pixels"].sum() > 0


def test_a_full_disk_is_one_line(
    classes: Path, pixels: tuple[Kept, Any], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (out / "features.parquet").stat().st_size

    @contextmanager
    def limited(*given: Any) -> Iterator[Callable[[str], None]]:
        with written(*given) as complete:

            def within(map_hash: str) -> None:
                with files_up_to(size - 4):
                    complete(map_hash)

            yield within

    from imagery.give.features import features_written as written

    monkeypatch.setattr("imagery.give.outputs.features_written", limited)
    with pytest.raises(OutputError, match=r"out: cannot be written \(.*\)\. Make room on the disk"):
        give_out(classes, tmp_path / "out", kept=pixels[0])
    assert list(tmp_path.iterdir()) == []

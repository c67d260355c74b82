"""Maps of given footprints, whose columns have the names of ours and some of whose buildings nobody can see."""

import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from imagery.assessing.assessment import assess_map, sit
from imagery.assessing.judged_map import JudgedMap, MapError, read_map
from imagery.assessing.outputs import write_assessment
from imagery.give.features import Kept
from imagery.give.names import hash_of
from imagery.predict.tile_features import TileFeatures
from imagery.sampling.judged import Judgement
from imagery.settings import Windows
from tests.imagery.geotiff import ORIGIN, UTM
from tests.imagery.predict.test_tile_features import write_tiles
from tests.imagery.predicted import black, draw, give_out, write_classes

SIZE, WINDOWS = (128, 256), Windows(tile=128, overlap=32)
SEEN = 28


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 footprints in the images, and before these two that lie beside them."""
    root = tmp_path_factory.mktemp("footprints")
    corners = [(400 + 20 * place, 10) for place in range(2)]
    corners += [(16 * column + 4, 30 * row + 4) for row in range(4) for column in range(7)]
    ground = shapely.transform(
        np.array([shapely.box(x, y, x + 8, y + 8) for x, y in corners]),
        lambda points: points @ np.diag([0.5, -0.5]) + (ORIGIN.c, ORIGIN.f),
    )
    grades = [1 + place % 4 for place in range(len(corners))]
    damage = draw([(shape, grade) for shape, grade in zip(ground, grades, strict=True)], SIZE)
    given = {"id": [f"way/{place}" for place in range(30)], "grade": ["A"] * 30, "Judged": [None, 7] * 15}
    geopandas.GeoDataFrame(given, geometry=ground, crs=UTM).to_file(root / "osm.gpkg")
    write_tiles(root / "tiles", SIZE, WINDOWS)
    kept = Kept(TileFeatures(root / "tiles", SIZE[1], SIZE[0], WINDOWS), "a network", "a folder", black)
    classes = write_classes(root / "classes.tif", damage)
    give_out(classes, root / "map", footprints=root / "osm.gpkg", kept=kept)
    return root / "map"


@pytest.fixture(scope="module")
def given(folder: Path) -> JudgedMap:
    return read_map(folder)


def test_a_map_of_footprints_is_read_as_it_was_written(given: JudgedMap) -> None:
    assert given.ids == [f"way/{place}" for place in range(30)]
    assert given.grades.tolist() == [0, 0, *(1 + place % 4 for place in range(2, 30))]
    assert given.table.columns["grade"] == "damage_grade"
    assert sorted(given.draw.order.tolist()) == list(range(2, 30))
    np.testing.assert_allclose(given.evidence.probabilities[2:].sum(1), 1)
    assert given.evidence.features is not None and given.evidence.features.shape == (30, 10)
    assert not given.evidence.features[:2].any()


def test_given_columns_stay_and_what_nobody_sees_stays_not_visible(given: JudgedMap, tmp_path: Path) -> None:
    judgements = [
        Judgement(4, int(row), rank, int(stratum))
        for rank, (row, stratum) in enumerate(zip(given.draw.order[:20], given.draw.strata, strict=False))
    ]
    found = assess_map(given, sit({"mine": [*judgements, Judgement(3, 0, None, None)]}))
    write_assessment(tmp_path / "out", given, found, {})
    frame: Any = geopandas.read_file(tmp_path / "out" / "buildings.geojson")
    assert frame["grade"].tolist() == ["A"] * 30
    assert frame["Judged"].tolist()[1::2] == [7] * 15
    assert frame["damage"].tolist()[:2] == ["not-visible"] * 2
    assert frame["damage_grade"][:2].isna().all() and frame["base_grade"][:2].isna().all()
    rows = given.draw.order[:20]
    assert (frame["damage_grade"][rows] == 4).all()
    assert (frame["damage_judged"][rows] == "destroyed").all()
    assert frame["damage_judged"][0] == "major damage"
    assert found.estimates.buildings == SEEN


def test_a_table_that_lost_columns_is_one_line(folder: Path, tmp_path: Path) -> None:
    """As another version may have written it: the files still belong together."""
    out = tmp_path / "map"
    shutil.copytree(folder, out)
    text = (out / "buildings.geojson").read_text(encoding="utf-8").replace("share_destroyed", "colour")
    (out / "buildings.geojson").write_text(text, encoding="utf-8")
    old, new = (hash_of(path / "buildings.geojson") for path in (folder, out))
    order = (out / "judge.json").read_text(encoding="utf-8").replace(old, new)
    (out / "judge.json").write_text(order, encoding="utf-8")
    rows = pq.read_table(out / "features.parquet")
    own = pq.read_metadata(out / "features.parquet").metadata
    facts = {key: value.replace(old.encode(), new.encode()) for key, value in own.items()}
    pq.write_table(rows.replace_schema_metadata(facts), out / "features.parquet")
    with pytest.raises(MapError, match=r"buildings\.geojson: ends with the columns .*, colour, expected grade, damage"):
        read_map(out)

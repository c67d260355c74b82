"""What people said of a map's buildings: by its page, and in a GeoPackage edited as QGIS edits it."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from components import assess
from imagery.labelling.classes import Labelled, read_labelled
from imagery.sampling.judged import JudgementError
from tests.imagery.assessing import maps
from tests.imagery.labelling.judged_maps import Made, edit, houses, make

GRADES = [1, 1, 2, 3, 4, 4, 1, 2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    ground = houses(60, (400, 500))
    apart = [n for n in range(60) if not any(ground[n].intersects(other) for other in np.delete(ground, n))]
    chosen = ground[apart[: len(GRADES)]]
    assert len(chosen) == len(GRADES)
    return make(tmp_path_factory.mktemp("made"), chosen, GRADES, (400, 500))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> maps.Made:
    return maps.make_map(tmp_path_factory.mktemp("judged"), sharp=1, telling=1)


def said(labelled: Labelled) -> dict[int, int]:
    """The judged rows with their classes."""
    return {row: int(labelled.classes[row]) for row in np.flatnonzero(labelled.judged).tolist()}


def test_judgements_of_the_page_are_classes_and_everybody_else_is_unclassified(
    judged: maps.Made, tmp_path: Path
) -> None:
    mine = maps.write_judgements(tmp_path / "mine.geojson", judged, range(30))
    hers = maps.write_judgements(tmp_path / "hers.geojson", judged, range(20, 40), picked=[int(judged.draw.order[200])])
    labelled = read_labelled(judged.folder, [mine, hers], None)
    rows = [*judged.draw.order[:40].tolist(), int(judged.draw.order[200])]
    assert said(labelled) == {row: int(judged.truth[row]) for row in sorted(rows)}
    rest = np.delete(labelled.classes, rows)
    assert set(rest.tolist()) == {255}
    counts = labelled.counts()
    assert (counts["judged"], counts["not_judged"], counts["graded_by_the_map"]) == (41, 259, 0)


def test_with_trust_who_was_not_judged_has_the_maps_grade_where_it_is_sure(judged: maps.Made, tmp_path: Path) -> None:
    mine = maps.write_judgements(tmp_path / "mine.geojson", judged, range(30))
    table = geopandas.read_file(judged.folder / "buildings.geojson")
    labelled = read_labelled(judged.folder, [mine], 0.8)
    for row in range(len(table)):
        if row in judged.draw.order[:30]:
            assert labelled.classes[row] == judged.truth[row]
        else:
            expected = table["grade"][row] if table["confidence"][row] >= 0.8 else 255
            assert labelled.classes[row] == expected
    assert 0 < labelled.counts()["graded_by_the_map"] < 270


def test_grades_that_a_person_changed_are_judgements(made: Made, tmp_path: Path) -> None:
    edit(made, tmp_path / "edited.gpkg", grade={0: 4}, damage={1: "destroyed", 2: "not a building"})
    assert said(read_labelled(made.folder, [tmp_path / "edited.gpkg"], None)) == {0: 4, 1: 4, 2: 0}


def test_the_column_judged_says_it_in_words_or_numbers_also_where_the_map_was_right(made: Made, tmp_path: Path) -> None:
    words = {0: "no damage", 1: "Minor-Damage", 2: "3", 3: "destroyed ", 4: "not a building", 5: "cannot tell", 6: ""}
    edit(made, tmp_path / "edited.gpkg", judged=words, grade={7: 1})
    labelled = read_labelled(made.folder, [tmp_path / "edited.gpkg"], None)
    assert said(labelled) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 0, 5: 255, 7: 1}
    assert labelled.counts() == {
        "judged": 7, "judged_and_graded": 5, "judged_not_a_building": 1, "judged_cannot_tell": 1, "not_judged": 1,
        "graded_by_the_map": 0,
    }  # fmt: skip


def test_outlines_that_were_moved_drawn_or_deleted_are_taken_as_they_are(made: Made, tmp_path: Path) -> None:
    frame = edit(made, tmp_path / "edited.gpkg", judged={0: "destroyed"})
    frame.loc[0, "geometry"] = shapely.affinity.translate(frame.geometry[0], 1e-5, 0)
    new = frame.iloc[[0]].assign(id=None, grade=None, damage=None, judged="minor damage")
    new.geometry = [shapely.box(*frame.geometry[5].bounds)]
    both = pd.concat([frame.drop(index=[3, 4]), new])
    both.to_file(tmp_path / "edited.gpkg", layer="buildings")
    labelled = read_labelled(made.folder, [tmp_path / "edited.gpkg"], None)
    assert labelled.frame.geometry.iloc[0].equals(frame.geometry[0])
    assert labelled.classes.tolist() == [4, 255, 255, 255, 255, 255, 2, 0, 0]
    assert labelled.judged.tolist() == [True, False, False, False, False, False, True, True, True]
    gone = geopandas.read_file(made.gpkg, layer="buildings").geometry[[3, 4]]
    for found, expected in zip(labelled.frame.geometry.iloc[7:], gone, strict=True):
        assert found.symmetric_difference(expected).area < 0.01 * expected.area
    assert [note.partition(": ")[2] for note in labelled.notes] == [
        "2 buildings of the map are not in it, and were taken for no buildings",
        "1 buildings are not of the map, and were taken as a person drew them",
    ]


def test_an_assessed_map_tells_by_its_column_judged_alone(judged: maps.Made, tmp_path: Path) -> None:
    mine = maps.write_judgements(tmp_path / "mine.geojson", judged, range(60))
    assess.main(["--map", str(judged.folder), "--judgements", str(mine), "--out", str(tmp_path / "assessed")])
    package = tmp_path / "assessed" / "buildings.gpkg"
    table = geopandas.read_file(package, layer="buildings")
    assert (table["grade"] != table["base_grade"]).sum() > 5
    from_page, from_package = (read_labelled(judged.folder, [path], None) for path in (mine, package))
    assert said(from_page) == said(from_package)


@pytest.mark.parametrize(
    ("columns", "finding"),
    [
        ({"judged": {1: "collapsed"}}, "found 'collapsed' as what a building is, expected one of not a building (0),"),
        ({"grade": {1: 3}, "damage": {1: "destroyed"}}, "the building '2' has grade 'major damage' and damage 'destr"),
        ({}, "found no building that somebody graded, expected some. Judge buildings"),
        ({"judged": {1: "cannot tell"}}, "found no building that somebody graded"),
    ],
)
def test_what_nobody_can_have_meant_is_one_line(
    columns: dict[str, dict[int, Any]], finding: str, made: Made, tmp_path: Path
) -> None:
    edit(made, tmp_path / "edited.gpkg", **columns)
    with pytest.raises(JudgementError) as caught:
        read_labelled(made.folder, [tmp_path / "edited.gpkg"], None)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'edited.gpkg'}: ") and finding in line and "\n" not in line


def test_a_geopackage_of_something_else_or_beside_other_files_is_one_line(made: Made, tmp_path: Path) -> None:
    other = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    other.to_file(tmp_path / "other.gpkg")
    with pytest.raises(JudgementError, match=r"has no column id, expected the buildings\.gpkg of this map with edits"):
        read_labelled(made.folder, [tmp_path / "other.gpkg"], None)
    with pytest.raises(JudgementError, match="found beside 1 other files, expected one GeoPackage alone"):
        read_labelled(made.folder, [tmp_path / "mine.geojson", tmp_path / "other.gpkg"], None)

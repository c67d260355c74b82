import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagery.sampling.draw import Draw, draw_buildings
from imagery.sampling.form import DrawError, to_plain
from imagery.sampling.judged import CANNOT_TELL, Judgement, JudgementError, prefix
from imagery.sampling.judgements_file import read_counts, read_draw, read_judgements
from imagery.sampling.squares import Counted, draw_squares

GENERATOR = np.random.default_rng(0)
DRAW = draw_buildings(GENERATOR.random(30), GENERATOR.random((30, 2)), 7, "abc")
SQUARES = draw_squares(np.ones((3, 4), bool), 7, "abc")
IDS = [f"way/{number}" for number in range(30)]


def judged(at: int, judgement: object = 4, **more: object) -> dict[str, Any]:
    row = int(DRAW.order[at])
    return {
        "id": IDS[row], "row": row, "judgement": judgement, "seconds": 2.5, "judge": "AB", "rank": at,
        "stratum": int(DRAW.strata[at]), "inclusion": 0.1, "map": "abc", **more,
    }  # fmt: skip


def counted(at: int, missed: object = 2, damaged: object = 1, **more: object) -> dict[str, Any]:
    square = int(SQUARES.draw.order[at])
    return {"square": square, "rank": at, "missed": missed, "damaged": damaged, "judge": "AB", "map": "abc", **more}


def write(path: Path, *properties: object, **more: object) -> Path:
    geometry = {"type": "Polygon", "coordinates": []}
    features = [{"type": "Feature", "geometry": geometry, "properties": own} for own in properties]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "judgements.geojson"


def test_judgements_come_as_the_page_gives_them(path: Path) -> None:
    picked = judged(5, 2, rank=None, stratum=None, judge="")
    write(path, judged(1, CANNOT_TELL), judged(0), picked, name="judgements")
    found = read_judgements(path, DRAW, IDS)
    rows = DRAW.order.tolist()
    assert found == [
        Judgement(CANNOT_TELL, rows[1], 1, int(DRAW.strata[1]), "AB"),
        Judgement(4, rows[0], 0, int(DRAW.strata[0]), "AB"),
        Judgement(2, rows[5], None, None, ""),
    ]
    assert prefix(DRAW, found).grades.tolist() == [4, CANNOT_TELL]


def test_a_map_program_may_have_changed_the_form_of_numbers_and_added_columns(path: Path) -> None:
    draw = Draw(np.array([1, 0]), np.array([0, 0]), 7, "abc")
    own = judged(0, 4.0, id=5, row=1.0, rank=0.0, stratum=0.0, judge=None, remark="roof gone")
    assert read_judgements(write(path, own), draw, [None, 5.0]) == [Judgement(4, 1, 0, 0, "")]
    without = {**own, "id": None, "row": 0, "rank": 1}
    assert read_judgements(write(path, without), draw, [float("nan"), 5]) == [Judgement(4, 0, 1, 0, "")]


def test_squares_stand_among_the_judgements_and_neither_reads_the_other(path: Path) -> None:
    write(path, judged(0), counted(1, None, 0), counted(0, 3.0, judge=None))
    assert read_counts(path, DRAW, SQUARES) == [Counted(1, None, 0, "AB"), Counted(0, 3, 1, "")]
    assert [own.rank for own in read_judgements(path, DRAW, IDS)] == [0]
    assert read_counts(write(path, judged(0)), DRAW, None) == []


@pytest.mark.parametrize(
    ("properties", "finding"),
    [
        ([counted(0, map="def")], "feature 0: found judgements of the map 'def', expected 'abc'. Give the map"),
        ([counted(0, rank=1)], f"at rank 1, expected {SQUARES.draw.order[1]}. It is of another order"),
        ([counted(0, rank=12)], "at rank 12, expected a rank below 12. It is of another order"),
        (
            [counted(0, 1, 2)],
            "found 2 damaged of 1 missed buildings, expected no more than these. Count the square again",
        ),
        ([counted(0, None, 1)], "found 1 damaged of None missed"),
        ([judged(0), counted(0), counted(0)], "feature 2: found the square "),
        ([counted(0, -1)], "features.0.properties.missed: found -1: "),
        ([counted(0, "2")], "features.0.properties.missed: found '2': "),
    ],
)
def test_counts_that_are_not_of_this_map_are_refused_in_one_line(
    properties: list[Any], finding: str, path: Path
) -> None:
    with pytest.raises(JudgementError) as error:
        read_counts(write(path, *properties), DRAW, SQUARES)
    assert str(error.value).startswith(f"{path}: ") and finding in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("properties", "finding"),
    [
        ([judged(0, map="def")], "feature 0: found judgements of the map 'def', expected 'abc'. Give the map"),
        ([judged(0), judged(1, id="way/99")], "feature 1: found the building 'way/99' in row "),
        ([judged(0, row=30)], " in row 30, expected one of 30 rows. Take out"),
        ([judged(0, 5)], "feature 0: found the judgement 5, expected one of 0, 1, 2, 3, 4, 255. Judge it again."),
        ([judged(0, "4")], "features.0.properties.judgement: found '4': input should be a valid integer"),
        ([judged(0, 1.5)], "features.0.properties.judgement: found 1.5: "),
        ([judged(0), judged(0)], " twice, expected each once. Merge two files"),
        ([judged(0, stratum=9)], "stratum 9 at rank 0, expected row "),
        ([judged(0, rank=1)], "at rank 1, expected row "),
        ([judged(0, rank=30)], "at rank 30, expected 0 to 29. It is of another order"),
        ([judged(0, rank=None)], "at rank None, expected 0 to 29. It is of another order"),
        ([judged(0, row=-1)], "features.0.properties.row: found -1: "),
        ([{}], "features.0.properties.map: found {}: field required"),
        ([None], "features.0.properties: found None: "),
        ([], "found no judgement, expected some. Judge buildings"),
    ],
)
def test_what_is_not_of_this_map_is_refused_in_one_line(properties: list[Any], finding: str, path: Path) -> None:
    with pytest.raises(JudgementError) as error:
        read_judgements(write(path, *properties), DRAW, IDS)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and finding in message
    assert "\n" not in message and len(message) < len(str(path)) + 250


@pytest.mark.parametrize("content", ["", "{", "[1]", "7", '"x"', "{}", "[" * 100_000, "\udcff", '{"type": "Feature"}'])
def test_other_files_are_refused(content: str, path: Path) -> None:
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(JudgementError) as error:
        read_judgements(path, DRAW, IDS)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_the_draw_of_a_map_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    path.write_text(json.dumps(to_plain(DRAW)))
    assert to_plain(read_draw(path)) == to_plain(DRAW)
    path.write_text("{}")
    with pytest.raises(DrawError, match=r"judge\.json: is no draw of this version"):
        read_draw(path)
    path.write_text("{")
    with pytest.raises(JudgementError, match=r"judge\.json: is no JSON"):
        read_draw(path)

"""assess with squares in which people looked for what the map missed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components import assess
from imagery.estimating.missed import missed
from imagery.sampling.judgements_file import JUDGE, read_squares
from imagery.sampling.squares import Squares
from tests.conftest import exit_line
from tests.imagery.assessing.maps import Made, make_map, write_judgements

JUDGED = 24  # so few that nothing is learned from features, which takes seconds
COUNTS = ((2, 1), (0, 0), (None, 0), (1, 1), (0, 0))  # missed and damaged, square by square


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_map(tmp_path_factory.mktemp("event"), sharp=3.0, telling=0.5)


@pytest.fixture(scope="module")
def squares(made: Made) -> Squares:
    found = read_squares(made.folder / JUDGE)
    assert found is not None
    return found


def write(path: Path, made: Made, squares: Squares, counts: Sequence[tuple[int | None, int]], judged: int) -> Path:
    content = json.loads(write_judgements(path, made, range(judged)).read_text(encoding="utf-8"))
    for rank, (own, damaged) in enumerate(counts):
        properties = {
            "square": int(squares.draw.order[rank]), "rank": rank, "missed": own, "damaged": damaged,
            "judge": path.stem, "map": made.draw.map_hash,
        }  # fmt: skip
        content["features"].append({"type": "Feature", "geometry": None, "properties": properties})
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def numbers(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    return found


def test_what_the_map_missed_is_an_estimate_of_its_own_and_added_on_request(
    made: Made, squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judgements = write(tmp_path / "mine.geojson", made, squares, COUNTS, JUDGED)
    arguments = ["--map", str(made.folder), "--judgements", str(judgements), "--out"]
    assess.main([*arguments, str(tmp_path / "apart")])
    printed = capsys.readouterr()
    every, damaged = (missed(len(squares.draw), np.array(own)) for own in ([2, 0, 0, 1, 0], [1, 0, 0, 1, 0]))
    line = f"missed by the map: {every}, of which damaged {damaged}; 5 of {len(squares.draw)} squares looked at"
    assert line in printed.out.splitlines()
    assert "warning: 1 of 5 squares show nothing" in printed.err
    apart = numbers(tmp_path / "apart")
    assert apart["missed"]["buildings"] == pytest.approx(every._asdict())
    assert apart["missed"]["damaged"] == pytest.approx(damaged._asdict())
    assert apart["with_missed"] == {}
    assess.main([*arguments, str(tmp_path / "both"), "--with-missed"])
    together = numbers(tmp_path / "both")
    assert together["estimates"] == apart["estimates"]
    table = pd.read_csv(tmp_path / "both" / "estimates.csv")
    assert table["category"].tolist()[-4:] == [
        "missed", "missed_damaged", "buildings_with_missed", "damaged_with_missed"
    ]  # fmt: skip
    whole = table[(table["area"] == "total") & (table["unit"] == "buildings")]
    headline = whole[whole["headline"] & (whole["category"] == "damaged")].iloc[0]
    found = whole[whole["category"] == "damaged_with_missed"].iloc[0]
    assert found["total"] == pytest.approx(headline["total"] + damaged.total)
    assert found["low"] == pytest.approx(
        found["total"] - np.hypot(headline["total"] - headline["low"], damaged.total - damaged.low)
    )
    page = (tmp_path / "both" / "assessment.html").read_text(encoding="utf-8")
    assert line.capitalize() in page and 'id="together"' in page


def test_of_two_people_one_count_stands_and_the_other_is_told_of(
    made: Made, squares: Squares, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        write(tmp_path / "mine.geojson", made, squares, [(1, 0), (None, 0)], JUDGED),
        write(tmp_path / "hers.geojson", made, squares, [(4, 0), (2, 2), (0, 0)], JUDGED),
    ]
    assess.main(["--map", str(made.folder), "--judgements", *map(str, files), "--out", str(tmp_path / "out")])
    assert "warning: 2 squares were counted differently by two people" in capsys.readouterr().err
    assert numbers(tmp_path / "out")["missed"]["buildings"]["found"] == 3


@pytest.mark.parametrize(
    ("counts", "judged", "said"),
    [
        ([], JUDGED, "--with-missed: found none of the squares counted, expected two or more."),
        ([(1, 0)], JUDGED, "--with-missed: found 1 of the squares counted, expected two or more."),
        (COUNTS, 1, "--with-missed: found 1 buildings judged, expected enough for an estimate. Judge more."),
    ],
)
def test_what_cannot_be_added_is_one_line_and_leaves_nothing(
    counts: Sequence[tuple[int | None, int]], judged: int, said: str, made: Made, squares: Squares, tmp_path: Path
) -> None:
    judgements = write(tmp_path / "mine.geojson", made, squares, counts, judged)
    out = tmp_path / "out"
    line = exit_line(
        assess.main, "--map", made.folder, "--judgements", judgements, "--out", out, "--with-missed"
    )  # fmt: skip
    assert line.startswith(f"JudgementError: {said}")
    assert not out.exists()


def test_a_map_of_earlier_without_squares_is_assessed_as_ever(made: Made, tmp_path: Path) -> None:
    old = shutil.copytree(made.folder, tmp_path / "map")
    content = json.loads((old / JUDGE).read_text(encoding="utf-8"))
    assert content.pop("squares")
    (old / JUDGE).write_text(json.dumps(content), encoding="utf-8")
    judgements = write_judgements(tmp_path / "mine.geojson", made, range(JUDGED))
    assess.main(["--map", str(old), "--judgements", str(judgements), "--out", str(tmp_path / "out")])
    assert numbers(tmp_path / "out")["missed"] is None

"""assess on made maps, as its users call it: what it writes is held to the truth, and to plain sums."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from playwright.sync_api import Browser

from base.grades import KEYS
from components import assess
from imagery.adapting.names import MODEL_FILES
from imagery.adapting.saved import load_event_model
from imagery.assessing.judged_map import read_map
from imagery.assessing.outputs import FILES
from tests.conftest import exit_line, tree
from tests.imagery.assessing.maps import Made, make_map, write_judgements
from tests.limits import files_up_to

JUDGED = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The network guesses, its features know better."""
    return make_map(tmp_path_factory.mktemp("event"), sharp=0.7, telling=1.5)


@pytest.fixture(scope="module")
def out(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assessed")
    run(made, write_judgements(folder / "mine.geojson", made, range(JUDGED)), out=folder / "out")
    return folder / "out"


def run(made: Made, *judgements: Path, out: Path, **options: Path) -> None:
    more = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    assess.main(["--map", str(made.folder), "--judgements", *map(str, judgements), "--out", str(out), *more])


def buildings(folder: Path) -> Any:
    return geopandas.read_file(folder / "buildings.geojson")


def numbers(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    return found


def test_a_map_is_adapted_to_the_event_and_better_where_nobody_judged(made: Made, out: Path) -> None:
    assert {path.name for path in out.iterdir()} == set(FILES)
    before, after = buildings(made.folder), buildings(out)
    assert after["base_grade"].tolist() == before["grade"].tolist()
    rows = made.draw.order
    rest = rows[JUDGED:][np.isin(made.truth[rows[JUDGED:]], (1, 2, 3, 4))]
    right = {name: float((after[name][rest] == made.truth[rest]).mean()) for name in ("base_grade", "grade")}
    assert right["grade"] > right["base_grade"] + 0.2
    facts = numbers(out)["adapting"]
    assert (facts["kind"], facts["keeps_the_maps_grades"]) == ("features", False)
    assert facts["after"]["macro_f1"] > facts["before"]["macro_f1"]
    changed = (after["grade"] != after["base_grade"]) & after["judged"].isna()
    assert numbers(out)["buildings"]["regraded"] == changed.sum()


def test_the_buildings_are_the_maps_with_other_grades(made: Made, out: Path) -> None:
    before, after = buildings(made.folder), buildings(out)
    names = ["no-damage", "minor-damage", "major-damage", "destroyed"]
    assert after["damage"].tolist() == [names[grade - 1] for grade in after["grade"]]
    kept = [name for name in before.columns if name not in ("grade", "damage", "confidence", "geometry")]
    pd.testing.assert_frame_equal(after[kept], before[kept])
    assert shapely.equals_exact(after.geometry.values, before.geometry.values, 1e-7).all()
    package = geopandas.read_file(out / "buildings.gpkg", layer="buildings")
    assert package["grade"].tolist() == after["grade"].tolist()
    assert 'attr="damage"' in (out / "buildings.qml").read_text(encoding="utf-8")


def test_what_a_person_judged_goes_before_what_a_model_says(made: Made, out: Path) -> None:
    after = buildings(out)
    words = {
        0: "not a building",
        1: "no damage",
        2: "minor damage",
        3: "major damage",
        4: "destroyed",
        255: "cannot tell",
    }
    for row in made.draw.order[:JUDGED].tolist():
        assert after["judged"][row] == words[made.truth[row]]
        if made.truth[row] in (1, 2, 3, 4):
            assert (after["grade"][row], after["confidence"][row]) == (made.truth[row], 1)
    assert after["judged"].notna().sum() == JUDGED


def test_the_model_that_is_kept_gives_the_grades_of_the_map(made: Made, out: Path) -> None:
    model, about = load_event_model(out)
    grades, confidence = model.grade(read_map(made.folder).evidence)
    after = buildings(out)
    free = after["judged"].isna().to_numpy()
    assert (grades[free] == after["grade"].to_numpy()[free]).all()
    np.testing.assert_allclose(confidence[free], after["confidence"].to_numpy()[free], atol=1e-4)
    assert about["map"] == {"sha256": made.draw.map_hash, "network": "a network"}


def test_estimates_are_weighted_sums_and_hold_the_truth(made: Made, out: Path) -> None:
    table = pd.read_csv(out / "estimates.csv")
    own = table[(table["area"] == "total") & (table["unit"] == "buildings")].set_index(["category", "method"])
    strata = made.draw.strata
    weights = (np.bincount(strata) / np.bincount(strata[:JUDGED]))[strata[:JUDGED]]
    for number, key in enumerate(KEYS, 1):
        judged = made.truth[made.draw.order[:JUDGED]] == number
        assert own.loc[(key, "design-based"), "total"] == pytest.approx(weights @ judged)
        assert own.loc[(key, "model-assisted"), "low"] <= (made.truth == number).sum()
        assert own.loc[(key, "model-assisted"), "high"] >= (made.truth == number).sum()
    headlines = own[own["headline"]].index.tolist()
    assert {method for category, method in headlines if category != "damaged_of_assessable"} == {"model-assisted"}
    facts = numbers(out)
    assert facts["headline"] == "model-assisted"
    assert len(facts["estimates"]) == len(table)
    confusion = facts["accuracy"]["before"]["confusion"]
    assert sum(sum(row.values()) for row in confusion.values()) == pytest.approx(300)


def test_a_map_that_is_no_worse_keeps_its_grades_and_no_model_is_left(tmp_path: Path) -> None:
    made = make_map(tmp_path, sharp=9, telling=0)
    run(made, write_judgements(tmp_path / "mine.geojson", made, range(60)), out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES) - set(MODEL_FILES)
    after = buildings(tmp_path / "out")
    free = after["judged"].isna()
    assert (after["grade"] == after["base_grade"])[free].all()
    np.testing.assert_array_equal(after["confidence"][free], buildings(made.folder)["confidence"][free])
    assert numbers(tmp_path / "out")["adapting"]["said"].startswith("The map keeps its grades: what was learned is no")


def test_very_few_judgements_give_no_number_and_say_so(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(made, write_judgements(tmp_path / "mine.geojson", made, [0, 1, 9]), out=tmp_path / "out")
    said = capsys.readouterr()
    assert "2 of 300 buildings judged: too few for an estimate" in said.out
    assert "The map keeps its grades: 2 judged without a gap teach nothing yet." in said.out
    assert "warning: 1 judgements after a gap in the order are not counted" in said.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES) - set(MODEL_FILES)
    assert "Too few judgements for numbers" in (tmp_path / "out" / "assessment.html").read_text(encoding="utf-8")


def test_areas_have_estimates_of_their_own(made: Made, tmp_path: Path) -> None:
    found = buildings(made.folder)
    west, south, east, north = found.total_bounds
    middle = (west + east) / 2
    boxes = [shapely.box(west - 1, south - 1, middle, north + 1), shapely.box(middle, south - 1, east + 1, north + 1)]
    frame = geopandas.GeoDataFrame({"name": ["total", "east"]}, geometry=boxes, crs="EPSG:4326")
    frame.to_file(tmp_path / "areas.gpkg")
    judgements = write_judgements(tmp_path / "mine.geojson", made, range(24))
    run(made, judgements, out=tmp_path / "out", areas=tmp_path / "areas.gpkg")
    table = pd.read_csv(tmp_path / "out" / "estimates.csv")
    assert table["area"].unique().tolist() == ["total", "total (area)", "east"]
    own = table[
        (table["category"] == "damaged") & (table["method"] == "model-assisted") & (table["unit"] == "buildings")
    ]
    total, *parts = own["total"].tolist()
    assert sum(parts) == pytest.approx(total, rel=0.2)
    assert 'id="areas"' in (tmp_path / "out" / "assessment.html").read_text(encoding="utf-8")


def test_two_peoples_judgements_are_one_sample_and_their_disagreements_are_said(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(row for row in made.draw.order[6:18].tolist() if made.truth[row] == 4)
    odd = {row: 1}
    picked = made.draw.order[200:203].tolist()
    mine = write_judgements(tmp_path / "mine.geojson", made, range(0, 18), picked)
    hers = write_judgements(tmp_path / "hers.geojson", made, range(6, 24), given=odd)
    run(made, mine, hers, out=tmp_path / "out")
    facts = numbers(tmp_path / "out")
    assert facts["judged"]["in_sample"] == 24
    assert (facts["judged"]["twice"], facts["judged"]["picked"]) == (12, 3)
    assert facts["judged"]["disagreements"] == [{"row": row, "first": 4, "second": 1, "kept": 4}]
    assert "1 of 12 buildings judged twice were judged differently" in capsys.readouterr().err
    assert set(facts["judgements"]) == {str(mine), str(hers)}


def test_a_later_run_replaces_the_results_of_an_earlier_one(made: Made, tmp_path: Path) -> None:
    few = write_judgements(tmp_path / "few.geojson", made, range(12))
    run(made, few, out=tmp_path / "out")
    first = tree(tmp_path / "out")
    run(made, write_judgements(tmp_path / "more.geojson", made, range(13)), out=tmp_path / "out")
    assert tree(tmp_path / "out")["estimates.csv"] != first["estimates.csv"]
    run(made, few, out=tmp_path / "out")
    again = tree(tmp_path / "out")
    assert {name for name in first if first[name] != again.get(name)} <= {"buildings.gpkg"}  # which has its time


def edited(folder: Path) -> None:
    path = folder / "buildings.geojson"
    path.write_text(path.read_text(encoding="utf-8").replace("destroyed", "no-damage"), encoding="utf-8")


def of_another_program(folder: Path) -> None:
    rows = pq.read_table(folder / "features.parquet")
    pq.write_table(
        rows.replace_schema_metadata({"dual-hrnet": '{"model": "a", "map": "b"}'}), folder / "features.parquet"
    )


def of_text(folder: Path) -> None:
    rows = pq.read_table(folder / "features.parquet")
    place = rows.column_names.index("probability_destroyed")
    text = pa.array(["a"] * len(rows))
    pq.write_table(rows.set_column(place, "probability_destroyed", text), folder / "features.parquet")


def another(folder: Path) -> None:
    content = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
    content["order"][:2] = content["order"][1::-1]
    content["map"] = "abc"
    (folder / "judge.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (shutil.rmtree, "map: does not exist, expected the folder of a map that predict made. Correct --map."),
        (lambda map: (map / "features.parquet").unlink(), "features.parquet: is missing, expected what predict keeps"),
        (lambda map: (map / "features.parquet").write_bytes(b"x"), "features.parquet: cannot be read ("),
        (lambda map: pd.DataFrame({"id": [1]}).to_parquet(map / "features.parquet"), "is not of predict, expected"),
        (of_another_program, "features.parquet: is not of predict, expected its columns and"),
        (of_text, "features.parquet: is not of predict, expected its columns and"),
        (lambda map: (map / "buildings.geojson").unlink(), "buildings.geojson: is missing, expected the buildings"),
        (edited, "buildings.geojson: was changed, expected the file that features.parquet was made with. Make the map"),
        (lambda map: (map / "judge.json").unlink(), "judge.json: is missing, expected the order in which the page"),
        (another, "judge.json: is of another map, expected the order of the buildings of buildings.geojson. Make the"),
        (
            lambda map: (map / "summary.json").unlink(),
            "summary.json: is missing, expected what predict says of the map",
        ),
        (lambda map: (map / "summary.json").write_text("{}"), "summary.json: scene: field required, expected what"),
        (lambda map: (map / "summary.json").write_text("{"), "summary.json: the file: invalid json"),
    ],
)
def test_a_map_that_cannot_be_assessed_is_one_line(
    damage: Callable[[Path], object], finding: str, made: Made, tmp_path: Path
) -> None:
    shutil.copytree(made.folder, tmp_path / "map")
    judgements = write_judgements(tmp_path / "mine.geojson", made, range(40))
    damage(tmp_path / "map")
    out = tmp_path / "out"
    assert finding in exit_line(assess.main, "--map", tmp_path / "map", "--judgements", judgements, "--out", out)
    assert not out.exists()


def test_judgements_of_another_map_are_one_line_and_leave_nothing(made: Made, tmp_path: Path) -> None:
    other = made._replace(draw=made.draw.__class__(made.draw.order, made.draw.strata, 7, "another"))
    path = write_judgements(tmp_path / "mine.geojson", other, range(40))
    line = exit_line(assess.main, "--map", made.folder, "--judgements", path, "--out", tmp_path / "out")
    assert (
        line.startswith("JudgementError: ") and "mine.geojson: feature 0: found judgements of the map 'another'" in line
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.geojson"]


def test_missing_judgements_odd_areas_and_a_folder_of_others_are_one_line(made: Made, tmp_path: Path) -> None:
    judgements = write_judgements(tmp_path / "mine.geojson", made, range(40))
    words: list[str | Path] = ["--map", made.folder, "--judgements"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    out = tmp_path / "out"
    assert "gone.geojson" in exit_line(assess.main, *words, tmp_path / "gone.geojson", "--out", out)
    assert "mine.txt: would be deleted" in exit_line(assess.main, *words, judgements, "--out", tmp_path / "notes")
    assert "would be deleted" in exit_line(assess.main, *words, judgements, "--out", made.folder)
    (tmp_path / "areas.geojson").write_text("{}", encoding="utf-8")
    line = exit_line(assess.main, *words, judgements, "--out", out, "--areas", tmp_path / "areas.geojson")
    assert line.startswith("VectorError") and "areas.geojson" in line
    assert not out.exists()


def test_a_full_disk_is_one_line_and_leaves_the_results_before(made: Made, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    before = tree(tmp_path / "out")
    judgements = write_judgements(tmp_path / "mine.geojson", made, range(12))
    words: list[str | Path] = ["--map", made.folder, "--judgements", judgements, "--out", tmp_path / "out"]
    with files_up_to((out / "assessment.html").stat().st_size // 2):
        assert "out: cannot be written (" in exit_line(assess.main, *words)
    assert tree(tmp_path / "out") == before


def test_the_page_shows_the_headline_and_asks_no_network(out: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((out / "assessment.html").as_uri())
    row = pd.read_csv(out / "estimates.csv").query("area == 'total' and unit == 'buildings' and headline")
    total = row.set_index("category")["total"]["damaged"]
    assert page.inner_text("h1").startswith(f"{total:,.0f} damaged buildings (")
    assert page.locator(".map circle").count() == JUDGED
    assert page.locator(".picture line.headline").count() >= 6
    assert page.locator("#curve").evaluate("image => image.naturalWidth") > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    page.close()

"""Looking for what the map missed in a real browser, by keys: it gives out what imagery.sampling reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from playwright.sync_api import Browser, Page

from imagery.give.features import Kept
from imagery.give.page.squares import PICTURED, squares_of
from imagery.predict.tile_features import TileFeatures
from imagery.sampling.draw import Draw
from imagery.sampling.judgements_file import JUDGE, read_counts, read_judgements, read_squares
from imagery.sampling.squares import Counted, Squares, merge_counts
from imagery.settings import Windows
from tests.imagery.give.page.judged_page import come_back, download, give_map, press, text
from tests.imagery.predicted import black, give_out, write_classes
from tests.servers.browser import Opened, open_page

ROWS, COLUMNS, STEP = 8, 10, 60  # of buildings, and pixels from one to the next: 240 x 300 m
SQUARES = 16  # of 75 m, the last ones cut off
IDS = [*range(1, ROWS * COLUMNS + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return give_map(tmp_path_factory.mktemp("squares"), ROWS, COLUMNS, STEP)


@pytest.fixture(scope="module")
def squares(folder: Path) -> Squares:
    found = read_squares(folder / JUDGE)
    assert found is not None
    return found


@pytest.fixture
def page(opened: Opened) -> Page:
    opened.page.locator("#missed-open").click()
    return opened.page


def shown(page: Page) -> list[str]:
    return page.locator("[data-count] output").all_inner_texts()


def test_counts_by_keys_give_the_file_and_outlive_the_page(
    page: Page, draw: Draw, squares: Squares, tmp_path: Path
) -> None:
    assert text(page, "progress") == f"0 of {SQUARES} squares counted"
    page.locator("#judge-initials").fill("AB")
    press(page, "Enter", "3", "d", "2", "ArrowRight")  # three missed, two of them damaged
    press(page, "ArrowRight")  # none
    press(page, "9", "+", "+", "-", "ArrowRight")  # ten
    press(page, "d", "+", "+", "ArrowRight")  # two damaged are two missed
    press(page, "2", "d", "2", "d", "1", "ArrowRight")  # of one missed no more than one is damaged
    press(page, "u", "-", "ArrowRight")  # nothing can be seen; none fewer than none
    expected = [(3, 2), (0, 0), (10, 0), (2, 2), (1, 1), (None, 0), (0, 0)]
    assert text(page, "progress") == f"7 of {SQUARES} squares counted"
    assert "In 7 of 16 squares 16 missed, 5 of them damaged. In all squares that makes about 37, 11" in text(
        page, "about"
    )
    assert "1 show nothing." in text(page, "about")
    press(page, "ArrowLeft", "ArrowLeft")
    assert "Kept: nothing can be seen." in text(page, "said") and shown(page) == ["?", "0"]
    come_back(page, "#missed-open", "which", "square drawn as number 8")
    file = download(page, tmp_path)
    assert read_counts(file, draw, squares) == [Counted(rank, *own, "AB") for rank, own in enumerate(expected)]
    assert read_judgements(file, draw, IDS) == []
    features = json.loads(file.read_text())["features"]
    assert {own["properties"]["inclusion"] for own in features} == {7 / SQUARES}
    areas = shapely.area([shapely.from_geojson(json.dumps(own["geometry"])) for own in features])
    assert areas.max() < 2 * 75.0**2 / 111_000**2  # degrees


def test_squares_and_buildings_are_judged_in_one_sitting(
    page: Page, draw: Draw, squares: Squares, tmp_path: Path
) -> None:
    press(page, "4", "ArrowRight")
    page.get_by_role("button", name="buildings", exact=True).click()
    assert text(page, "progress") == "0 of 80 judged"
    press(page, "4", "1")
    page.get_by_role("button", name="missed buildings", exact=True).click()
    assert text(page, "progress") == f"1 of {SQUARES} squares counted"
    press(page, "1")
    file = download(page, tmp_path)
    assert [own.grade for own in read_judgements(file, draw, IDS)] == [4, 1]
    assert read_counts(file, draw, squares) == [Counted(0, 4, 0), Counted(1, 1, 0)]


def test_a_square_shows_its_frame_and_the_outlines_of_its_buildings(page: Page, squares: Squares) -> None:
    left, top, right, bottom = squares.corners((0.5, 0.5), (COLUMNS * STEP, ROWS * STEP))[0]
    frame = page.locator("#judge-after rect")
    found = [float(str(frame.get_attribute(name))) for name in ("x", "y", "width", "height")]
    assert found == pytest.approx([left, top, right - left, bottom - top], abs=0.6)
    box, around = frame.bounding_box(), page.locator("#judge-after").bounding_box()
    assert box is not None and around is not None
    assert around["x"] <= box["x"] and box["x"] + box["width"] <= around["x"] + around["width"]
    assert around["y"] <= box["y"] and box["y"] + box["height"] <= around["y"] + around["height"]
    corners = np.array([[column * STEP + 4, row * STEP + 4] for row in range(ROWS) for column in range(COLUMNS)])
    inside = ((corners > (left, top)) & (corners + 12 < (right, bottom))).all(1).sum()
    outlines = str(page.locator("#judge-after path").get_attribute("d"))
    assert outlines.count("M") >= inside > 0


def test_another_persons_counts_join_as_in_python(page: Page, draw: Draw, squares: Squares, tmp_path: Path) -> None:
    press(page, "3", "ArrowRight", "u", "1", "ArrowRight")
    file = download(page, tmp_path)
    mine, content = read_counts(file, draw, squares), json.loads(file.read_text())
    for feature, missed in zip(content["features"], (7, 5, 1), strict=True):
        feature["properties"] |= {"missed": missed, "judge": "CD"}
    other = tmp_path / "other.geojson"
    other.write_text(json.dumps(content))
    page.locator("#judge-file").set_input_files(other)
    page.get_by_text("other.geojson: 0 judgements, 0 of them").wait_for()
    assert text(page, "said").endswith("3 squares.")
    expected, differing = merge_counts(mine, read_counts(other, draw, squares))
    assert read_counts(download(page, tmp_path), draw, squares) == expected
    assert differing == 2


def test_counts_that_are_not_of_this_map_change_nothing(page: Page, tmp_path: Path) -> None:
    press(page, "1")
    file = download(page, tmp_path)
    good = file.read_text()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"rank": 3}, "feature 0: found another order of squares"),
        ({"missed": 1.5}, "feature 0: found a count that is none"),
        ({"damaged": 2}, "feature 0: found a count that is none"),
    ]
    for change, finding in refused:
        content = json.loads(good)
        content["features"][0]["properties"] |= change
        file.write_text(json.dumps(content))
        page.locator("#judge-file").set_input_files(file)
        page.get_by_text(finding).wait_for()
    assert shown(page) == ["1", "0"]


def test_on_a_phone_counting_needs_no_keys(browser: Browser, folder: Path) -> None:
    with open_page(browser, folder / "report.html") as opened:
        page = opened.page
        page.set_viewport_size({"width": 390, "height": 844})
        page.locator("#missed-open").click()
        size = page.evaluate("(d => [d.scrollWidth, d.clientWidth])(document.getElementById('judge'))")
        assert size[0] == size[1] <= 390
        for button in page.locator("#judge .counts button, #judge .moves button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844
            assert box["height"] >= 40
        for name in ("missed by the map: one more", "missed by the map: one more", "of these damaged: one more"):
            page.get_by_role("button", name=name).click()
        assert shown(page) == ["2", "1"]
        page.get_by_role("button", name="next").click()
        page.get_by_role("button", name="nothing can be seen").click()
        assert text(page, "progress") == f"2 of {SQUARES} squares counted"
        assert opened.errors == []


def test_squares_without_data_are_not_drawn(tmp_path: Path) -> None:
    damage = np.zeros((400, 700), np.uint8)
    damage[:, :200] = 255
    damage[140:300, 200:460] = 255  # all of two squares, and parts of others
    squares = squares_of(write_classes(tmp_path / "classes.tif", damage), "00000001ab")
    cells = {(row, column) for row, column in np.ndindex(3, 5)}
    gone = {(0, 0), (1, 0), (2, 0), (1, 1), (1, 2)}
    assert {divmod(int(own), 5) for own in squares.draw.order} == cells - gone
    assert squares.draw.seed == 1 and len(squares.draw) < PICTURED


def test_a_map_of_footprints_has_no_squares(folder: Path, tmp_path: Path) -> None:
    assert read_squares(folder / JUDGE) is not None
    tiles = TileFeatures(folder.parent / "tiles", COLUMNS * STEP, ROWS * STEP, Windows(tile=512, overlap=32))
    given = {"footprints": folder / "buildings.geojson", "kept": Kept(tiles, "a hash", "a folder", black)}
    give_out(folder.parent / "classes.tif", tmp_path / "map", **given)
    assert read_squares(tmp_path / "map" / JUDGE) is None
    assert 'id="missed-open"' not in (tmp_path / "map" / "report.html").read_text(encoding="utf-8")

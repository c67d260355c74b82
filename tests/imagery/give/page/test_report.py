"""The page of a predicted scene, in a real browser: what it shows, and what people can do with it."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image
from playwright.sync_api import Browser
from rasterio.windows import Window

from imagery.give.look import Look, look_at, reduce, reduced
from imagery.give.outputs import write_outputs
from imagery.read.raster import ImagePair
from imagery.settings import Sources
from model.judge.page import photo
from tests.imagery.geotiff import ORIGIN, UTM, noise, write_tif
from tests.imagery.predicted import FACTS, give_out, write_classes
from tests.servers.browser import Opened, open_page

WIDTH, HEIGHT = 400, 300
BLUE, GREEN = np.array([[20, 40, 200], [30, 160, 30]], np.uint8)
# Column, row, grade and 255 x probability of squares of 20 x 20 pixels.
SQUARES = [(40, 40, 1, 240), (340, 40, 4, 200), (200, 140, 2, 140), (40, 240, 3, 128), (340, 240, 4, 110)]


def image(colour: Any) -> str:
    return photo(np.broadcast_to(colour, (HEIGHT, WIDTH, 3)).copy(), WIDTH, quality=95)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    damage, grades = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((4, HEIGHT, WIDTH), np.uint8)
    for column, row, grade, sure in SQUARES:
        part = np.s_[row : row + 20, column : column + 20]
        damage[part], grades[grade - 1][part] = grade, sure
    classes = write_classes(folder / "classes.tif", damage, grades=grades)
    facts = {**FACTS, "before": ["<b>before</b>.tif"], "width": WIDTH, "height": HEIGHT}
    write_outputs(classes, folder / "out", Look(image(BLUE), image(GREEN), facts), cell=100)
    return folder / "out" / "report.html"


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Opened]:
    with open_page(browser, page) as opened:
        yield opened


def shot(opened: Opened) -> Any:
    """What the viewer shows, [H, W, 3]."""
    viewer = opened.page.locator(".viewer")
    for one in viewer.locator("img").all():
        one.evaluate("(image) => image.decode()")
    return np.asarray(Image.open(io.BytesIO(viewer.screenshot())).convert("RGB")).astype(int)


def shown(opened: Opened) -> int:
    return sum(path.is_visible() for path in opened.page.locator(".overlay path").all())


def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(opened: Opened) -> None:
    assert opened.unloaded() == []
    assert opened.outside() == []
    assert opened.errors == []


def test_totals_are_those_of_the_summary(opened: Opened, page: Path) -> None:
    total = json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))["total"]
    assert opened.page.locator("h1").inner_text() == "5 buildings, 2 destroyed, 1 with major damage"
    rows = [row.locator("td").all_inner_texts() for row in opened.page.locator("#totals tbody tr").all()]
    assert [row[:2] for row in rows] == [
        ["no damage", "1"],
        ["minor damage", "1"],
        ["major damage", "1"],
        ["destroyed", "2"],
        ["all", "5"],
    ]
    assert rows[3][2:] == ["40.0 %", f"{total['area_m2_destroyed']:.0f}"]


def test_names_of_files_are_text(opened: Opened) -> None:
    assert "<b>before</b>.tif" in opened.page.locator("#facts").inner_text()


def test_grades_and_confidence_filter_what_is_drawn_and_counted(opened: Opened) -> None:
    said = opened.page.locator("#shown")
    assert shown(opened) == 5
    assert said.inner_text() == "5 of 5 buildings shown, 500 m²"
    opened.page.locator('input[data-grade="4"]').uncheck()
    assert shown(opened) == 3
    assert said.inner_text() == "3 of 5 buildings shown, 300 m²"
    opened.page.locator("#confidence").fill("0.52")
    assert shown(opened) == 2  # 240/255 and 140/255
    opened.page.locator('input[data-grade="4"]').check()
    assert shown(opened) == 3
    assert said.inner_text() == "3 of 5 buildings shown, 300 m²"
    opened.page.locator("#confidence").fill("0")
    assert shown(opened) == 5


def test_the_slider_uncovers_the_image_after_at_any_zoom(opened: Opened) -> None:
    slider = opened.page.locator(".viewer input")
    for _ in range(3):
        for at in (25, 50, 80):
            slider.fill(str(at))
            picture = shot(opened)
            row = picture[len(picture) // 2 + 40]
            blue = np.flatnonzero(np.abs(row - BLUE).max(1) < 16)
            green = np.flatnonzero(np.abs(row - GREEN).max(1) < 16)
            # The middle of the viewer is in the scene at any zoom, and there the slider's line lies between the two.
            line = at / 100 * picture.shape[1]
            assert (blue < line + 2).all() and (green > line - 2).all()
            assert len(blue) + len(green) > 0.4 * picture.shape[1]
        opened.page.locator('button[data-zoom="in"]').click()


def test_a_building_lies_on_its_pixels_and_tells_what_is_known(opened: Opened) -> None:
    layers = opened.page.locator(".layers").bounding_box()
    assert layers is not None
    scale = layers["width"] / WIDTH
    for number, (column, row, grade, sure) in enumerate(SQUARES):
        opened.page.mouse.click(layers["x"] + (column + 10) * scale, layers["y"] + (row + 10) * scale)
        name = ("no damage", "minor damage", "major damage", "destroyed")[grade - 1]
        said = opened.page.locator("#building").inner_text()
        assert said.startswith(f"Building {number + 1}: {name}, confidence {sure / 255:.2f}, 100 m², at 36.14")
        assert opened.page.locator(".overlay path.chosen").count() == 1


def test_wheel_and_mouse_move_through_the_scene(opened: Opened) -> None:
    layers = opened.page.locator(".layers")
    before = layers.bounding_box()
    assert before is not None
    place = before["x"] + before["width"] * 0.6, before["y"] + before["height"] * 0.5
    opened.page.mouse.move(*place)
    opened.page.mouse.wheel(0, -400)
    opened.page.wait_for_function("document.querySelector('.layers').style.width !== ''")
    after = layers.bounding_box()
    assert after is not None and after["width"] > 1.2 * before["width"]
    assert (place[0] - after["x"]) / after["width"] == pytest.approx(0.6, abs=0.01)  # what was under the mouse stays
    opened.page.mouse.down()
    opened.page.mouse.move(place[0] - 60, place[1] + 30)
    opened.page.mouse.up()
    moved = layers.bounding_box()
    assert moved is not None and moved["x"] == pytest.approx(after["x"] - 60, abs=2)
    opened.page.locator('button[data-zoom="all"]').click()
    assert layers.bounding_box() == before


def test_a_square_of_the_summary_is_shown_large(opened: Opened) -> None:
    first = opened.page.locator("#parts tbody tr").first
    assert first.locator("td").nth(5).inner_text() == "1"  # destroyed
    first.click()
    view = opened.page.locator(".viewer").bounding_box()
    building = opened.page.locator(".overlay path.grade4").first
    opened.page.wait_for_timeout(100)
    boxes = [path.bounding_box() for path in opened.page.locator(".overlay path.grade4").all()]
    assert view is not None
    inside = [
        box for box in boxes
        if box and view["x"] <= box["x"] and box["x"] + box["width"] <= view["x"] + view["width"]
        and view["y"] <= box["y"] and box["y"] + box["height"] <= view["y"] + view["height"]
    ]  # fmt: skip
    assert inside
    assert building.count() == 1


def test_given_buildings_that_were_not_seen_are_marked_and_those_outside_are_not_drawn(
    browser: Browser, tmp_path: Path
) -> None:
    damage = np.zeros((200, 200), np.uint8)
    damage[:, 100:] = 255
    damage[40:60, 40:60] = 3
    boxes = [shapely.box(500_000 + x, 3_999_970, 500_010 + x, 3_999_980) for x in (20, 70, 5_000)]
    geopandas.GeoDataFrame({"use": ["a", "b", "c"]}, geometry=boxes, crs=UTM).to_file(tmp_path / "osm.gpkg")
    classes = write_classes(tmp_path / "classes.tif", damage)
    give_out(classes, tmp_path / "out", footprints=tmp_path / "osm.gpkg")
    with open_page(browser, tmp_path / "out" / "report.html") as opened:
        classes_drawn = [path.get_attribute("class") for path in opened.page.locator(".overlay path").all()]
        assert classes_drawn == ["grade0", "grade3"]
        rows = [row.locator("td").all_inner_texts()[:2] for row in opened.page.locator("#totals tbody tr").all()]
        assert ["not visible", "2"] in rows
        opened.page.locator('input[data-grade="0"]').uncheck()
        assert shown(opened) == 1
        assert opened.errors == []


def test_an_empty_scene_has_a_page(browser: Browser, tmp_path: Path) -> None:
    give_out(write_classes(tmp_path / "classes.tif", np.zeros((64, 64), np.uint8)), tmp_path / "out")
    with open_page(browser, tmp_path / "out" / "report.html") as opened:
        assert opened.page.locator("#shown").inner_text() == "0 of 0 buildings shown, 0 m²"
        assert opened.errors == []


def test_large_scenes_are_shown_small_and_in_place(tmp_path: Path) -> None:
    """In more than one block, with sides that are no multiple of the factor."""
    squares = noise(44, 82).repeat(32, axis=1).repeat(32, axis=2)[:, :1399, :2601]
    path = write_tif(tmp_path / "image.tif", squares, transform=ORIGIN)
    with ImagePair(Sources((path,), (path,))) as pair:
        look = look_at(pair, {"more": 1}, largest=1301)
    assert look.facts == {"more": 1, "width": 2601, "height": 1399, "gsd_m": pytest.approx(0.5, rel=0.001)}
    for uri in (look.pre, look.post):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
        assert shown.shape == (700, 1301, 3)
        expected = squares[:, ::2, ::2].transpose(1, 2, 0)
        # Flat squares of 16 pixels, which JPEG keeps but for its rounding; the last row is half of what lies beyond.
        assert np.abs(shown[:688].astype(int) - expected[:688]).mean() < 5


def test_parts_of_a_pair_are_made_small_as_the_whole_is(tmp_path: Path) -> None:
    """Parts whose borders are no multiples of what becomes one pixel, one of them narrower than that."""
    path = write_tif(tmp_path / "image.tif", noise(200, 300))
    with ImagePair(Sources((path,), (path,))) as pair:
        whole = Window(0, 0, 300, 200)
        expected = reduce(pair, whole, 3)
        found = np.zeros_like(expected)
        for left, right in ((0, 128), (128, 130), (130, 300)):
            for top, bottom in ((0, 64), (64, 200)):
                part = Window(left, top, right - left, bottom - top)
                found[:, *reduced(part, 3).toslices()] = reduce(pair, part, 3)
    assert expected[0].shape == (67, 100, 3)
    np.testing.assert_array_equal(found, expected)

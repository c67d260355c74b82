"""The page of many buildings, in a real browser from the disk: what it loads, shows and says, and how it is judged."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from playwright.sync_api import Browser, expect

from imagery.give.page import quarters, report
from imagery.sampling.draw import Draw
from imagery.sampling.judgements_file import read_judgements
from tests.conftest import tree
from tests.imagery.give.page.judged_page import STEP, come_back, download, give_map, press, text
from tests.imagery.predicted import give_out, write_classes
from tests.servers.browser import Opened, open_page

ROWS, COLUMNS = 30, 40
COUNT = ROWS * COLUMNS


@pytest.fixture(scope="module", autouse=True)
def few_are_many() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "MOST", 100)
        patch.setattr(quarters, "SMALLEST", 64)
        patch.setattr(quarters.quarters, "__defaults__", (90,))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return give_map(tmp_path_factory.mktemp("many"), ROWS, COLUMNS)


@pytest.fixture(scope="module")
def buildings(folder: Path) -> Any:
    return geopandas.read_file(folder / "buildings.geojson")


def until(opened: Opened, condition: str) -> None:
    """Not by wait_for_function, whose polling the page's Content-Security-Policy forbids."""
    for _ in range(600):
        if opened.page.evaluate(condition):
            return
        opened.page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def close(opened: Opened, most: int) -> None:
    """Until so many buildings at most are in sight, which are drawn one by one; all files that it takes are there."""
    opened.page.evaluate(f"Source.MOST = {most}")
    opened.page.evaluate("map.source.draw()")
    until(opened, "map.source.isClose && Files.waiting.size === 0 && !map.source.isDue")


def inside(opened: Opened) -> int:
    """How many buildings were loaded to be drawn."""
    return int(opened.page.evaluate("map.source.inSight.reduce((all, own) => all + own.rows.length, 0)"))


def test_the_page_asks_for_files_beside_it_and_for_nothing_else(browser: Browser, folder: Path) -> None:
    assert not [name for name in tree(folder) if name.startswith("report/buildings")] == []
    assert (folder / "report.html").stat().st_size < 100_000
    with open_page(browser, folder / "report.html") as opened:
        close(opened, COUNT)
        assert opened.errors == []
        assert opened.outside() and all(url.startswith((folder / "report").as_uri()) for url in opened.outside())


def test_all_buildings_are_counted_from_afar_and_outlined_close_by(opened: Opened, buildings: Any) -> None:
    page = opened.page
    page.evaluate("Source.MOST = 0; map.source.draw()")
    until(opened, "map.source.circles?.length && Files.waiting.size === 0")
    circles = page.evaluate("map.source.circles")
    grades = buildings["grade"].value_counts()
    assert np.sum([own[4:] for own in circles], axis=0).tolist() == [0, *(int(grades.get(n, 0)) for n in range(1, 5))]
    close(opened, COUNT)
    assert inside(opened) == COUNT
    page.locator('button[data-zoom="in"]').click(click_count=6)
    close(opened, COUNT)
    assert 0 < inside(opened) < COUNT


def test_an_outline_lies_where_the_building_does_and_tells_what_is_known(opened: Opened, buildings: Any) -> None:
    close(opened, COUNT)
    layers = opened.page.locator(".layers").bounding_box()
    assert layers is not None
    scale = layers["width"] / (COLUMNS * STEP)
    for row, column in ((0, 0), (17, 23), (24, 39)):
        at = layers["x"] + (column * STEP + 9) * scale, layers["y"] + (row * STEP + 10) * scale
        opened.page.mouse.click(*at)
        (own,) = buildings[buildings["id"] == row * COLUMNS + column + 1].to_dict("records")
        point = own["geometry"].representative_point()
        assert opened.page.locator("#building").inner_text() == (
            f"Building {own['id']}: {own['damage'].replace('-', ' ')}, confidence {own['confidence']:.2f}, "
            f"{own['area_m2']:.0f} m², at {point.y:.6f} {point.x:.6f}"
        )
    opened.page.mouse.click(layers["x"] + 1, layers["y"] + 1)  # where there is none
    assert opened.page.evaluate("map.source.chosen") is None


def test_grades_and_confidence_filter_what_is_drawn_and_counted(opened: Opened, buildings: Any) -> None:
    page, said = opened.page, opened.page.locator("#shown")
    close(opened, COUNT)
    assert said.inner_text().startswith(f"{COUNT:,} of {COUNT:,} buildings shown, {buildings['area_m2'].sum():,.0f} m²")
    page.locator('input[data-grade="1"]').uncheck()
    least = float(buildings["confidence"].quantile(0.7).round(2))
    page.locator("#confidence").fill(str(least))
    left = buildings[(buildings["grade"] != 1) & (buildings["confidence"].round(3) >= least)]
    assert said.inner_text() == (
        f"{len(left)} of {COUNT:,} buildings shown, {left['area_m2'].sum():,.0f} m²; circles show how many there are, "
        "however sure"
    )
    close(opened, COUNT)
    drawn = page.evaluate("map.source.inSight.flatMap((own) => [...own.paths(map.source.least).keys()])")
    assert set(drawn) == set(buildings[buildings["confidence"].round(3) >= least]["grade"])


def test_judgements_are_those_of_the_draw_and_come_back(
    opened: Opened, folder: Path, draw: Draw, tmp_path: Path
) -> None:
    opened.page.locator("#judge-open").click()
    until(opened, "document.getElementById('judge').open")
    press(opened.page, "0", "4", "u")
    assert text(opened.page, "progress") == "3 of 500 judged"
    assert f"Of the {COUNT:,} buildings of the map" in text(opened.page, "about")
    file = download(opened.page, tmp_path)
    ids = list(range(1, COUNT + 1))
    found = [(own.rank, own.row, own.grade, own.stratum) for own in read_judgements(file, draw, ids)]
    assert found == [(n, draw.order[n], grade, draw.strata[n]) for n, grade in enumerate((0, 4, 255))]
    buildings = json.loads((folder / "buildings.geojson").read_text())["features"]
    for feature in json.loads(file.read_text())["features"]:
        assert feature["geometry"] == buildings[feature["properties"]["row"]]["geometry"]
    come_back(opened.page, "#judge-open", "progress", "3 of 500 judged")


def test_a_page_without_its_folder_says_so_and_a_missing_file_leaves_the_rest(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "report.html", tmp_path)
    with open_page(browser, tmp_path / "report.html") as opened:
        said = opened.page.locator("#building")
        expect(said).to_contain_text("Keep the folder report beside this page.")
        opened.page.locator("#judge-open").click()
        expect(said).to_have_text("report/judge.js cannot be loaded. Keep the folder report beside this page.")
        assert not opened.page.evaluate("document.getElementById('judge').open")
    shutil.copytree(folder, tmp_path / "map")
    missing = sorted((tmp_path / "map" / "report" / "buildings").iterdir())[0]
    lost = len(read(missing)["rows"])
    missing.unlink()
    with open_page(browser, tmp_path / "map" / "report.html") as opened:
        close(opened, COUNT)
        expect(opened.page.locator("#building")).to_contain_text(f"report/buildings/{missing.name} cannot be loaded.")
        assert inside(opened) == COUNT - lost


def test_outlines_keep_holes_and_parts_and_given_ones_beyond_the_images_are_left_out(tmp_path: Path) -> None:
    polygons: list[Any] = [shapely.box(11 + 30 * n, 10, 31 + 30 * n, 30) for n in range(101)]
    polygons[0] = shapely.box(10, 40, 40, 80).difference(shapely.box(20, 50, 30, 60))
    polygons[1] = shapely.MultiPolygon([shapely.box(50, 40, 60, 50), shapely.box(50, 60, 60, 70)])
    damage = np.zeros((100, 1000), np.uint8)
    damage[40:80, 10:40] = 3
    ground = [shapely.transform(own, lambda points: points * (0.5, -0.5) + (500_000, 4_000_000)) for own in polygons]
    names = [f"way/{number}" for number in range(101)]
    geopandas.GeoDataFrame({"id": names}, geometry=ground, crs="EPSG:32633").to_file(tmp_path / "osm.gpkg")
    classes = write_classes(tmp_path / "classes.tif", damage)
    give_out(classes, tmp_path / "out", footprints=tmp_path / "osm.gpkg")
    found = [read(path) for path in sorted((tmp_path / "out" / "report" / "buildings").iterdir())]
    rows = [row for own in found for row in own["rows"]]
    assert sorted(rows) == [n for n, own in enumerate(polygons) if own.bounds[0] < 1000]
    assert [name for own in found for name in own["ids"]] == [names[row] for row in rows]
    (own,) = [own for own in found if 0 in own["rows"]]
    assert own["grades"][own["rows"].index(0)] == 3
    rings = own["rings"][: len(own["rows"])]
    assert rings[own["rows"].index(0)] == rings[own["rows"].index(1)] == 2
    corners = np.array(own["corners"]).reshape(-1, 2).cumsum(0) / 10
    assert {(10, 40), (40, 80), (20, 50), (50, 60)} <= {tuple(point) for point in corners.tolist()}


def read(path: Path) -> Any:
    """What a script of the folder gives to the page."""
    call = path.read_text(encoding="utf-8").strip()
    name, content = json.loads(f"[{call.removeprefix('loaded(').removesuffix(')')}]")
    assert path.as_posix().endswith(f"report/{name}.js")
    return content

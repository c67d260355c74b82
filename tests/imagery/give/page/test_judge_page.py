"""The page's judge mode in a real browser, by keys: it gives out what imagery.sampling and imagery.estimating read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from imagery.estimating.interval import Sums, ratio
from imagery.sampling.draw import Draw
from imagery.sampling.judged import CANNOT_TELL, Judgement, merge, prefix
from imagery.sampling.judgements_file import JUDGE, JUDGEMENTS_FILE, read_draw, read_judgements
from tests.imagery.give.page.judged_page import STEP, come_back, download, give_map, press, text
from tests.imagery.predicted import give_out, write_classes
from tests.servers.browser import Opened, open_page

ROWS, COLUMNS = 6, 10
COUNT = ROWS * COLUMNS
IDS = [*range(1, COUNT + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return give_map(tmp_path_factory.mktemp("small"), ROWS, COLUMNS)


@pytest.fixture
def page(opened: Opened) -> Page:
    opened.page.locator("#judge-open").click()
    return opened.page


def judged(draw: Draw, rank: int, grade: int, judge: str = "") -> Judgement:
    return Judgement(grade, int(draw.order[rank]), rank, int(draw.strata[rank]), judge)


def test_judgements_by_keys_give_the_file_and_outlive_the_page(
    page: Page, folder: Path, draw: Draw, tmp_path: Path
) -> None:
    page.locator("#judge-initials").fill("AB")
    press(page, "Enter", "0", "1", "2", "3", "4", "u", "ArrowRight")  # the last one is skipped
    press(page, "ArrowLeft", "ArrowLeft", "ArrowLeft", "1", "ArrowRight", "ArrowRight", "4")
    grades = [0, 1, 2, 3, 1, CANNOT_TELL, CANNOT_TELL, 4]
    assert text(page, "progress") == "8 of 60 judged"
    assert text(page, "which") == f"building {IDS[draw.order[8]]}, drawn as number 9"
    come_back(page, "#judge-open", "progress", "8 of 60 judged")
    file = download(page, tmp_path)
    found = read_judgements(file, draw, IDS)
    assert found == [judged(draw, rank, grade, "AB") for rank, grade in enumerate(grades)]
    buildings = json.loads((folder / "buildings.geojson").read_text())["features"]
    inclusion = draw.inclusion(8)
    for feature, judgement in zip(json.loads(file.read_text())["features"], found, strict=True):
        building, own = buildings[judgement.row], feature["properties"]
        assert (feature["id"], own["id"]) == (building["id"], building["id"])
        assert feature["geometry"] == building["geometry"]
        assert own["inclusion"] == inclusion[judgement.rank]
        assert (own["map"], 0 <= own["seconds"] < 60) == (draw.map_hash, True)


def test_keys_change_what_is_seen(page: Page) -> None:
    outline, before = page.locator("#judge-after path"), page.locator("#judge-after .blinking")
    assert outline.is_visible() and not before.is_visible()
    press(page, " ", "b")
    assert not outline.is_visible() and before.evaluate("(image) => getComputedStyle(image).animationName") == "blink"
    wide = page.locator("#judge-after svg").bounding_box()
    press(page, " ", "b", "z")
    assert outline.is_visible() and not before.is_visible()
    closer = page.locator("#judge-after svg").bounding_box()
    assert wide is not None and closer is not None and closer["width"] == pytest.approx(2 * wide["width"], rel=0.01)
    bar = page.locator("#judge-after .scale")
    box, said = bar.bounding_box(), float(bar.inner_text().removesuffix(" m"))
    look = page.locator("#judge-after").bounding_box()
    assert box is not None and look is not None
    # A picture is 320 pixels of half a metre, shown four times as large.
    assert box["width"] == pytest.approx(said * 4 * max(look["width"], look["height"]) / 160, rel=0.02)


def test_a_browser_that_keeps_nothing_says_so(page: Page) -> None:
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    press(page, "1")
    assert text(page, "progress") == "1 of 60 judged"
    assert "This browser keeps nothing: download the judgements before you close the page." in text(page, "about")


def test_the_interval_is_that_of_python_whatever_was_judged(opened: Opened) -> None:
    generator = np.random.default_rng(0)
    cases = []
    for _ in range(300):
        sizes = generator.integers(1, generator.choice([5, 60, 40_000]), generator.integers(1, 7))
        counts = np.minimum(sizes, generator.integers(0 if generator.random() < 0.2 else 1, 90, len(sizes)))
        hits = generator.binomial(counts, generator.choice([0, 0.02, 0.3, 0.97, 1], len(sizes)))
        cases.append([part.tolist() for part in (sizes, counts, hits)])
    found = opened.page.evaluate("(cases) => cases.map((one) => designBased(...one))", cases)
    for (sizes, counts, hits), own in zip(cases, found, strict=True):
        judged, of = (np.array([part], np.float64) for part in (counts, hits))
        expected = ratio(np.array(sizes), Sums(judged, judged, judged, of, of), np.array([float(sum(sizes))]))
        for name in ("share", "low", "high"):
            value = float(getattr(expected, name)[0])
            assert own[name] == pytest.approx(value, rel=1e-12, abs=1e-15, nan_ok=True)


def test_the_numbers_shown_are_those_of_the_estimates(page: Page, draw: Draw) -> None:
    generator = np.random.default_rng(5)
    grades = generator.choice([0, 1, 2, 4, CANNOT_TELL], 30, p=[0.1, 0.5, 0.1, 0.2, 0.1]).tolist()
    page.locator("#judge-target").fill("20")
    press(page, "Enter", *("u" if grade == CANNOT_TELL else str(grade) for grade in grades))
    sample = prefix(draw, [judged(draw, rank, grade) for rank, grade in enumerate(grades)])
    counts = draw.taken(30)[None].astype(float)
    for name, wanted in (("destroyed", [4]), ("damaged", [2, 3, 4])):
        own = np.bincount(sample.strata, np.isin(sample.grades, wanted), len(draw.sizes))[None].astype(np.float64)
        share, low, high = (
            float(part[0])
            for part in ratio(draw.sizes, Sums(counts, counts, counts, own, own), np.array([float(COUNT)]))[:3]
        )
        cells = page.locator(f"[data-of={name}] td").all_inner_texts()
        assert cells[:4] == [
            name, f"{share * COUNT:.0f}", f"{low * COUNT:.0f} to {high * COUNT:.0f}",
            f"{100 * share:.1f} % ({100 * low:.1f} % to {100 * high:.1f} %)",
        ]  # fmt: skip
        width = (high - low) * COUNT
        assert cells[4] == ("narrow enough" if width <= 20 else f"{width:.0f} wide")


def test_before_two_of_each_stratum_are_judged_nobody_is_told_more_than_is_known(page: Page, draw: Draw) -> None:
    for rank in range(draw.fewest):
        assert f"Judge {draw.fewest} before" in text(page, "about")
        if not draw.taken(rank).all():
            cells = page.locator("[data-of=damaged] td").all_inner_texts()
            assert cells[1:4] == ["?", f"0 to {COUNT}", ""]
        press(page, "1")
    assert "before you trust" not in text(page, "about")
    assert "0 damaged among the judged, fewer than 10" in text(page, "about")


def test_a_second_persons_file_joins_as_in_python_and_what_differs_is_shown(
    page: Page, draw: Draw, tmp_path: Path
) -> None:
    page.locator("#judge-initials").fill("AB")
    press(page, "Enter", "1", "2", "u", "4")
    mine = read_judgements(download(page, tmp_path), draw, IDS)
    content = json.loads((tmp_path / JUDGEMENTS_FILE).read_text())
    for feature, grade in zip(content["features"], (1, 4, 3, 4), strict=True):
        feature["properties"] |= {"judgement": grade, "judge": "CD"}
    row = int(draw.order[4])
    ranked = {"row": row, "id": IDS[row], "rank": 4, "stratum": int(draw.strata[4]), "judgement": 2, "judge": "CD"}
    content["features"].append({"type": "Feature", "properties": content["features"][0]["properties"] | ranked})
    other = tmp_path / "other.geojson"
    other.write_text(json.dumps(content))
    expected = merge(mine, read_judgements(other, draw, IDS))
    page.locator("#judge-file").set_input_files(other)
    page.locator("#judge-disagreements li").first.wait_for()
    assert (
        text(page, "said") == "other.geojson: 5 judgements, 4 of them of buildings judged here, 2 of these otherwise."
    )
    rows = draw.order.tolist()
    assert page.locator("#judge-disagreements li").all_inner_texts() == [
        f"building {IDS[rows[1]]} AB minor damage or CD destroyed, kept: minor damage",
        f"building {IDS[rows[2]]} AB cannot tell or CD major damage, kept: major damage",
    ]
    assert read_judgements(download(page, tmp_path), draw, IDS) == expected.judgements
    page.locator("#judge-disagreements button").first.click()
    assert text(page, "which") == f"building {IDS[rows[1]]}, drawn as number 2"
    press(page, "3")
    assert "kept: major damage" in page.locator("#judge-disagreements li").first.inner_text()


def test_a_file_that_is_not_of_this_map_changes_nothing(page: Page, tmp_path: Path) -> None:
    press(page, "1")
    file = download(page, tmp_path)
    good = file.read_text()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"map": "x"}, "feature 0: found judgements of another map"),
        ({"id": 9999}, "feature 0: found a building that the map does not hold"),
        ({"row": COUNT}, "feature 0: found a building that the map does not hold"),
        ({"judgement": 5}, "feature 0: found a judgement that is none"),
        ({"rank": 1}, "feature 0: found another order"),
        ({}, "is no JSON"),
    ]
    for change, finding in refused:
        content = json.loads(good)
        content["features"][0]["properties"] |= {"judgement": 4, **change}
        file.write_text(json.dumps(content) if change else "{")
        page.locator("#judge-file").set_input_files(file)
        page.get_by_text(finding).wait_for()
        expected = f"{JUDGEMENTS_FILE}: {finding}. Load the judgements.geojson of this map's page."
        assert text(page, "said") == expected
    press(page, "ArrowLeft")
    assert text(page, "said") == "Judged: no damage."


def test_a_building_picked_on_the_map_is_marked_and_counted_only_when_it_is_drawn(
    opened: Opened, draw: Draw, tmp_path: Path
) -> None:
    page = opened.page
    assert not page.locator("#judge-pick").is_visible()
    row = int(draw.order[1])
    page.locator(f'.viewer .overlay path[data-row="{row}"]').click()
    page.locator("#judge-pick").click()
    assert text(page, "which") == f"building {IDS[row]}, picked"
    press(page, "4")
    assert text(page, "progress") == "0 of 60 judged"
    assert "Picked freely: no estimate counts it." in text(page, "said")
    picked = Judgement(4, row, None, None, "")
    assert read_judgements(download(page, tmp_path), draw, IDS) == [picked]
    press(page, "ArrowRight", "1")
    assert text(page, "said") == "Picked before: destroyed. Next takes it over."
    assert text(page, "progress") == "1 of 60 judged"
    press(page, "ArrowRight")
    assert text(page, "progress") == "2 of 60 judged"
    assert read_judgements(download(page, tmp_path), draw, IDS) == [judged(draw, 0, 1), judged(draw, 1, 4)]


def test_all_500_that_have_pictures_can_be_judged_and_the_page_still_answers(browser: Browser, tmp_path: Path) -> None:
    """Of 504 buildings, of which the last can be picked all the same."""
    folder, ids = give_map(tmp_path, 18, 28), [*range(1, 505)]
    draw, grades = read_draw(folder / JUDGE), np.random.default_rng(1).choice([0, 1, 2, 3, 4], 500).tolist()
    with open_page(browser, folder / "report.html") as opened:
        page = opened.page
        page.locator("#judge-open").click()
        page.evaluate(
            """(grades) => grades.forEach((grade) => document.body.dispatchEvent(
                new KeyboardEvent("keydown", { key: String(grade), bubbles: true, cancelable: true })))""",
            grades,
        )
        assert text(page, "progress") == "500 of 500 judged"
        assert text(page, "which").endswith("drawn as number 500")
        assert "All that were drawn with pictures are judged." in text(page, "said")
        press(page, "ArrowLeft", "u", "Escape")
        last = int(draw.order[-1])
        page.locator(f'.viewer .overlay path[data-row="{last}"]').click()
        page.locator("#judge-pick").click()
        assert page.locator("#judge-after image").first.get_attribute("width") == str(28 * STEP)  # of the whole map
        press(page, "2")
        *found, picked = read_judgements(download(page, tmp_path), draw, ids)
        assert opened.errors == []
    grades[498] = CANNOT_TELL
    assert prefix(draw, found).grades.tolist() == grades
    assert picked == Judgement(2, last, None, None, "")


def test_on_a_phone_all_keys_are_buttons_in_sight(browser: Browser, folder: Path) -> None:
    with open_page(browser, folder / "report.html") as opened:
        page = opened.page
        page.set_viewport_size({"width": 390, "height": 844})
        page.locator("#judge-open").click()
        page.locator("#judge-target").fill("1")
        size = page.evaluate("(d => [d.scrollWidth, d.clientWidth])(document.getElementById('judge'))")
        assert size[0] == size[1] <= 390
        for button in page.locator("#judge .choices button, #judge .moves button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844
            assert box["height"] >= 40
        for look in page.locator(".look").all():
            box = look.bounding_box()
            assert box is not None and box["height"] >= 180 and box["width"] >= 360
        page.get_by_role("button", name="4 destroyed").click()
        page.get_by_role("button", name="next").click()
        page.get_by_role("button", name="back").click()
        assert text(page, "said") == "Judged: cannot tell."
        assert text(page, "progress") == "2 of 60 judged"
        assert opened.errors == []


def test_a_map_without_features_has_nothing_to_judge(folder: Path, tmp_path: Path) -> None:
    give_out(write_classes(tmp_path / "classes.tif", np.ones((64, 64), np.uint8)), tmp_path / "map")
    plain, whole = ((at / "report.html").read_text(encoding="utf-8") for at in (tmp_path / "map", folder))
    assert "judge-open" not in plain and "judge-open" in whole
    assert not (tmp_path / "map" / JUDGE).exists()
    order = whole.partition('id="judge-order">')[2].partition("<")[0]
    assert json.loads(order) == json.loads((folder / JUDGE).read_text())

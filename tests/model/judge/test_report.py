"""The report of an evaluation: what it says, and what it does in a real browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser

from model.inference import Prediction, Probabilities
from model.judge.evaluation import Evaluation, SceneResult, vote
from model.judge.report import PAPER, Shown, choose, read_history, show, thumbnail, write_report
from tests.servers.browser import Opened, open_page
from xbd.scenes import SceneRecord

SIDE = 64
BLUE, GREEN = np.array([[20, 40, 200], [30, 160, 30]], np.uint8)
HISTORY = (
    "epoch,loss_localization,loss_damage,validation_score,validation_localization_f1,validation_damage_f1\n"
    "1,0.5,0.9,,,\n2,0.4,0.8,0.3,0.6,0.2\n"
)
NAME = "<b>odd</b>&_00000001"  # a name that would be read as HTML if it were not escaped


def record(scene: str) -> SceneRecord:
    counts, hashes = (1, 1, 1, 1, 0, 0), ("pre", "post", "label", "array")
    return SceneRecord(scene, "test", "test", "flood-a", "flooding", SIDE, SIDE, *counts, 0.5, 10.0, *hashes)


def scene(grade: int, found: int) -> tuple[Prediction, Probabilities, torch.Tensor]:
    """A building of 20 x 20 pixels labelled with `grade` and predicted as `found`."""
    target = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    target[:, 10:30, 10:30] = grade
    building = (target > 0).float()
    damage = torch.full((1, 4, SIDE, SIDE), 0.1)
    damage[:, found - 1] = 0.7
    localization = building.to(torch.uint8)
    return Prediction(localization, localization * found), Probabilities(building, damage), target


def painted(colour: Any) -> Any:
    return np.broadcast_to(colour, (SIDE, SIDE, 3)).copy()


def evaluated(folder: Path, names: list[tuple[str, int, int]], pictures: int) -> tuple[Evaluation, list[Shown], Path]:
    """A report on one scene for each name, labelled grade and predicted grade."""
    evaluation, small, shown = Evaluation(False, 1), [], []
    for name, grade, found in names:
        prediction, probabilities, target = scene(grade, found)
        small.append(thumbnail(painted(GREEN), evaluation.add(record(name), prediction, probabilities, target)))
    for why, number in choose(evaluation.scenes, pictures):
        prediction, probabilities, target = scene(*names[number][1:])
        grading = vote(prediction, probabilities)
        images = painted(BLUE), painted(GREEN), target[0].numpy()
        shown.append(show(why, evaluation.scenes[number], *images, prediction, grading))
    (folder / "history.csv").write_text(HISTORY)
    history = read_history(folder / "history.csv")
    write_report(folder / "report.html", "Evaluation on <i>x</i>", evaluation, small, shown, history)
    return evaluation, shown, folder / "report.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, list[Shown], Path]:
    names = [(NAME, 4, 4), ("b_00000002", 1, 2), ("c_00000003", 2, 2), ("d_00000004", 3, 1)]
    return evaluated(tmp_path_factory.mktemp("report"), names, pictures=1)


@pytest.fixture
def opened(browser: Browser, report: tuple[Evaluation, list[Shown], Path]) -> Iterator[Opened]:
    with open_page(browser, report[2]) as opened:
        yield opened


def result(name: str, score: float | None) -> SceneResult:
    scores = None if score is None else {"score": score}
    return SceneResult(record(name), scores, torch.zeros(5, 5, dtype=torch.int64))


def test_the_best_the_middle_and_the_worst_are_chosen_and_none_twice() -> None:
    scores = [0.5, None, 0.9, 0.1, 0.7, 0.3, 0.8]
    scenes = [result(f"scene_{number}", score) for number, score in enumerate(scores)]
    assert choose(scenes, 1) == [("best", 2), ("median", 4), ("worst", 3)]
    assert choose(scenes, 2) == [("best", 2), ("best", 6), ("median", 4), ("median", 0), ("worst", 3), ("worst", 5)]
    chosen = choose(scenes, 50)
    assert sorted(number for _, number in chosen) == [0, 2, 3, 4, 5, 6]
    assert choose([result("empty", None)], 3) == []


def rows(opened: Opened, table: str) -> list[list[str]]:
    lines = opened.page.locator(f"#{table} tbody tr").all()
    return [[cell.inner_text() for cell in line.locator("td").all()] for line in lines]


def test_the_tables_tell_the_metrics(report: tuple[Evaluation, list[Shown], Path], opened: Opened) -> None:
    metrics = report[0].metrics()
    per_pixel, per_building, paper = rows(opened, "score")
    keys = ("score", "localization_f1", "damage_f1")
    assert per_pixel[1:] == [f"{metrics[key]:.4f}" for key in keys]
    assert per_building[1:] == [f"{metrics['per_building'][key]:.4f}" for key in keys]
    assert paper[1:] == [f"{PAPER[key]:.4f}" for key in keys]
    assert rows(opened, "confusion")[1] == ["no damage", "0.000", "0.000", "1.000", "0.000", "0.000"]
    assert rows(opened, "grades")[4] == ["destroyed", "1.0000", "1.0000", "1.0000"]


def test_nothing_is_asked_of_the_network_and_every_picture_is_there(opened: Opened) -> None:
    assert opened.unloaded() == []
    assert opened.page.locator("img").count() == 4 + 3 * 4 + 4 * 2  # charts, shown scenes, thumbnails
    assert opened.outside() == []
    assert opened.errors == []


def test_names_and_titles_are_text(opened: Opened) -> None:
    assert opened.page.title() == opened.page.locator("h1").inner_text() == "Evaluation on <i>x</i>"
    # What is in the page, and not what is laid out: sections that nobody scrolled to may not be yet.
    assert NAME in (opened.page.locator("section.scene h3").first.text_content() or "")


def pixel(opened: Opened, x: float) -> Any:
    """The colour shown at a share of the width of the first comparison, near its upper edge."""
    compare = opened.page.locator(".compare").first
    compare.scroll_into_view_if_needed()
    for image in compare.locator("img").all():
        image.evaluate("(image) => image.decode()")
    shot = np.asarray(Image.open(io.BytesIO(compare.screenshot())).convert("RGB"))
    return shot[round(0.1 * shot.shape[0]), round(x * shot.shape[1])].astype(int)


def test_the_slider_uncovers_the_image_after(opened: Opened) -> None:
    slider = opened.page.locator(".compare input").first
    for at, colours in ((50, (BLUE, GREEN)), (10, (GREEN, GREEN)), (90, (BLUE, BLUE))):
        slider.fill(str(at))
        for x, colour in zip((0.35, 0.8), colours, strict=True):
            assert np.abs(pixel(opened, x) - colour).max() < 12, (at, x)
    slider.press("ArrowLeft")
    assert float(slider.input_value()) == 89.5


def test_a_grade_can_be_hidden_in_all_scenes(opened: Opened) -> None:
    outline = opened.page.locator(".overlay path.grade4").first
    assert outline.is_visible()
    assert outline.locator("title").text_content() == "destroyed, confidence 0.70, 400 pixels"
    opened.page.locator('input[data-grade="4"]').uncheck()
    assert not outline.is_visible()
    assert opened.page.locator(".overlay path.grade2").first.is_visible()
    opened.page.locator('input[data-grade="4"]').check()
    assert outline.is_visible()


def test_outlines_lie_on_the_buildings(opened: Opened) -> None:
    box = cast(dict[str, float], opened.page.locator(".overlay path").first.bounding_box())
    frame = cast(dict[str, float], opened.page.locator(".compare").first.bounding_box())
    middle = [(box[at] + box[size] / 2 - frame[at]) / frame["width"] for at, size in (("x", "width"), ("y", "height"))]
    assert middle == pytest.approx([20 / SIDE, 20 / SIDE], abs=0.003)
    assert box["width"] / frame["width"] == pytest.approx(20 / SIDE, abs=0.03)  # the line has a width, too


def test_the_same_evaluation_writes_the_same_page(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pages.append(evaluated(tmp_path / name, [("a_00000001", 1, 1)], pictures=3)[2].read_bytes())
    assert pages[0] == pages[1]


def test_a_page_without_scores_or_curves_is_complete(browser: Browser, tmp_path: Path) -> None:
    evaluation = Evaluation(True, 1)
    prediction, probabilities, target = scene(1, 1)
    small = thumbnail(painted(GREEN), evaluation.add(record("a_00000001"), prediction, probabilities, target * 0))
    write_report(tmp_path / "report.html", "Nothing labelled", evaluation, [small], [], [])
    with open_page(browser, tmp_path / "report.html") as opened:
        assert opened.page.locator(".curve").count() == 0
        assert "no building" in opened.page.locator(".thumbs").inner_text()
        assert opened.unloaded() == opened.errors == []

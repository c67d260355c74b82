"""The report of an evaluation: one HTML page that a person can judge a model by."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from base.grades import KEYS, LEGEND
from model.buildings import Grading, buildings_of
from model.inference import Prediction
from model.judge.evaluation import Evaluation, SceneResult, describe_absence
from model.judge.page import SHARED, Outlined, bar_chart, line_chart, mask, path_of, photo, render
from xbd.overview import Image

# Paper, table 3: xView2's 5th place, scored by the challenge.
PAPER = {"score": 0.7678, "localization_f1": 0.8657, "damage_f1": 0.7258}
_OVERALL = {"score": "score", "localization_f1": "localization F1", "damage_f1": "damage F1"}
_SIDE, _THUMBNAIL = 1024, 110  # pixels


class Thumbnail(NamedTuple):
    """A scene in the list of all: data URIs of its post image and its predicted damage."""

    post: str
    damage: str


class Shown(NamedTuple):
    """A scene of the gallery. why: such as "best"; the others are what the page shows of it."""

    why: str
    result: SceneResult
    width: int
    height: int
    pre: str
    post: str
    target: str
    damage: str
    buildings: list[Outlined]


def thumbnail(post: Image, prediction: Prediction) -> Thumbnail:
    """post: uint8 [H, W, 3]; prediction: of one scene."""
    return Thumbnail(photo(post, _THUMBNAIL, quality=70), mask(prediction.damage[0].numpy(), _THUMBNAIL))


def choose(scenes: Sequence[SceneResult], count: int) -> list[tuple[str, int]]:
    """Which scenes to look at, by their own score: `count` of the best, of the middle and of the worst, each once.

    Returns why and the position in `scenes`. Scenes without a score, which have no building, are not among them.
    """
    ranked = sorted(
        (number for number, scene in enumerate(scenes) if scene.scores is not None),
        key=lambda number: (-_score(scenes[number]), scenes[number].record.scene),
    )
    middle = max(0, (len(ranked) - count) // 2)
    kinds = {"best": ranked[:count], "worst": ranked[::-1][:count], "median": ranked[middle : middle + count]}
    chosen: dict[int, str] = {}
    for why, numbers in kinds.items():
        for number in numbers:
            chosen.setdefault(number, why)
    return [(why, number) for why in ("best", "median", "worst") for number, kind in chosen.items() if kind == why]


def show(
    why: str, result: SceneResult, pre: Image, post: Image, target: Image, scored: Prediction, grading: Grading
) -> Shown:
    """A scene as the gallery shows it. pre, post: uint8 [H, W, 3]; target: uint8 [H, W] of 0-4 and 255."""
    buildings = [
        Outlined(
            building.grade,
            path_of(building.polygon),
            f"{LEGEND[building.grade][0]}, confidence {building.confidence:.2f}, {building.area} pixels",
        )
        for building in buildings_of(grading)
    ]
    pictures = photo(pre, _SIDE), photo(post, _SIDE), mask(target, _SIDE), mask(scored.damage[0].numpy(), _SIDE)
    return Shown(why, result, pre.shape[1], pre.shape[0], *pictures, buildings)


def write_report(
    path: Path,
    title: str,
    evaluation: Evaluation,
    thumbnails: Sequence[Thumbnail],
    shown: Sequence[Shown],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes the page. thumbnails: of `evaluation.scenes`, in their order; history: of the training, or empty."""
    metrics = evaluation.metrics()
    worst_first = sorted(
        zip(evaluation.scenes, thumbnails, strict=True),
        key=lambda pair: (pair[0].scores is None, _score(pair[0]), pair[0].record.scene),
    )
    page = render(
        SHARED / "report.html",
        {
            "title": title,
            "metrics": metrics,
            "rows": _rows(metrics, evaluation.per_building),
            "overall": _OVERALL,
            "grades": ["localization", *KEYS],
            "confusion": evaluation.confusion_shares(),
            "classes": [LEGEND[number][0] for number in range(5)],
            "temperatures": evaluation.temperatures,
            "absence": describe_absence(metrics),
            "disasters": bar_chart({name: _of_present(scores) for name, scores in metrics["per_disaster"].items()}),
            "reliability": line_chart(
                evaluation.reliability() | {"as sure as right": ([0, 1], [0, 1])}, "confidence", "share that is right"
            ),
            "curves": _curves(history),
            "shown": shown,
            "scenes": worst_first,
        },
    )
    path.write_text(page, encoding="utf-8")


def read_history(path: Path) -> list[dict[str, float]]:
    """The records of a history.csv of training, without what an epoch leaves empty.

    Raises OSError, and ValueError, which says what is wrong, where it is no history.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        try:
            names, lines = reader.fieldnames or (), list(reader)
        except csv.Error as error:
            raise ValueError(str(error)) from error
    if "epoch" not in names:
        raise ValueError("has no column epoch")
    records = []
    for number, line in enumerate(lines, start=2):
        record: dict[str, float] = {}
        for name, value in line.items():
            try:
                if value:
                    record[name] = float(value)
            except (TypeError, ValueError):  # the first of more values than columns
                raise ValueError(f"line {number}: found {value!r:.60} for {name}, expected a number") from None
        if "epoch" not in record:
            raise ValueError(f"line {number}: has no epoch")
        records.append(record)
    return records


def _rows(metrics: Mapping[str, Any], per_building: bool) -> list[tuple[str, Mapping[str, float]]]:
    scored = " (what metrics.json calls the score)"
    return [
        (f"this model, each pixel its own grade{'' if per_building else scored}", metrics["per_pixel"]),
        (f"this model, one grade a building{scored if per_building else ''}", metrics["per_building"]),
        ("the paper, xView2 5th place", PAPER),
    ]


def _curves(history: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """What each chart shows, and the chart, as far as the history has its columns."""
    columns = {
        ("loss", "Lovász-softmax"): {"localization loss": "loss_localization", "damage loss": "loss_damage"},
        ("score", "on validation scenes"): {name: f"validation_{key}" for key, name in _OVERALL.items()},
    }
    charts = []
    for (what, label), lines in columns.items():
        filled = {name: [row for row in history if column in row] for name, column in lines.items()}
        if all(filled.values()):
            points = {
                name: ([row["epoch"] for row in rows], [row[lines[name]] for row in rows])
                for name, rows in filled.items()
            }
            charts.append((what, line_chart(points, "epoch", label)))
    return charts


def _of_present(scores: Mapping[str, float]) -> dict[str, float]:
    """A disaster rarely has all grades, and the official rule would show it as failed."""
    return {name: scores.get(f"{key}_present", scores[key]) for key, name in _OVERALL.items()}


def _score(scene: SceneResult) -> float:
    return 0.0 if scene.scores is None else scene.scores["score"]

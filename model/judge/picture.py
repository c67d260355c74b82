"""Pictures of predictions for people: pre, post, target and prediction side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xbd.overview import Image, colour, draw_grid


class Picture(NamedTuple):
    """One row: title; pre, post: uint8 [H, W, 3]; target (None where unknown), prediction: uint8 [H, W]."""

    title: str
    pre: Image
    post: Image
    target: Image | None
    prediction: Image


def draw_predictions(pictures: Sequence[Picture], path: Path) -> None:
    """Writes the rows as one PNG with a legend."""
    rows = []
    for picture in pictures:
        panels = {"before": picture.pre, "after": picture.post}
        if picture.target is not None:
            panels["target"] = colour(picture.target)
        rows.append((picture.title, panels | {"prediction": colour(picture.prediction)}))
    draw_grid(rows, path)

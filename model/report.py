"""Pictures of predictions for people: pre, post, target and prediction side by side, in the paper's colours."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

# Paper, figure 2: white, yellow, orange and red on black.
COLOURS = {
    0: ("background", (0, 0, 0)),
    1: ("no damage", (255, 255, 255)),
    2: ("minor damage", (255, 255, 0)),
    3: ("major damage", (255, 140, 0)),
    4: ("destroyed", (255, 0, 0)),
    255: ("un-classified", (128, 128, 128)),
}
_SIDE = 512  # pixels of a picture in the grid


class Picture(NamedTuple):
    """One row: title; pre, post: uint8 [H, W, 3]; target (None where unknown), prediction: uint8 [H, W]."""

    title: str
    pre: Image
    post: Image
    target: Image | None
    prediction: Image


def colour(mask: Image) -> Image:
    """Classes uint8 [H, W] to uint8 RGB [H, W, 3]."""
    table = np.zeros((256, 3), np.uint8)
    for value, (_, rgb) in COLOURS.items():
        table[value] = rgb
    return table[mask]


def draw_predictions(pictures: Sequence[Picture], path: Path) -> None:
    """Writes the rows as one PNG with a legend."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = 3 + any(picture.target is not None for picture in pictures)
    figure = Figure(figsize=(3.4 * columns, 3.7 * len(pictures) + 0.5), layout="constrained")
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for row, picture in zip(axes, pictures, strict=True):
        panels = [("before", picture.pre), ("after", picture.post)]
        if picture.target is not None:
            panels.append(("target", colour(picture.target)))
        panels.append(("prediction", colour(picture.prediction)))
        for axis in row:
            axis.axis("off")
        for axis, (title, image) in zip(row, panels, strict=False):
            axis.set_title(title if axis is not row[0] else f"{picture.title}\n{title}", fontsize=8, loc="left")
            axis.imshow(_thumbnail(image))
    figure.legend(
        handles=[
            Patch(facecolor=f"#{bytes(rgb).hex()}", edgecolor="black", label=name) for name, rgb in COLOURS.values()
        ],
        loc="outside lower center",
        ncols=len(COLOURS),
        fontsize=8,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _thumbnail(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)

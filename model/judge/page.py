"""Pages for people: one HTML file that holds all it shows and asks no network for anything."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import shapely
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from base.grades import GRADES, LEGEND
from base.images import encode_png
from xbd.overview import Image, colour

SHARED = Path(__file__).parent / "pages"


class Outlined(NamedTuple):
    """A building over an image: its grade 1-4, its outline as an SVG path in pixels, and what is said of it, to readers
    and, as attributes of the path, to the page's script.
    """

    grade: int
    path: str
    title: str
    data: Mapping[str, object] = MappingProxyType({})


def render(template: Path, values: Mapping[str, Any]) -> str:
    """The page of a template, which may take in the files of `SHARED`; all values are escaped.

    The page forbids itself every connection (Content-Security-Policy in page.html).
    """
    return (
        _environment(template.parent).get_template(template.name).render(damage_grades=GRADES, colours=LEGEND, **values)
    )


@cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def photo(image: Image, side: int, quality: int = 80) -> str:
    """A data URI of uint8 RGB [H, W, 3], no longer than `side` pixels, as JPEG."""
    small = cv2.resize(image, shrunk(image, side), interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _data_uri(content.tobytes(), "image/jpeg")


def mask(classes: Image, side: int) -> str:
    """A data URI of classes, uint8 [H, W], in the paper's colours, as PNG."""
    small = cv2.resize(classes, shrunk(classes, side), interpolation=cv2.INTER_NEAREST)
    return _data_uri(encode_png(colour(small.astype(np.uint8))), "image/png")


def shrunk(image: Image, side: int) -> tuple[int, int]:
    """Width and height of the image where neither is larger than `side`."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def path_of(outline: shapely.Polygon | shapely.MultiPolygon) -> str:
    """The outline with its holes as an SVG path, to a tenth of a unit."""
    rings = [
        ring.coords
        for polygon in getattr(outline, "geoms", [outline])
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in list(ring)[:-1]) + "Z" for ring in rings)


def line_chart(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> str:
    """An SVG data URI of named lines, each of x and y values; the same bytes for the same values."""
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axis = figure.subplots()
    for name, (at, values) in lines.items():
        axis.plot(at, values, label=name, marker="." if len(at) < 40 else None)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return _svg(figure)


def bar_chart(groups: Mapping[str, Mapping[str, float]]) -> str:
    """An SVG data URI of shares from 0 to 1: a group of named bars for each key."""
    names = list(next(iter(groups.values())))
    figure = Figure(figsize=(5.2, 0.9 + 0.42 * len(groups)), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(groups))
    for number, name in enumerate(names):
        height = 0.8 / len(names)
        axis.barh(rows + number * height, [group[name] for group in groups.values()], height, label=name)
    axis.set_yticks(rows + 0.4 - 0.4 / len(names), list(groups))
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.grid(axis="x", alpha=0.3)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=len(names))
    return _svg(figure)


def _svg(figure: Figure) -> str:
    from io import BytesIO

    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "page"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri(buffer.getvalue(), "image/svg+xml")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

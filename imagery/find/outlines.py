"""Outlines along the borders of pixels, straightened a little: rectangles where they nearly are some, else no steps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from base.processes import ALONE, Crew
from imagery.find.ground import Geometries
from imagery.find.pixels import Flags, Numbers
from imagery.find.shapes import ROWS, Shapes, StoredShapes, numbers_of, of_wkb, parts_of, wkb_of

RECTANGULAR = 0.88  # intersection over union with a rectangle of the same area, from which a building is one
STEPS = (1.5, 1.0, 0.5)  # pixels: how far a simplified outline may lie from the pixels' own, if its area then stays
AREA = 0.04  # by how much of itself straightening may change an area
_NEAR = 1e-3  # of itself, by which a quick sum of an area is never wrong
_UPRIGHT = 1e-4  # pixels
Points = npt.NDArray[np.floating]
Bounds = npt.NDArray[np.float64]  # west, north, east, south


@dataclass(frozen=True, eq=False)
class Straight:
    """Straightened outlines, of which some keep their pixels' own. bounds: [N, 4] of these own ones."""

    outlines: Shapes
    straight: StoredShapes
    kept: Flags
    bounds: Bounds

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, which: slice | Numbers, /) -> Geometries:
        return of_wkb(self.wkb(which))

    def wkb(self, which: slice | Numbers) -> list[bytes]:
        """A part of them as bytes."""
        numbers = numbers_of(which, len(self))
        found, kept = self.straight.wkb(numbers), np.flatnonzero(self.kept[numbers])
        for place, own in zip(kept.tolist(), wkb_of(self.outlines, numbers[kept]), strict=True):
            found[place] = own
        return found


def straighten(outlines: Shapes, folder: Path, rows: int = ROWS, crew: Crew = ALONE) -> Straight:
    """Polygons in pixels, [N], straightened; holes stay, none vanishes, no two overlap that did not.

    Areas change by 4 % at most. folder: of a disk with room for them. rows: how many are in memory at once, beside
    those that reach down to later ones: few, where the outlines come row by row of pixels. crew: shares the work.
    """
    count = len(outlines)
    straight, changed = StoredShapes(folder), np.zeros(count, bool)
    bounds, boxes = np.zeros((count, 4)), np.zeros((count, 4))
    parts = list(parts_of(count, rows))
    known = crew.map(_straighten_part, (wkb_of(outlines, part) for part in parts))
    for part, (new, are_new, own, around) in zip(parts, known, strict=True):
        straight.append_wkb(new)
        changed[part], bounds[part], boxes[part] = are_new, own, around
    found = Straight(outlines, straight, np.zeros(count, bool), bounds)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *_near(boxes, changed, rows)])
    while len(clashing := _clashing(found, pairs, changed, rows)):
        found.kept[clashing] = True
        pairs = pairs[np.isin(pairs, clashing).any(1)]
    return found


def _straighten_part(known: Sequence[bytes]) -> tuple[list[bytes], Flags, Bounds, Bounds]:
    """Of a part of the outlines: the straightened ones, which are changed, the bounds of the given ones, and the boxes
    around both, [K, 4].
    """
    own = of_wkb(known)
    new = _straightened(own)
    changed = np.asarray(new != own)
    both = np.stack([shapely.bounds(own), shapely.bounds(new)])
    boxes = np.concatenate([both[..., :2].min(0), both[..., 2:].max(0)], axis=1)
    return shapely.to_wkb(new).tolist(), changed, both[0], boxes


def _straightened(outlines: Geometries) -> Geometries:
    straight = outlines.copy()
    numbers, rectangles = _rectangles(outlines)
    straight[numbers] = rectangles
    left = np.setdiff1d(np.arange(len(outlines)), numbers)
    for tolerance in STEPS:
        simple = np.asarray(shapely.simplify(outlines[left], tolerance), dtype=object)
        is_good = shapely.is_valid(simple) & _keep_area(simple, outlines[left])
        straight[left[is_good]] = simple[is_good]
        left = left[~is_good]
    return straight


def _rectangles(outlines: Geometries) -> tuple[Numbers, Geometries]:
    """Numbers of the outlines that nearly are a rectangle; of each the smallest one around it, shrunk to its area."""
    whole = np.flatnonzero(shapely.get_num_interior_rings(outlines) == 0)
    points, owners = shapely.get_coordinates(outlines[whole], return_index=True)
    starts = np.searchsorted(owners, np.arange(len(whole) + 1))
    origins = points[starts[:-1]]
    local = (points - origins[owners]).astype(np.float32)
    areas = shapely.area(outlines[whole])
    numbers, corners = list[int](), list[npt.NDArray[Any]]()
    for number, area in enumerate(areas.tolist()):
        (x, y), (width, height), angle = cv2.minAreaRect(local[starts[number] : starts[number + 1]])
        # The same margin d on all sides: (width - 2 d) (height - 2 d) = area.
        half = (width + height) / 4
        margin = half - math.sqrt(max(0.0, half**2 - (width * height - area) / 4))
        size = width - 2 * margin, height - 2 * margin
        if min(size) > 0:
            numbers.append(number)
            corners.append(cv2.boxPoints(((x, y), size, angle)))
    if not numbers:
        return np.zeros(0, np.int64), np.zeros(0, object)
    found = np.stack(corners)
    rectangles = np.asarray(shapely.polygons(found + origins[numbers][:, None]), dtype=object)
    own = outlines[whole[numbers]]
    both = shapely.area(rectangles) + areas[numbers]
    common = _common(local, starts, numbers, found.astype(np.float64))
    unsure = np.abs(common * (1 + RECTANGULAR) - RECTANGULAR * both) < _NEAR * both
    common[unsure] = shapely.area(shapely.intersection(rectangles[unsure], own[unsure]))
    fits = (common >= RECTANGULAR * (both - common)) & _keep_area(rectangles, own)
    return whole[numbers][fits], rectangles[fits]


def _common(local: Points, starts: Numbers, numbers: Sequence[int], rectangles: Points) -> Points:
    """The area that outlines have in common with rectangles, as float32 has it, [K]: an overlay is ten times slower.
    local: corners of all outlines; starts: of each; numbers: of those asked for; rectangles: [K, 4, 2].

    At each y the outline is as wide within the rectangle as its edges to the right, held within its sides, lie from
    those to the left; so the area is the sum over all edges of the integral of x, held within the sides, over y.
    """
    counts = np.diff(starts)[numbers]
    owners = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(owners)) + np.repeat(starts[:-1][numbers] - np.cumsum(counts) + counts, counts)
    one, other = rectangles[:, 1] - rectangles[:, 0], rectangles[:, 3] - rectangles[:, 0]
    sides = np.stack([np.hypot(*one.T), np.hypot(*other.T)], axis=1)
    axes = np.stack([one, other], axis=2) / sides[:, None]
    turned = np.einsum("ni,nij->nj", local[places] - rectangles[owners, 0], axes[owners])
    is_edge = owners[:-1] == owners[1:]
    x, y = (np.stack([turned[:-1][is_edge], turned[1:][is_edge]])).transpose(2, 0, 1)
    wide, high = sides[owners[:-1][is_edge]].T
    held = y.clip(0, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(y[1] == y[0], 0.0, (held - y[0]) / (y[1] - y[0]))
    x = x[0] + shares * (x[1] - x[0])
    inside = x.clip(0, wide)
    # The integral of clip(x) between two x is that of x within the sides, and the sides beyond.
    integral = inside**2 / 2 + wide * (x - inside) * (x > wide)
    length = x[1] - x[0]
    is_upright = np.abs(length) < _UPRIGHT
    mean = np.where(is_upright, inside.mean(0), np.diff(integral, axis=0)[0] / np.where(is_upright, 1.0, length))
    areas = np.bincount(owners[:-1][is_edge], mean * (held[1] - held[0]), len(counts))
    return np.abs(areas)


def _keep_area(some: Geometries, others: Geometries) -> Flags:
    areas = shapely.area(others)
    return np.asarray(np.abs(shapely.area(some) - areas) <= AREA * areas)


def _near(boxes: Bounds, changed: Flags, rows: int) -> Iterator[Numbers]:
    """Pairs of numbers of outlines whose boxes meet and of which one is changed, [M, 2], each once."""
    later = np.append(np.minimum.accumulate(boxes[::-1, 1])[::-1], np.inf)  # first row of this one and all behind it
    before = np.zeros(0, np.int64)
    for part in parts_of(len(boxes), rows):
        numbers = np.concatenate([before, np.arange(part.start, part.stop)])
        around = np.asarray(shapely.box(*boxes[numbers].T), dtype=object)
        other, one = shapely.STRtree(around).query(around[len(before) :])
        pairs = np.stack([numbers[one], other + part.start], axis=1)
        yield pairs[(pairs[:, 0] < pairs[:, 1]) & changed[pairs].any(1)]
        before = numbers[boxes[numbers, 3] >= later[part.stop]]


def _clashing(found: Straight, pairs: Numbers, changed: Flags, rows: int) -> Numbers:
    """Numbers of the straightened ones that overlap another; the pixels' own outlines never do."""
    over = [np.zeros(0, np.int64)]
    for part in parts_of(len(pairs), rows):
        numbers, places = np.unique(pairs[part], return_inverse=True)
        one, other = found[numbers][places.reshape(-1, 2)].T
        over.append(pairs[part][shapely.area(shapely.intersection(one, other)) > 0].ravel())
    clashing = np.unique(np.concatenate(over))
    return clashing[changed[clashing] & ~found.kept[clashing]]

"""One building, one grade: single buildings out of a localization map, each graded by a vote of its pixels.

The paper names parts of one building with different grades as its weakness (section 4). Here the probabilities of the
grades are added up over the pixels of a building, and the grade with the largest sum is the grade of all of them.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from base.grades import KEYS

Mask = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.floating]
Outline = shapely.Polygon | shapely.MultiPolygon


@dataclass(frozen=True, slots=True)
class Grading:
    """What was voted. labels: [H, W], 0 is background, n is building n. The others have an entry for each n from 0:

    grades: uint8 [N + 1], 1-4, and 0 for the background; confidences: float64 [N + 1], mean probability of that grade
    over the building's pixels; areas: int64 [N + 1], pixels; shares: float64 [N + 1, 4], share of the building's
    pixels whose own most probable grade is no damage, minor, major, destroyed.
    """

    labels: Labels
    grades: Mask
    confidences: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]

    @property
    def damage(self) -> Mask:
        """The damage map, uint8 [H, W]: 0 outside the buildings, and one grade in each."""
        return self.grades[self.labels]


@dataclass(frozen=True, slots=True)
class GradedBuilding:
    """A building of a prediction; number: its label. grade, confidence, area, shares: see `Grading`.

    polygon: along the borders of its pixels, with holes; x to the right, y down, in pixels; the pixel of row r and
    column c covers [c, c + 1] x [r, r + 1]. Its area is the number of pixels.
    """

    number: int
    grade: int
    confidence: float
    area: int
    shares: tuple[float, ...]
    polygon: Outline


def separate(localization: Mask) -> Labels:
    """Single buildings: the parts of the map, [H, W] with buildings above 0, that hang together by sides of pixels.

    Returns their numbers, from 1 in the order of their first pixels, [H, W], 0 for background. Touching buildings stay
    one: splitting them at narrow places by distance transform and watershed found fewer of the true ones in real
    scenes, even on the sharpest map that the network could give (docs/benchmarks.md).
    """
    return cv2.connectedComponents((localization > 0).view(np.uint8), connectivity=4)[1].astype(np.int32, copy=False)


def grade(labels: Labels, probabilities: Floats) -> Grading:
    """Grades each building by the sum of its pixels' probabilities; the lower grade where two sums are equal.

    labels: [H, W], 0 for background: of `separate`, or footprints that are known. probabilities: [4, H, W] of the
    grades. Raises ValueError where the shapes do not fit.
    """
    if probabilities.shape != (len(KEYS), *labels.shape):
        raise ValueError(
            f"grade: probabilities {probabilities.shape} do not fit labels {labels.shape}, expected "
            f"{(len(KEYS), *labels.shape)}."
        )
    inside = np.flatnonzero(labels)
    numbers = labels.ravel()[inside]
    length = int(labels.max(initial=0)) + 1
    flat = probabilities.reshape(len(KEYS), -1)[:, inside]
    votes = np.stack([np.bincount(numbers, part, length) for part in flat], axis=1)
    own = np.bincount(numbers * len(KEYS) + flat.argmax(0), minlength=length * len(KEYS)).reshape(length, -1)
    areas = own.sum(1)
    grades = (votes.argmax(1) + 1).astype(np.uint8)
    grades[areas == 0] = 0  # the background, and numbers of footprints that lie outside
    total = np.maximum(areas, 1)
    return Grading(labels, grades, votes.max(1) / total, areas, own / total[:, None])


def buildings_of(grading: Grading) -> list[GradedBuilding]:
    """The buildings with their polygons, by their numbers. A footprint in several parts has a MultiPolygon."""
    return [
        GradedBuilding(
            number,
            int(grading.grades[number]),
            float(grading.confidences[number]),
            int(grading.areas[number]),
            tuple(grading.shares[number].tolist()),
            polygon,
        )
        for number, polygon in _whole(grading.labels)
    ]


def outlines(labels: Labels) -> Iterator[tuple[int, shapely.Polygon]]:
    """Number and outline of each part of a label that hangs together by sides of pixels; see `GradedBuilding.polygon`.

    By GDAL: seven times as fast as the union of the rows of pixels in shapely, with the same polygons.
    """
    from rasterio.features import shapes

    for shape, number in shapes(labels, labels > 0, connectivity=4):
        shell, *holes = shape["coordinates"]
        yield int(number), shapely.Polygon(shell, holes)


def _whole(labels: Labels) -> list[tuple[int, Outline]]:
    """Number and outline of each building, whatever parts it has."""
    parts: dict[int, list[shapely.Polygon]] = defaultdict(list)
    for number, outline in outlines(labels):
        parts[number].append(outline)
    return [
        (number, cast("Outline", part[0] if len(part) == 1 else shapely.union_all(part)))
        for number, part in sorted(parts.items())
    ]

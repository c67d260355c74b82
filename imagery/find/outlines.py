"""Outlines along the borders of pixels, straightened a little: rectangles where they nearly are some, else no steps."""

import cv2
import numpy as np
import numpy.typing as npt
import shapely

Outlines = npt.NDArray[np.object_]

RECTANGULAR = 0.88  # intersection over union with a rectangle of the same area, from which a building is one
STEPS = (1.5, 1.0, 0.5)  # pixels: how far a simplified outline may lie from the pixels' own, if its area then stays
AREA = 0.04  # by how much of itself straightening may change an area


def straighten(outlines: Outlines) -> Outlines:
    """Polygons in pixels, [N], straightened; holes stay, none vanishes, no two overlap that did not.

    Areas change by 4 % at most.
    """
    straight = np.array([_rectangle(outline) or _simplified(outline) for outline in outlines], dtype=object)
    while len(clashing := _clashing(straight, outlines)):
        straight[clashing] = outlines[clashing]
    return straight


def _rectangle(outline: shapely.Polygon) -> shapely.Polygon | None:
    """The smallest rectangle around it, shrunk to its area, if that is much the same; None for other shapes."""
    if outline.interiors:
        return None
    corners = shapely.get_coordinates(outline.exterior)
    origin = corners[0]
    (x, y), (width, height), angle = cv2.minAreaRect((corners - origin).astype(np.float32))
    # The same margin d on all sides: (width - 2 d) (height - 2 d) = area.
    half = (width + height) / 4
    margin = half - np.sqrt(max(0.0, half**2 - (width * height - outline.area) / 4))
    size = width - 2 * margin, height - 2 * margin
    if min(size) <= 0:
        return None
    rectangle = shapely.Polygon(cv2.boxPoints(((x, y), size, angle)) + origin)
    common = rectangle.intersection(outline).area
    both = rectangle.area + outline.area - common
    return rectangle if common >= RECTANGULAR * both and _keeps_area(rectangle, outline) else None


def _simplified(outline: shapely.Polygon) -> shapely.Geometry:
    for tolerance in STEPS:
        simple = outline.simplify(tolerance)
        if simple.is_valid and _keeps_area(simple, outline):
            return simple
    return outline


def _keeps_area(one: shapely.Geometry, other: shapely.Geometry) -> bool:
    return bool(abs(shapely.area(one) - shapely.area(other)) <= AREA * shapely.area(other))


def _clashing(straight: Outlines, outlines: Outlines) -> npt.NDArray[np.int64]:
    """Straightened ones that overlap another; the pixels' own outlines never do."""
    tree = shapely.STRtree(straight)
    one, other = tree.query(straight, predicate="intersects")
    pairs = one < other
    one, other = one[pairs], other[pairs]
    overlap = shapely.area(shapely.intersection(straight[one], straight[other])) > 0
    found = np.unique(np.concatenate([one[overlap], other[overlap]]))
    clashing: npt.NDArray[np.int64] = found[straight[found] != outlines[found]]
    return clashing

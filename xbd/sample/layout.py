"""What a synthetic scene consists of: streets, buildings, pieces of ground, trees, cars, clouds.

Coordinates are pixels of the image, x to the right (east), y down (south); a pixel is about half a metre.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely

from xbd.sample.filters import on_steps

Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
Roof = Literal["gable", "hip", "flat"]
Surface = Literal["plain", "field", "car park", "water"]

METRES_PER_PIXEL = 0.5
SUBTYPES = ("no-damage", "minor-damage", "major-damage", "destroyed")
CAR_COLOURS: tuple[Colour, ...] = (
    (220, 220, 220), (190, 190, 192), (60, 62, 66), (36, 38, 42), (130, 50, 46), (52, 70, 110),
)  # fmt: skip


@dataclass(frozen=True)
class House:
    """A building. wings: rectangles [4, 2] whose first side is the long one; height in metres; seed of its details."""

    wings: tuple[Points, ...]
    height: float
    roof: Roof
    colour: Colour
    seed: int
    subtype: str = SUBTYPES[0]

    @cached_property
    def polygon(self) -> shapely.Polygon:
        """The walls on the ground."""
        return shapely.Polygon(
            shapely.get_exterior_ring(shapely.union_all([shapely.Polygon(wing) for wing in self.wings]))
        )

    @cached_property
    def outline(self) -> Points:
        """[N, 2] closed ring of the walls on the ground."""
        return np.asarray(self.polygon.exterior.coords, np.float64)

    @cached_property
    def centre(self) -> Points:
        """[2] centre of the main wing."""
        return np.asarray(self.wings[0].mean(axis=0), np.float64)


@dataclass(frozen=True)
class Patch:
    """A piece of ground that is no building: [N, 2] polygon; angle in radians of the rows in it."""

    polygon: Points
    colour: Colour
    surface: Surface = "plain"
    angle: float = 0.0


@dataclass(frozen=True)
class Street:
    """points: [N, 2] middle line; width in pixels."""

    points: Points
    width: float
    colour: Colour


@dataclass
class Layout:
    """A scene of size x size pixels.

    trees: x, y, radius, shade (about 1). cars: x, y, angle in radians, index of the colour. clouds, in the post image
    only: x, y, radius.
    """

    size: int
    streets: list[Street] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    houses: list[House] = field(default_factory=list)
    trees: list[tuple[float, float, float, float]] = field(default_factory=list)
    cars: list[tuple[float, float, float, int]] = field(default_factory=list)
    clouds: list[tuple[float, float, float]] = field(default_factory=list)

    def shows(self, point: Points, margin: float) -> bool:
        """Whether [2] x, y lies in the picture or within `margin` pixels of it."""
        return bool((point > -margin).all() and (point < self.size + margin).all())


@dataclass(frozen=True)
class Frame:
    """The street grid's own axes: u along the streets, v across; bent by a sine so that streets may curve."""

    size: int
    angle: float
    amplitude: float
    wavelength: float
    phase: float

    def to_image(self, points: npt.ArrayLike) -> Points:
        """[N, 2] of u, v to [N, 2] of x, y."""
        u, v = np.asarray(points, np.float64).T
        v = v + self.amplitude * on_steps(np.sin(u / self.wavelength + self.phase))
        cos, sin = unit(self.angle)
        return np.stack([u * cos - v * sin, u * sin + v * cos], axis=1) + self.size / 2

    def angle_at(self, u: float) -> float:
        """Direction of the street in radians."""
        slope = self.amplitude / self.wavelength * math.cos(u / self.wavelength + self.phase)
        return self.angle + math.atan(slope)

    def rectangle(self, u: float, v: float, length: float, width: float, turn: float = 0.0) -> Points:
        """[4, 2] of x, y: centred on u, v, its length along the street, turned by `turn` radians."""
        return rectangle(self.to_image([(u, v)])[0], length, width, self.angle_at(u) + turn)

    def strip(self, u0: float, u1: float, v0: float, v1: float) -> Points:
        """[N, 2] of x, y: the area between two u and two v, its long sides bent as the streets are."""
        u = np.linspace(u0, u1, 12)
        return self.to_image(np.concatenate([np.stack([u, u * 0 + v0], 1), np.stack([u[::-1], u * 0 + v1], 1)]))


def unit(angle: float) -> Points:
    """[2] cosine and sine, the same on every processor."""
    return on_steps([math.cos(angle), math.sin(angle)])


def rectangle(centre: npt.ArrayLike, length: float, width: float, angle: float) -> Points:
    """[4, 2] corners; the first side runs along `angle` (radians)."""
    cos, sin = unit(angle)
    along, across = np.array([cos, sin]) * length / 2, np.array([-sin, cos]) * width / 2
    return np.asarray(centre, np.float64) + np.stack([-along - across, along - across, along + across, across - along])

"""What stands where in a synthetic scene: streets, blocks, buildings with their grades, trees, cars; nothing is drawn.

Coordinates are pixels of the image, x to the right (east), y down (south); a pixel is about half a metre.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import shapely

Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
Roof = Literal["gable", "hip", "flat"]
Surface = Literal["plain", "field", "car park", "water"]

METRES_PER_PIXEL = 0.5
SUBTYPES = ("no-damage", "minor-damage", "major-damage", "destroyed")
GRADE_MIX = (0.45, 0.20, 0.17, 0.18)
UNCLASSIFIED_SHARE = 0.02
EMPTY_SHARE = 1 / 12

# How the blocks between streets are used; the last kind of scene has no building.
KINDS: dict[str, dict[str, float]] = {
    "suburb": {"houses": 0.74, "hall": 0.07, "forest": 0.07, "field": 0.02, "park": 0.07, "bare": 0.03},
    "town": {"houses": 0.58, "hall": 0.26, "forest": 0.03, "park": 0.08, "bare": 0.05},
    "village": {"houses": 0.52, "hall": 0.05, "forest": 0.18, "field": 0.17, "park": 0.05, "bare": 0.03},
    "wild": {"forest": 0.45, "field": 0.37, "park": 0.10, "bare": 0.08},
}
ROOF_COLOURS: tuple[Colour, ...] = (
    (96, 94, 92), (122, 118, 112), (78, 80, 84), (112, 92, 78), (134, 112, 92), (150, 98, 76), (164, 110, 84),
    (186, 182, 174), (206, 206, 204), (148, 142, 128), (92, 78, 66), (108, 122, 126),
)  # fmt: skip
PATIO_COLOURS: tuple[Colour, ...] = ((152, 146, 134), (128, 124, 116), (146, 118, 94), (168, 160, 146))
CAR_COLOURS: tuple[Colour, ...] = ((220, 220, 220), (190, 190, 192), (60, 62, 66), (36, 38, 42), (130, 50, 46), (52, 70, 110))


@dataclass(frozen=True)
class House:
    """A building. wings: rectangles [4, 2] whose first side is the long one; height in metres; seed of its details."""

    wings: tuple[Points, ...]
    height: float
    roof: Roof
    colour: Colour
    seed: int
    subtype: str = SUBTYPES[0]

    @property
    def outline(self) -> Points:
        """[N, 2] closed ring of the walls on the ground."""
        union = shapely.union_all([shapely.Polygon(wing).buffer(0.01, join_style="mitre") for wing in self.wings])
        return np.asarray(union.exterior.coords, np.float64)

    @property
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
    """A scene. trees: rows of x, y, radius (pixels), shade (about 1). cars: rows of x, y, angle (radians), colour."""

    size: int
    streets: list[Street] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    houses: list[House] = field(default_factory=list)
    trees: list[tuple[float, float, float, float]] = field(default_factory=list)
    cars: list[tuple[float, float, float, int]] = field(default_factory=list)


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
        v = v + self.amplitude * np.sin(u / self.wavelength + self.phase)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
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


def rectangle(centre: npt.ArrayLike, length: float, width: float, angle: float) -> Points:
    """[4, 2] corners; the first side runs along `angle` (radians)."""
    along = np.array([math.cos(angle), math.sin(angle)]) * length / 2
    across = np.array([-math.sin(angle), math.cos(angle)]) * width / 2
    return np.asarray(centre, np.float64) + np.stack([-along - across, along - across, along + across, across - along])


def plan_scene(rng: np.random.Generator, size: int) -> Layout:
    """Lays out a scene of size x size pixels and grades its buildings."""
    layout = Layout(size)
    kind = "wild" if rng.random() < EMPTY_SHARE else str(rng.choice(["suburb", "town", "village"], p=[0.5, 0.25, 0.25]))
    bend = rng.uniform(8, 26) if rng.random() < 0.5 else 0.0
    frame = Frame(size, rng.uniform(0, math.pi), bend, rng.uniform(70, 130), rng.uniform(0, 2 * math.pi))
    usages, shares = zip(*KINDS[kind].items(), strict=True)
    reach = 0.75 * size
    asphalt = _tinted(rng, (122, 122, 117), 0.12)
    v = -reach - rng.uniform(0, 90)
    while v < reach:
        depth = rng.uniform(104, 138)
        if kind != "wild" or rng.random() < 0.35:
            line = np.stack([np.linspace(-reach, reach, 80), np.full(80, v)], 1)
            layout.streets.append(Street(frame.to_image(line), rng.uniform(12, 16), asphalt))
        u = -reach - rng.uniform(0, 150)
        while u < reach:
            length = rng.uniform(150, 260)
            if kind != "wild":
                side = Street(frame.to_image([(u, v), (u, v + depth)]), rng.uniform(10, 13), asphalt)
                layout.streets.append(side)
            block = (u + 10, u + length - 10, v + 11, v + depth - 11)
            _BLOCKS[str(rng.choice(usages, p=shares))](rng, layout, frame, block)
            u += length
        v += depth
    _park_on_streets(rng, layout)
    layout.houses = _grade(rng, layout)
    _plant(rng, layout)
    return layout


Block = tuple[float, float, float, float]  # u0, u1, v0, v1 inside the streets


def _houses(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    occupied = rng.uniform(0.75, 1.0)
    for near, facing in ((v0, 1.0), (v1, -1.0)):
        u = u0
        while (lot := rng.uniform(34, 50)) < u1 - u:
            middle, u = u + lot / 2, u + lot
            if rng.random() > occupied:
                continue
            length, width = rng.uniform(18, lot - 7), rng.uniform(16, 27)
            setback = rng.uniform(6, 13)
            turn = rng.normal(0, 0.03) if rng.random() < 0.88 else rng.uniform(-0.5, 0.5)
            v = near + facing * (setback + width / 2)
            house = _house(rng, frame, (middle, v), length, width, turn, facing)
            if not _fits(house, layout):
                continue
            layout.houses.append(house)
            drive = middle + rng.choice((-1, 1)) * length * 0.3
            pavement = _tinted(rng, PATIO_COLOURS[int(rng.integers(2))], 0.1)
            layout.patches.append(Patch(frame.strip(drive - 3, drive + 3, near - facing * 4, v), pavement))
            if rng.random() < 0.6:
                x, y = frame.to_image([(drive, near + facing * setback * 0.4)])[0]
                layout.cars.append((x, y, frame.angle_at(drive) + math.pi / 2, int(rng.integers(len(CAR_COLOURS)))))
            yard = v + facing * (width / 2 + rng.uniform(9, 13))
            if rng.random() < 0.3:
                patio = frame.rectangle(middle + rng.normal(0, 6), yard, rng.uniform(7, 20), rng.uniform(6, 11), turn)
                layout.patches.append(Patch(patio, _tinted(rng, PATIO_COLOURS[int(rng.integers(4))], 0.15)))
            if rng.random() < 0.1:
                pool = frame.rectangle(middle + rng.normal(0, 5), yard, rng.uniform(7, 12), rng.uniform(5, 7), turn)
                layout.patches.append(Patch(pool, _tinted(rng, (92, 158, 176), 0.1)))
            for _ in range(rng.poisson(2.2)):
                spot = frame.to_image([(middle + rng.uniform(-lot, lot) / 2, near + facing * rng.uniform(2, 58))])[0]
                layout.trees.append((spot[0], spot[1], rng.uniform(3, 7.5), rng.normal(1, 0.12)))


def _hall(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    length, width = rng.uniform(0.3, 0.5) * (u1 - u0), rng.uniform(0.45, 0.68) * (v1 - v0)
    u, v = u0 + 8 + length / 2, (v0 + v1) / 2 + rng.uniform(-6, 6)
    lot = Patch(frame.strip(u0, u1, v0, v1), _tinted(rng, (128, 126, 120), 0.15), "car park", frame.angle_at(u))
    layout.patches.append(lot)
    colour = _tinted(rng, ((212, 212, 208), (176, 174, 166), (126, 128, 128), (104, 110, 118))[int(rng.integers(4))], 0.1)
    main = frame.rectangle(u, v, length, width)
    layout.houses.append(House((main,), rng.uniform(4.5, 7), "flat", colour, int(rng.integers(2**31))))
    for row in np.arange(v0 + 10, v1 - 6, 22):
        for spot in np.arange(u0 + length + 20, u1 - 6, 6.5):
            if rng.random() < 0.5:
                x, y = frame.to_image([(spot, row)])[0]
                layout.cars.append((x, y, frame.angle_at(spot) + math.pi / 2, int(rng.integers(len(CAR_COLOURS)))))


def _forest(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    spacing = rng.uniform(7.5, 10)
    grid = np.stack(np.meshgrid(np.arange(u0, u1, spacing), np.arange(v0, v1, spacing)), -1).reshape(-1, 2)
    spots = frame.to_image(grid + rng.normal(0, spacing * 0.35, grid.shape))
    radii, shades = rng.uniform(3.5, 7.5, len(grid)), rng.normal(0.95, 0.1, len(grid))
    layout.patches.append(Patch(frame.strip(u0, u1, v0, v1), (52, 62, 44)))
    kept = rng.random(len(grid)) < 0.93
    layout.trees += [(s[0], s[1], r, h) for s, r, h, k in zip(spots, radii, shades, kept, strict=True) if k]


def _field(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    edges = np.sort([u0, *rng.uniform(u0, u1, int(rng.integers(0, 3))), u1])
    for left, right in zip(edges, edges[1:], strict=False):
        colour = ((118, 112, 78), (146, 126, 98), (92, 108, 66), (128, 100, 78), (104, 116, 84))[int(rng.integers(5))]
        turn = float(rng.choice((0.0, math.pi / 2))) + frame.angle_at((left + right) / 2)
        layout.patches.append(Patch(frame.strip(left, right, v0, v1), _tinted(rng, colour, 0.1), "field", turn))


def _park(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    if rng.random() < 0.5:
        ring = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        wobble = 1 + 0.2 * np.sin(2 * ring + rng.uniform(0, 6)) + 0.1 * np.sin(3 * ring + rng.uniform(0, 6))
        shore = np.stack([np.cos(ring) * (u1 - u0) * 0.3, np.sin(ring) * (v1 - v0) * 0.3], 1) * wobble[:, None]
        pond = frame.to_image(shore + ((u0 + u1) / 2, (v0 + v1) / 2))
        layout.patches.append(Patch(pond, _tinted(rng, (54, 68, 66), 0.15), "water"))
    else:
        for u in np.arange(u0 + 30, u1 - 24, 52):
            court = frame.rectangle(u, (v0 + v1) / 2, 46, 24)
            colour = ((150, 92, 70), (86, 116, 88), (92, 108, 124), (128, 126, 120))[int(rng.integers(4))]
            layout.patches.append(Patch(court, _tinted(rng, colour, 0.1), "car park" if rng.random() < 0.3 else "plain"))
    for u, v in zip(rng.uniform(u0, u1, 26), rng.uniform(v0, v1, 26), strict=True):
        x, y = frame.to_image([(u, v)])[0]
        layout.trees.append((x, y, rng.uniform(3.5, 8), rng.normal(1, 0.12)))


def _bare(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    for _ in range(int(rng.integers(3, 9))):
        u, v = rng.uniform(u0 + 20, u1 - 20), rng.uniform(v0 + 12, v1 - 12)
        area = frame.rectangle(u, v, rng.uniform(16, 60), rng.uniform(14, 34), rng.normal(0, 0.1))
        layout.patches.append(Patch(area, _tinted(rng, ((150, 122, 94), (134, 116, 98), (116, 112, 106))[int(rng.integers(3))], 0.15)))


_BLOCKS: dict[str, Callable[[np.random.Generator, Layout, Frame, Block], None]] = {
    "houses": _houses, "hall": _hall, "forest": _forest, "field": _field, "park": _park, "bare": _bare,
}  # fmt: skip


def _house(
    rng: np.random.Generator, frame: Frame, spot: tuple[float, float], length: float, width: float, turn: float,
    facing: float,
) -> House:  # fmt: skip
    main = frame.rectangle(*spot, length, width, turn)
    wings = [main]
    if (shape := rng.random()) < 0.45:
        share = rng.uniform(0.35, 0.5)
        along = 0.0 if shape < 0.12 else float(rng.choice((-1, 1))) * (1 - share) / 2
        out = rng.uniform(5, 9)
        u_axis, v_axis = main[1] - main[0], (main[3] - main[0]) / width * facing
        angle = frame.angle_at(spot[0]) + turn
        centre = main.mean(axis=0) + along * u_axis + v_axis * out / 2
        wings.append(rectangle(centre, width + out, share * length, angle + math.pi / 2))
    if length < width:
        wings[0] = np.roll(main, -1, axis=0)
    roof: Roof = "gable" if (kind := rng.random()) < 0.55 else "hip" if kind < 0.85 else "flat"
    colour = _tinted(rng, ROOF_COLOURS[int(rng.integers(len(ROOF_COLOURS)))], 0.12)
    return House(tuple(wings), rng.uniform(2.8, 5), roof, colour, int(rng.integers(2**31)))


def _fits(house: House, layout: Layout) -> bool:
    """Whether a house keeps a pixel's distance from those already there."""
    polygon = shapely.Polygon(house.outline)
    return all(
        polygon.distance(shapely.Polygon(other.outline)) > 1.5
        for other in layout.houses
        if np.abs(other.centre - house.centre).max() < 120
    )


def _grade(rng: np.random.Generator, layout: Layout) -> list[House]:
    """Grades by a share drawn for the scene; damage grows in one direction, as along a storm's or a fire's path."""
    mix = np.cumsum(rng.dirichlet(np.array(GRADE_MIX) * 8))
    heading = rng.uniform(0, 2 * math.pi)
    path = np.array([math.cos(heading), math.sin(heading)]) / layout.size * 2
    severity = [house.centre @ path + rng.normal(0, 0.6) for house in layout.houses]
    ranks = (np.argsort(np.argsort(severity)) + rng.random()) / max(len(severity), 1)
    grades = np.minimum(np.searchsorted(mix, ranks), len(SUBTYPES) - 1)
    hidden = rng.random(len(severity)) < UNCLASSIFIED_SHARE
    return [
        House(h.wings, h.height, h.roof, h.colour, h.seed, "un-classified" if hide else SUBTYPES[int(grade)])
        for h, grade, hide in zip(layout.houses, grades, hidden, strict=True)
    ]


def _park_on_streets(rng: np.random.Generator, layout: Layout) -> None:
    for street in layout.streets:
        for start, end in zip(street.points, street.points[1:], strict=False):
            along = end - start
            if rng.random() < 0.03 * float(np.hypot(*along)) / 10:
                side = np.array([-along[1], along[0]]) / np.hypot(*along) * street.width * 0.3 * rng.choice((-1, 1))
                x, y = start + along * rng.random() + side
                colour = int(rng.integers(len(CAR_COLOURS)))
                layout.cars.append((x, y, math.atan2(along[1], along[0]), colour))


def _plant(rng: np.random.Generator, layout: Layout) -> None:
    """Adds trees along nothing in particular and drops those in view of no one, on streets, or on most roofs."""
    for x, y in rng.uniform(0, layout.size, (int(layout.size**2 / 9000), 2)):
        for _ in range(int(rng.integers(1, 6))):
            layout.trees.append((*(rng.normal((x, y), 7)), rng.uniform(3, 7), rng.normal(1, 0.12)))
    taken = np.zeros((layout.size, layout.size), np.uint8)
    for street in layout.streets:
        cv2.polylines(taken, [street.points.astype(np.int32)], False, 1, int(street.width) + 4)
    for house in layout.houses:
        cv2.fillPoly(taken, [house.outline.astype(np.int32)], 1)
        cv2.polylines(taken, [house.outline.astype(np.int32)], True, 1, 4)
    limit = layout.size + 10
    layout.trees = [
        tree
        for tree in layout.trees
        if -10 < tree[0] < limit and -10 < tree[1] < limit
        and (not taken[tuple(np.clip((tree[1], tree[0]), 0, layout.size - 1).astype(int))] or rng.random() < 0.04)
    ]  # fmt: skip


def _tinted(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = np.clip(np.asarray(colour) * rng.normal(1, spread) * rng.normal(1, spread / 4, 3), 10, 245)
    return float(red), float(green), float(blue)

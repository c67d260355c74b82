"""Plans a synthetic scene: streets, the blocks between them and what is built there, grades of damage, trees, cars."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np

from xbd.sample.layout import (
    CAR_COLOURS,
    SUBTYPES,
    Colour,
    Frame,
    House,
    Layout,
    Patch,
    Roof,
    Street,
    rectangle,
    unit,
)

GRADE_MIX = (0.45, 0.20, 0.17, 0.18)
CLOUDY_SHARE = 0.3  # of the scenes; about 2 % of the buildings are then hidden, and so un-classified
EMPTY_SHARE = 1 / 12

# How the blocks between streets are used; the last one has no building.
PLACES: dict[str, dict[str, float]] = {
    "suburb": {"houses": 0.78, "hall": 0.03, "forest": 0.07, "field": 0.02, "park": 0.07, "bare": 0.03},
    "town": {"houses": 0.74, "hall": 0.10, "forest": 0.03, "park": 0.08, "bare": 0.05},
    "village": {"houses": 0.52, "hall": 0.05, "forest": 0.18, "field": 0.17, "park": 0.05, "bare": 0.03},
    "wild": {"forest": 0.45, "field": 0.37, "park": 0.10, "bare": 0.08},
}
ROOF_COLOURS: tuple[Colour, ...] = (
    (96, 94, 92), (122, 118, 112), (78, 80, 84), (112, 92, 78), (134, 112, 92), (150, 98, 76), (164, 110, 84),
    (186, 182, 174), (206, 206, 204), (148, 142, 128), (92, 78, 66), (108, 122, 126),
)  # fmt: skip
PATIO_COLOURS: tuple[Colour, ...] = ((152, 146, 134), (128, 124, 116), (146, 118, 94), (168, 160, 146))

Block = tuple[float, float, float, float]  # u0, u1, v0, v1 inside the streets


def plan_scene(rng: np.random.Generator, size: int) -> Layout:
    """Lays out a scene of size x size pixels and grades its buildings."""
    layout = Layout(size)
    place = (
        "wild" if rng.random() < EMPTY_SHARE else str(rng.choice(["suburb", "town", "village"], p=[0.5, 0.25, 0.25]))
    )
    bend = rng.uniform(8, 26) if rng.random() < 0.5 else 0.0
    frame = Frame(size, rng.uniform(0, math.pi), bend, rng.uniform(70, 130), rng.uniform(0, 2 * math.pi))
    usages, shares = zip(*PLACES[place].items(), strict=True)
    reach = 0.75 * size
    asphalt = _tinted(rng, (122, 122, 117), 0.12)
    v = -reach - rng.uniform(0, 90)
    while v < reach:
        depth = rng.uniform(104, 138)
        if place != "wild" or rng.random() < 0.35:
            line = np.stack([np.linspace(-reach, reach, 80), np.full(80, v)], 1)
            layout.streets.append(Street(frame.to_image(line), rng.uniform(12, 16), asphalt))
        u = -reach - rng.uniform(0, 150)
        while u < reach:
            length = rng.uniform(150, 260)
            if place != "wild" and rng.random() < 0.75:
                side = Street(frame.to_image([(u, v), (u, v + depth)]), rng.uniform(10, 13), asphalt)
                layout.streets.append(side)
            block = (u + 10, u + length - 10, v + 11, v + depth - 11)
            if layout.shows(frame.to_image([(u + length / 2, v + depth / 2)])[0], 170):
                _BLOCKS[str(rng.choice(usages, p=shares))](rng, layout, frame, block)
            u += length
        v += depth
    _park_on_streets(rng, layout)
    layout.patches = [
        p for p in layout.patches if (p.polygon.max(0) > -10).all() and (p.polygon.min(0) < size + 10).all()
    ]
    if rng.random() < CLOUDY_SHARE:
        x, y = rng.uniform(0, size, 2)
        layout.clouds.append((x, y, size * rng.uniform(0.09, 0.2)))
    layout.houses = [house for house in layout.houses if layout.shows(house.centre, 25)]
    layout.houses = _grade(rng, layout)
    _plant(rng, layout)
    return layout


def _houses(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    occupied, greenery = rng.uniform(0.75, 1.0), rng.uniform(1.5, 6)
    for near, facing in ((v0, 1.0), (v1, -1.0)):
        u = u0
        while (lot := rng.uniform(38, 54)) < u1 - u:
            middle, u = u + lot / 2, u + lot
            if rng.random() > occupied or not layout.shows(frame.to_image([(middle, near)])[0], 80):
                continue
            length, width = rng.uniform(22, lot - 6), rng.uniform(20, 34)
            setback = rng.uniform(5, 10)
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
            for _ in range(rng.poisson(greenery)):
                spot = frame.to_image([(middle + rng.uniform(-lot, lot) / 2, near + facing * rng.uniform(2, 58))])[0]
                layout.trees.append((spot[0], spot[1], rng.uniform(3, 8.5), rng.normal(1, 0.12)))


def _hall(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    length, width = rng.uniform(0.3, 0.5) * (u1 - u0), rng.uniform(0.45, 0.68) * (v1 - v0)
    u, v = u0 + 8 + length / 2, (v0 + v1) / 2 + rng.uniform(-6, 6)
    lot = Patch(frame.strip(u0, u1, v0, v1), _tinted(rng, (128, 126, 120), 0.15), "car park", frame.angle_at(u))
    layout.patches.append(lot)
    colour = _tinted(
        rng, ((212, 212, 208), (176, 174, 166), (126, 128, 128), (104, 110, 118))[int(rng.integers(4))], 0.1
    )
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
    for left, right in pairwise(edges):
        colour = ((118, 112, 78), (146, 126, 98), (92, 108, 66), (128, 100, 78), (104, 116, 84))[int(rng.integers(5))]
        turn = float(rng.choice((0.0, math.pi / 2))) + frame.angle_at((left + right) / 2)
        layout.patches.append(Patch(frame.strip(left, right, v0, v1), _tinted(rng, colour, 0.1), "field", turn))


def _park(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    if rng.random() < 0.5:
        ring = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        wobble = 1 + 0.2 * np.sin(2 * ring + rng.uniform(0, 6)) + 0.1 * np.sin(3 * ring + rng.uniform(0, 6))
        shore = np.stack([np.cos(ring) * (u1 - u0) * 0.3, np.sin(ring) * (v1 - v0) * 0.3], 1) * wobble[:, None]
        pond = frame.to_image(shore + np.array([u0 + u1, v0 + v1]) / 2)
        layout.patches.append(Patch(pond, _tinted(rng, (54, 68, 66), 0.15), "water"))
    else:
        for u in np.arange(u0 + 30, u1 - 24, 52):
            court = frame.rectangle(u, (v0 + v1) / 2, 46, 24)
            colour = ((150, 92, 70), (86, 116, 88), (92, 108, 124), (128, 126, 120))[int(rng.integers(4))]
            layout.patches.append(
                Patch(court, _tinted(rng, colour, 0.1), "car park" if rng.random() < 0.3 else "plain")
            )
    for u, v in zip(rng.uniform(u0, u1, 26), rng.uniform(v0, v1, 26), strict=True):
        x, y = frame.to_image([(u, v)])[0]
        layout.trees.append((x, y, rng.uniform(3.5, 8), rng.normal(1, 0.12)))


def _bare(rng: np.random.Generator, layout: Layout, frame: Frame, block: Block) -> None:
    u0, u1, v0, v1 = block
    for _ in range(int(rng.integers(3, 9))):
        u, v = rng.uniform(u0 + 20, u1 - 20), rng.uniform(v0 + 12, v1 - 12)
        area = frame.rectangle(u, v, rng.uniform(16, 60), rng.uniform(14, 34), rng.normal(0, 0.1))
        layout.patches.append(
            Patch(area, _tinted(rng, ((150, 122, 94), (134, 116, 98), (116, 112, 106))[int(rng.integers(3))], 0.15))
        )


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
    return all(
        house.polygon.distance(other.polygon) > 1.5
        for other in layout.houses
        if abs(other.centre[0] - house.centre[0]) < 60 and abs(other.centre[1] - house.centre[1]) < 60
    )


def _grade(rng: np.random.Generator, layout: Layout) -> list[House]:
    """Grades by a share drawn for the scene; damage grows in one direction, as along a storm's or a fire's path."""
    mix = np.cumsum(rng.dirichlet(np.array(GRADE_MIX) * 14))
    path = unit(rng.uniform(0, 2 * math.pi)) / layout.size * 2
    severity = [house.centre @ path + rng.normal(0, 0.6) for house in layout.houses]
    ranks = (np.argsort(np.argsort(severity)) + rng.random()) / max(len(severity), 1)
    grades = np.minimum(np.searchsorted(mix, ranks), len(SUBTYPES) - 1)
    return [
        replace(house, subtype="un-classified" if _is_hidden(house, layout) else SUBTYPES[int(grade)])
        for house, grade in zip(layout.houses, grades, strict=True)
    ]


def _is_hidden(house: House, layout: Layout) -> bool:
    """Whether a cloud covers the building's centre."""
    return any(math.dist(house.centre, (x, y)) < 1.05 * radius for x, y, radius in layout.clouds)


def _park_on_streets(rng: np.random.Generator, layout: Layout) -> None:
    for street in layout.streets:
        for start, end in pairwise(street.points):
            along = end - start
            if rng.random() < 0.03 * float(np.hypot(*along)) / 10:
                side = np.array([-along[1], along[0]]) / np.hypot(*along) * street.width * 0.3 * rng.choice((-1, 1))
                x, y = start + along * rng.random() + side
                colour = int(rng.integers(len(CAR_COLOURS)))
                layout.cars.append((x, y, math.atan2(along[1], along[0]), colour))


def _plant(rng: np.random.Generator, layout: Layout) -> None:
    """Adds scattered trees and drops those out of view, in water, on streets or roofs (but a few)."""
    for x, y in rng.uniform(0, layout.size, (int(layout.size**2 / 9000), 2)):
        for _ in range(int(rng.integers(1, 6))):
            layout.trees.append((*(rng.normal((x, y), 7)), rng.uniform(3, 7), rng.normal(1, 0.12)))
    taken = np.zeros((layout.size, layout.size), np.uint8)
    for street in layout.streets:
        cv2.polylines(taken, [street.points.astype(np.int32)], False, 1, int(street.width) + 4)
    for patch in layout.patches:
        if patch.surface == "water":
            cv2.fillPoly(taken, [patch.polygon.astype(np.int32)], 1)
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

"""What an event does to a synthetic scene, so that each grade of xBD's Joint Damage Scale can be seen from above.

Minor: some of the roof missing or covered, partly burnt, or water around it. Major: a large part missing or
collapsed, or surrounded by water and mud. Destroyed: rubble, ash or a slab where the building stood.
"""

import math
from itertools import pairwise

import cv2
import numpy as np

from xbd.sample.canvas import SCALE, Canvas, noise
from xbd.sample.filters import FloatField, blur, normals, smooth
from xbd.sample.layout import Colour, House, Layout, Points, unit

MINOR_SHARE = (0.2, 0.35)  # of the roof
MAJOR_SHARE = (0.5, 0.65)
TARP: Colour = (58, 86, 160)
HOLE: dict[str, Colour] = {
    "wind": (84, 70, 58), "fire": (44, 40, 38), "flooding": (80, 70, 56), "earthquake": (92, 86, 80),
}  # fmt: skip
# How strongly buildings of a grade push burnt ground, mud or water around them, or keep it away.
BURNT = {"no-damage": -1.0, "minor-damage": 0.35, "major-damage": 1.0, "destroyed": 1.3}
MUDDY = {"no-damage": -0.9, "minor-damage": 0.6, "major-damage": 1.4, "destroyed": 1.5}
UNDER_WATER = {"no-damage": -1.6, "minor-damage": 0.8, "major-damage": 1.7, "destroyed": 0.45}
# How far debris flies around a building, in pixels, and how many pieces of it.
DEBRIS = {"wind": (14, 30), "earthquake": (6, 8)}
RUBBLE: dict[str, tuple[Colour, ...]] = {
    "wind": ((188, 176, 158), (150, 128, 104), (206, 204, 200), (96, 86, 76), (120, 104, 88), (170, 144, 116)),
    "fire": ((172, 164, 156), (120, 114, 108), (64, 60, 58), (196, 190, 184), (90, 82, 76), (146, 128, 114)),
    "flooding": ((130, 112, 88), (156, 138, 112), (100, 86, 68), (178, 168, 150), (112, 98, 80), (88, 78, 64)),
    "earthquake": ((184, 178, 168), (160, 154, 146), (200, 194, 184), (128, 122, 116), (98, 94, 90), (168, 150, 130)),
}
SLAB: dict[str, Colour] = {
    "wind": (172, 168, 160), "fire": (128, 122, 116), "flooding": (138, 126, 106), "earthquake": (164, 158, 150),
}  # fmt: skip


def roof_height(house: House, disaster_type: str | None) -> float:
    """Metres; disaster_type is None before the event. Collapsed buildings cast hardly a shadow."""
    if disaster_type is None or house.subtype in ("no-damage", "minor-damage", "un-classified"):
        return house.height
    if house.subtype == "destroyed":
        return 0.6
    return house.height * (1.0 if disaster_type == "flooding" else 0.75)


def damage_ground(canvas: Canvas, layout: Layout, disaster_type: str, rng: np.random.Generator) -> None:
    """Burnt ground, water, mud or scattered debris around the damaged buildings."""
    if disaster_type == "fire":
        canvas.blend((58, 50, 44), 0.72 * _influence(layout, rng, BURNT))
    elif disaster_type == "flooding":
        canvas.blend((134, 114, 86), 0.65 * _influence(layout, rng, MUDDY))
        turbid = rng.random()
        water = [turbid * muddy + (1 - turbid) * dark for muddy, dark in zip((116, 98, 72), (58, 62, 54), strict=True)]
        canvas.blend(water, 0.93 * _influence(layout, rng, UNDER_WATER))
    else:
        reach, pieces = DEBRIS[disaster_type]
        for house in layout.houses:
            amount = {"minor-damage": 0.25, "major-damage": 0.7, "destroyed": 1.0}.get(house.subtype, 0.0)
            spread = reach + float(np.ptp(house.outline, axis=0).mean()) * 0.35
            _scatter(
                canvas, house.centre + rng.normal(0, spread, (int(pieces * amount), 2)), RUBBLE[disaster_type], rng
            )


def damage_roof(canvas: Canvas, house: House, lean: Points, disaster_type: str) -> None:
    """Draws the damage over the roof (or, where nothing stands, over the footprint)."""
    rng = np.random.default_rng(house.seed + 1)
    outline = house.outline + lean
    if house.subtype == "minor-damage":
        if disaster_type == "flooding" and rng.random() < 0.65:
            _stain(canvas, outline, rng.uniform(0.2, 0.35), rng)
        elif disaster_type == "wind" and rng.random() < 0.4:
            _cover_roof(canvas, house, lean, rng.uniform(*MINOR_SHARE), rng)
        else:
            _lose_roof(canvas, outline, rng.uniform(*MINOR_SHARE), disaster_type, rng)
    elif house.subtype == "major-damage":
        if disaster_type == "flooding" and rng.random() < 0.6:
            _stain(canvas, outline, rng.uniform(0.5, 0.7), rng)
        else:
            lost = _lose_roof(canvas, outline, rng.uniform(*MAJOR_SHARE), disaster_type, rng)
            _scatter(canvas, lost + rng.normal(0, 3.5, lost.shape), RUBBLE[disaster_type], rng)
    elif house.subtype == "destroyed":
        _destroy(canvas, outline, disaster_type, rng)


def _destroy(canvas: Canvas, outline: Points, disaster_type: str, rng: np.random.Generator) -> None:
    """A field of rubble, or little more than the slab; after a fire ash, with traces of the walls."""
    slab = np.asarray(SLAB[disaster_type]) * rng.normal(1, 0.08)
    cleared = rng.random() < 0.25
    canvas.fill(outline, tuple(slab * (1.05 if cleared else 0.78)))
    low, high = outline.min(axis=0), outline.max(axis=0)
    density = (0.35 if cleared else 1.4) * rng.uniform(0.7, 1.2)
    spots = rng.uniform(low, high, (int(np.prod(high - low) * density / 5), 2))
    ring = outline.astype(np.float32)
    spots = spots[[cv2.pointPolygonTest(ring, (x, y), False) >= 0 for x, y in spots.tolist()]]
    reach = rng.uniform(0.5, 1.5) if disaster_type == "fire" else rng.uniform(1.5, 3.5)
    _scatter(canvas, spots + rng.normal(0, reach, spots.shape), RUBBLE[disaster_type], rng)
    if disaster_type == "fire":
        for start, end in pairwise(outline):
            for piece in np.linspace(0, 1, 5)[:-1]:
                if rng.random() < 0.55:
                    wall = start + np.outer((piece, piece + 0.25), end - start)
                    canvas.line(wall, tuple(slab * rng.uniform(1.1, 1.45)), 0.6)


def _cover_roof(canvas: Canvas, house: House, lean: Points, share: float, rng: np.random.Generator) -> None:
    """Tarpaulins, aligned with the roof, over about `share` of it."""
    wing = house.wings[0] + lean
    along, across = wing[1] - wing[0], wing[3] - wing[0]
    with canvas.clipped(house.outline + lean) as part:
        for part_share in [share] if rng.random() < 0.5 else [share / 2] * 2:
            width = rng.uniform(0.45, 0.6)
            length = part_share / width
            corner = wing[0] + along * rng.uniform(0, 1 - length) + across * rng.choice((0.0, 1 - width))
            side, down = along * length, across * width
            sheet = np.stack([corner, corner + side, corner + side + down, corner + down])
            part.fill(sheet + rng.normal(0, 0.7, (4, 2)), tuple(np.asarray(TARP) * rng.uniform(0.85, 1.15)))


def _lose_roof(canvas: Canvas, outline: Points, share: float, disaster_type: str, rng: np.random.Generator) -> Points:
    """Replaces a share of the roof's area, from one side, by what is under it; returns [N, 2] places where it is."""
    view, inside = canvas.window(outline)
    height, width = inside.shape
    if inside.sum() < 8:
        return np.zeros((0, 2))
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = unit(rng.uniform(0, 2 * math.pi))
    slope = (rows / height - 0.5) * y + (columns / width - 0.5) * x
    rank = slope * 3 + _grain(inside.shape, 12, rng) * 0.5
    lost = inside & (rank > np.quantile(rank[inside], 1 - share))
    view[lost] = np.clip(
        np.array(HOLE[disaster_type]) * (1 + 0.3 * _grain(inside.shape, 2, rng)[lost][:, None]), 0, 255
    )
    if disaster_type == "fire":
        soot = blur(lost.astype(np.float64), 5) * 0.75
        soot[~inside] *= 0.5
        view[:] = view * (1 - soot[..., None]) + soot[..., None] * np.array((48, 44, 42))
    with canvas.clipped(outline) as part:
        pixels = np.argwhere(lost)[rng.integers(lost.sum(), size=int(lost.sum() / 45) + 1), ::-1]
        places = pixels / SCALE - part.shift
        if disaster_type != "fire":
            _scatter(part, places, RUBBLE[disaster_type], rng)
    return np.asarray(places, np.float64)


def _scatter(canvas: Canvas, spots: Points, colours: tuple[Colour, ...], rng: np.random.Generator) -> None:
    """Pieces of debris, one at each spot [N, 2]."""
    angles, lengths = rng.uniform(0, math.pi, len(spots)), rng.exponential(1.6, len(spots)) + 0.6
    tips = spots + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
    tones = np.array(colours)[rng.integers(len(colours), size=len(spots))] * rng.normal(1, 0.12, (len(spots), 1))
    widths = rng.choice((0.5, 1.0, 1.5), len(spots), p=(0.45, 0.4, 0.15))
    canvas.strokes(np.stack([spots, tips], axis=1), tones.tolist(), widths.tolist())


def _stain(canvas: Canvas, outline: Points, strength: float, rng: np.random.Generator) -> None:
    """Mud on the roof, in `strength` of its colour."""
    view, inside = canvas.window(outline)
    share = np.clip((_grain(inside.shape, 10, rng) * 0.6 + 1) * strength, 0, 0.8)[..., None] * inside[..., None]
    view[:] = view * (1 - share) + share * np.array((122, 106, 82))


def _influence(layout: Layout, rng: np.random.Generator, weights: dict[str, float]) -> FloatField:
    """[H/4, W/4] in [0, 1]: where buildings of positive weight outdo those of negative weight, with noise."""
    small = max(layout.size // 4, 8)
    field: FloatField = np.zeros((small, small))
    for house in layout.houses:
        if weight := weights.get(house.subtype, 0.0):
            stamp = np.zeros((small, small), np.uint8)
            # A minor grade means one side only.
            aside = rng.normal(0, 1, 2) if house.subtype == "minor-damage" else np.zeros(2)
            aside *= float(np.ptp(house.outline, axis=0).mean()) * 0.45 / max(float(np.hypot(*aside)), 1.0)
            ring = ((house.outline + aside) * small / layout.size).round().astype(np.int32)
            cv2.fillPoly(stamp, [ring], 1)
            cv2.polylines(stamp, [ring], True, 1, 6 if weight > 0 else 3)
            field = np.where(np.abs(weight * stamp) > np.abs(field), weight * stamp, field)
    soft = blur(field, 2.6) + 0.2 * noise(rng, small, (24, 8, 4))
    return np.asarray(np.clip((soft - 0.28) * 4, 0, 1))


def _grain(shape: tuple[int, ...], scale: int, rng: np.random.Generator) -> FloatField:
    """[h, w], mean 0: noise with grains of `scale` pixels of the canvas."""
    height, width = shape
    return smooth(normals(rng, (height // scale + 3, width // scale + 3)), (height, width), cubic=True)

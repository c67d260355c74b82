"""What an event does to a synthetic scene, so that each grade of xBD's Joint Damage Scale can be seen from above.

Minor: some of the roof missing or covered, partly burnt, or water around it. Major: a large part missing or
collapsed, or surrounded by water and mud. Destroyed: rubble, ash or a slab where the building stood.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from xbd.synthetic_canvas import Canvas, FloatField, noise
from xbd.synthetic_layout import Colour, House, Layout, Points

MINOR_SHARE = (0.10, 0.30)  # of the roof
MAJOR_SHARE = (0.35, 0.60)
TARP: Colour = (62, 92, 168)
RUBBLE: dict[str, tuple[Colour, ...]] = {
    "wind": ((188, 176, 158), (150, 128, 104), (206, 204, 200), (96, 86, 76), (120, 104, 88), (170, 144, 116)),
    "fire": ((172, 164, 156), (120, 114, 108), (64, 60, 58), (196, 190, 184), (90, 82, 76), (146, 128, 114)),
    "flooding": ((130, 112, 88), (156, 138, 112), (100, 86, 68), (178, 168, 150), (112, 98, 80), (88, 78, 64)),
    "earthquake": ((184, 178, 168), (160, 154, 146), (200, 194, 184), (128, 122, 116), (98, 94, 90), (168, 150, 130)),
}
SLAB: dict[str, Colour] = {
    "wind": (172, 168, 160), "fire": (128, 122, 116), "flooding": (138, 126, 106), "earthquake": (164, 158, 150),
}  # fmt: skip


def roof_height(house: House, kind: str | None) -> float:
    """Metres; kind is the type of the disaster, None before it. Collapsed buildings cast hardly a shadow."""
    if kind is None or house.subtype in ("no-damage", "minor-damage", "un-classified"):
        return house.height
    if house.subtype == "destroyed":
        return 0.6
    return house.height * (1.0 if kind == "flooding" else 0.75)


def damage_ground(canvas: Canvas, layout: Layout, kind: str, rng: np.random.Generator) -> None:
    """Burnt ground, water, mud or scattered debris around the damaged buildings."""
    if kind == "fire":
        burnt = _influence(layout, rng, {"no-damage": -1.0, "minor-damage": 0.35, "major-damage": 1.0, "destroyed": 1.3})
        canvas.blend((58, 50, 44), 0.72 * burnt)
    elif kind == "flooding":
        mud = _influence(layout, rng, {"no-damage": -0.9, "minor-damage": 0.9, "major-damage": 1.4, "destroyed": 1.3})
        canvas.blend((128, 110, 84), 0.6 * mud)
        water = _influence(layout, rng, {"no-damage": -1.6, "minor-damage": 0.35, "major-damage": 1.6, "destroyed": 0.5})
        canvas.blend((104, 94, 72), 0.95 * water)
    else:
        spread = {"wind": (14.0, 30), "earthquake": (6.0, 8)}[kind]
        for house in layout.houses:
            amount = {"minor-damage": 0.25, "major-damage": 0.7, "destroyed": 1.0}.get(house.subtype, 0.0)
            spots = house.centre + rng.normal(0, spread[0] + np.ptp(house.outline, axis=0).mean() * 0.35, (int(spread[1] * amount), 2))
            _scatter(canvas, spots, RUBBLE[kind], rng)


def damage_roof(canvas: Canvas, house: House, lean: Points, kind: str) -> None:
    """Draws the damage over the roof (or, where nothing stands, over the footprint)."""
    rng = np.random.default_rng(house.seed + 1)
    outline = house.outline + lean
    if house.subtype == "minor-damage":
        if kind == "flooding":
            return _stain(canvas, outline, 0.2 * rng.random(), rng)
        _lose_roof(canvas, outline, rng.uniform(*MINOR_SHARE), kind, rng, tarp=kind == "wind" and rng.random() < 0.45)
    elif house.subtype == "major-damage":
        if kind == "flooding" and rng.random() < 0.6:
            return _stain(canvas, outline, rng.uniform(0.3, 0.5), rng)
        share = rng.uniform(*MAJOR_SHARE)
        _lose_roof(canvas, outline, share, kind, rng, tarp=False)
        _spill(canvas, outline, share, 5.0, kind, rng)
    elif house.subtype == "destroyed":
        _destroy(canvas, outline, kind, rng)


def _destroy(canvas: Canvas, outline: Points, kind: str, rng: np.random.Generator) -> None:
    slab = np.asarray(SLAB[kind]) * rng.normal(1, 0.08)
    style = rng.random()
    with canvas.clipped(outline):
        if kind == "fire":
            canvas.fill(outline, tuple(slab * 0.72))
        elif style < 0.6:
            canvas.fill(outline, tuple(slab * 0.8))
        else:
            canvas.fill(outline, tuple(slab * 1.05))
    if kind == "fire":
        _spill(canvas, outline, 0.9, 1.2, kind, rng)
        canvas.line(outline, tuple(slab * 1.35), 0.8)
    elif style < 0.8:
        _spill(canvas, outline, 1.5, 4.5, kind, rng)
    else:
        _spill(canvas, outline, 0.35, 6.0, kind, rng)


def _lose_roof(canvas: Canvas, outline: Points, share: float, kind: str, rng: np.random.Generator, tarp: bool) -> None:
    """Replaces a share of the roof's area by what is under it (or by a tarpaulin); it is lost from one side."""
    view, inside = canvas.window(outline)
    if inside.sum() < 8:
        return
    height, width = inside.shape
    rows, columns = np.mgrid[0:height, 0:width]
    heading = rng.uniform(0, 2 * math.pi)
    slope = (rows / height - 0.5) * math.sin(heading) + (columns / width - 0.5) * math.cos(heading)
    grain = 14 if tarp else 9
    rough = cv2.resize(rng.standard_normal((height // grain + 3, width // grain + 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    rank = slope * 2.2 + rough * 0.55
    lost = inside & (rank > np.quantile(rank[inside], 1 - share))
    if tarp:
        view[lost] = np.asarray(TARP) * rng.uniform(0.85, 1.1)
        return
    hole = np.array({"fire": (44, 40, 38), "wind": (84, 70, 58), "earthquake": (92, 86, 80), "flooding": (80, 70, 56)}[kind])
    fine = cv2.resize(rng.standard_normal((height // 2 + 1, width // 2 + 1)), (width, height), interpolation=cv2.INTER_NEAREST)
    view[lost] = np.clip(hole * (1 + 0.3 * fine[lost][:, None]), 0, 255)
    if kind == "fire":
        soot = cv2.GaussianBlur(lost.astype(np.float32), (0, 0), 5) * 0.75
        soot[~inside] *= 0.5
        view[:] = view * (1 - soot[..., None]) + soot[..., None] * np.array((48, 44, 42), np.float32)
        return
    with canvas.clipped(outline):
        spots = np.argwhere(lost)[rng.integers(lost.sum(), size=int(lost.sum() / 60) + 1)]
        corner = outline.min(axis=0).clip(0)
        _scatter(canvas, spots[:, ::-1] / 2 + corner, RUBBLE[kind], rng)


def _spill(canvas: Canvas, outline: Points, amount: float, reach: float, kind: str, rng: np.random.Generator) -> None:
    """Rubble on the footprint and up to `reach` pixels around it."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    spots = rng.uniform(low, high, (int(np.prod(high - low) * amount / 5), 2))
    ring = outline.astype(np.float32)
    kept = [cv2.pointPolygonTest(ring, (float(x), float(y)), False) >= 0 for x, y in spots]
    spots = spots[np.array(kept, bool)]
    _scatter(canvas, spots + rng.normal(0, reach / 2, spots.shape), RUBBLE[kind], rng)


def _scatter(canvas: Canvas, spots: Points, colours: tuple[Colour, ...], rng: np.random.Generator) -> None:
    angles, lengths = rng.uniform(0, math.pi, len(spots)), rng.exponential(1.6, len(spots)) + 0.6
    tips = spots + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
    picks, lights = rng.integers(len(colours), size=len(spots)), rng.normal(1, 0.12, len(spots))
    widths = rng.choice((0.5, 1.0, 1.5), len(spots), p=(0.45, 0.4, 0.15))
    for start, tip, pick, light, width in zip(spots, tips, picks, lights, widths, strict=True):
        canvas.line((start, tip), [c * light for c in colours[pick]], width)


def _stain(canvas: Canvas, outline: Points, strength: float, rng: np.random.Generator) -> None:
    """Mud on the roof, in `strength` of its colour."""
    view, inside = canvas.window(outline)
    if inside.any():
        height, width = inside.shape
        blot = cv2.resize(rng.random((height // 10 + 2, width // 10 + 2)), (width, height), interpolation=cv2.INTER_CUBIC)
        share = np.clip(blot * 2 * strength, 0, 0.8)[..., None] * inside[..., None]
        view[:] = view * (1 - share) + share * np.array((122, 106, 82))


def _influence(layout: Layout, rng: np.random.Generator, weights: dict[str, float]) -> FloatField:
    """float32 [H/4, W/4] in [0, 1]: where buildings of positive weight outdo those of negative weight, with noise."""
    small = max(layout.size // 4, 8)
    field: npt.NDArray[np.float32] = np.zeros((small, small), np.float32)
    for house in layout.houses:
        if weight := weights.get(house.subtype, 0.0):
            stamp = np.zeros_like(field)
            ring = (house.outline * small / layout.size).round().astype(np.int32)
            reach = 6 if weight > 0 else 3
            cv2.fillPoly(stamp, [ring], 1.0)
            cv2.polylines(stamp, [ring], True, 1.0, reach)
            field = np.where(np.abs(weight * stamp) > np.abs(field), weight * stamp, field).astype(np.float32)
    soft = cv2.GaussianBlur(field, (0, 0), 2.2) + 0.16 * noise(rng, small, (20, 8, 4))
    return np.clip((soft - 0.28) * 4, 0, 1).astype(np.float32)

"""Draws a synthetic scene before and after an event, as a satellite with half-metre pixels might see it.

The order of drawing is that of the world: ground, streets, water, shadows, roofs with their damage, trees; then the
air and the sensor. It is drawn at twice the resolution and averaged, which is how a sensor sees edges.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from xbd.synthetic_canvas import Canvas, FloatField, Picture, noise
from xbd.synthetic_damage import damage_ground, damage_roof, roof_height
from xbd.synthetic_layout import (
    CAR_COLOURS,
    METRES_PER_PIXEL,
    Colour,
    House,
    Layout,
    Patch,
    Points,
    plan_scene,
    rectangle,
)

FACADE: Colour = (104, 100, 94)
ROOF_SLOPE = math.radians(26)


@dataclass(frozen=True)
class View:
    """How a picture was taken; angles in degrees, azimuths clockwise from north.

    target_azimuth: direction in which whatever stands high leans. registration: [2] pixels by which the picture as a
    whole is off. gain: per colour; haze: share of light from the air; blur: sigma in pixels.
    """

    sun_azimuth: float
    sun_elevation: float
    off_nadir_angle: float
    target_azimuth: float
    registration: tuple[float, float]
    gain: Colour
    haze: float
    blur: float

    @property
    def to_sun(self) -> Points:
        """[2] unit vector in the picture."""
        azimuth = math.radians(self.sun_azimuth)
        return np.array([math.sin(azimuth), -math.cos(azimuth)])

    def shadow(self, height: float) -> Points:
        """[2] pixels from an object of `height` metres to the tip of its shadow."""
        return -self.to_sun * height / math.tan(math.radians(self.sun_elevation)) / METRES_PER_PIXEL

    def lean(self, height: float) -> Points:
        """[2] pixels by which a point `height` metres up is displaced."""
        azimuth = math.radians(self.target_azimuth)
        length = height * math.tan(math.radians(self.off_nadir_angle)) / METRES_PER_PIXEL
        return np.array([math.sin(azimuth), -math.cos(azimuth)]) * length


@dataclass(frozen=True)
class SyntheticBuilding:
    """polygon: roof as seen in the pre image, in pixels, inside the image; subtype: an xBD damage grade."""

    polygon: shapely.Polygon
    subtype: str


@dataclass(frozen=True)
class SyntheticScene:
    """pre, post: uint8 [H, W, 3] RGB."""

    pre: Picture
    post: Picture
    buildings: list[SyntheticBuilding]
    pre_view: View
    post_view: View


def draw_scene(rng: np.random.Generator, size: int, disaster_type: str) -> SyntheticScene:
    """Draws one scene of size x size pixels; disaster_type is one of wind, fire, flooding, earthquake."""
    layout = plan_scene(rng, size)
    pre_view, post_view = _choose_views(rng)
    ground_rng, details_seed, *sensor_rngs = rng.spawn(1)[0], int(rng.integers(2**31)), *rng.spawn(2)
    ground = _draw_ground(ground_rng, size)
    event = (None, disaster_type)
    pre, post = (
        _observe(_draw(layout, ground, view, kind, np.random.default_rng(details_seed)), layout, view, kind, sensor_rng)
        for view, kind, sensor_rng in zip((pre_view, post_view), event, sensor_rngs, strict=True)
    )
    return SyntheticScene(pre, post, _label(layout, pre_view), pre_view, post_view)


def _choose_views(rng: np.random.Generator) -> tuple[View, View]:
    """A pre image from nearly overhead and a post image as soon as one could be had: more oblique, another sun."""
    pre = View(
        sun_azimuth=rng.uniform(135, 170),
        sun_elevation=rng.uniform(50, 68),
        off_nadir_angle=rng.uniform(2, 8),
        target_azimuth=rng.uniform(0, 360),
        registration=(0.0, 0.0),
        gain=tuple(rng.normal(0.98, 0.03, 3) * rng.uniform(0.93, 1.07)),
        haze=rng.uniform(0, 0.06),
        blur=rng.uniform(0.45, 0.65),
    )
    post = View(
        sun_azimuth=rng.uniform(180, 220),
        sun_elevation=rng.uniform(38, 58),
        off_nadir_angle=rng.uniform(10, 20),
        target_azimuth=rng.uniform(0, 360),
        registration=tuple(rng.normal(0, 0.6, 2)),
        gain=tuple(rng.normal(1, 0.05, 3) * rng.uniform(0.85, 1.12)),
        haze=rng.uniform(0, 0.13),
        blur=rng.uniform(0.5, 0.85),
    )
    return pre, post


def _label(layout: Layout, view: View) -> list[SyntheticBuilding]:
    """Roofs as the given view shows them, cut at the image's border; what is left of them must be worth a label."""
    frame = shapely.box(0, 0, layout.size, layout.size)
    found = []
    for house in layout.houses:
        roof = shapely.Polygon(house.outline + view.lean(house.height)).intersection(frame)
        pieces = [piece for piece in getattr(roof, "geoms", [roof]) if piece.area >= 16]
        found += [SyntheticBuilding(piece, house.subtype) for piece in pieces if isinstance(piece, shapely.Polygon)]
    return found


def _draw_ground(rng: np.random.Generator, size: int) -> FloatField:
    """float32 [H, W, 3]: grass, dry grass and soil, mixed by noise of many scales."""
    wet = rng.uniform(0.1, 0.9)
    colours = np.array([(84, 100, 62), (128, 118, 86), (138, 118, 94)], np.float32) * rng.normal(1, 0.05, (3, 3))
    dryness = noise(rng, size, (160, 60, 24, 9)) * 0.22 + (1 - wet)
    bareness = noise(rng, size, (110, 40, 15, 6)) * 0.25 + 0.1
    dry = np.clip(dryness, 0, 1)[..., None]
    bare = np.clip((bareness - 0.25) * 3, 0, 1)[..., None]
    ground = (colours[0] * (1 - dry) + colours[1] * dry) * (1 - bare) + colours[2] * bare
    return (ground * (1 + 0.06 * noise(rng, size, (5, 2.2))[..., None])).astype(np.float32)


def _draw(layout: Layout, ground: FloatField, view: View, kind: str | None, rng: np.random.Generator) -> Canvas:
    """The scene without air and sensor; kind is the type of the disaster, None before it."""
    season = np.array([1.0, 1.0, 1.0]) if kind is None else {"wind": (1.1, 0.98, 0.92), "fire": (1.08, 0.98, 0.95)}.get(kind, (1.04, 1.03, 0.95))
    canvas = Canvas(ground * np.asarray(season, np.float32), view.registration)
    for patch in layout.patches:
        _draw_patch(canvas, patch, np.random.default_rng(int(abs(patch.polygon.sum()) * 1000)))
    for street in layout.streets:
        canvas.line(street.points, tuple(0.45 * c + 50 for c in street.colour), street.width + 4)
    for street in layout.streets:
        canvas.line(street.points, street.colour, street.width)
        canvas.line(street.points, tuple(c * 0.93 for c in street.colour), street.width * 0.5)
        if street.width > 13:
            canvas.line(street.points, tuple(c * 1.25 for c in street.colour), 0.6)
    if kind is not None:
        damage_ground(canvas, layout, kind, rng)
    trees = _trees_left(layout, kind, rng)
    canvas.shade(_shadows(layout, trees, view, kind), 0.47)
    gone = rng.random(len(layout.cars)) < (0.0 if kind is None else 0.5)
    for car, absent in zip(layout.cars, gone, strict=True):
        if not absent:
            body = rectangle(car[:2], 8.5, 3.8, car[2])
            canvas.fill(body + view.shadow(0.7), (44, 46, 50))
            canvas.fill(body, CAR_COLOURS[car[3]])
            canvas.fill(rectangle(car[:2], 3.5, 3.2, car[2]), tuple(c * 0.6 for c in CAR_COLOURS[car[3]]))
    for house in layout.houses:
        height = roof_height(house, kind)
        if height > 1:
            lean = view.lean(height)
            for step in (0.0, 0.35, 0.7):
                canvas.fill(house.outline + lean * step, FACADE)
            _draw_roof(canvas, house, lean, view)
        if kind is not None:
            damage_roof(canvas, house, view.lean(height), kind)
    _draw_trees(canvas, trees, view, kind, rng)
    return canvas


def _draw_patch(canvas: Canvas, patch: Patch, rng: np.random.Generator) -> None:
    canvas.fill(patch.polygon, patch.colour)
    centre, reach = patch.polygon.mean(axis=0), float(np.ptp(patch.polygon, axis=0).max())
    along = np.array([math.cos(patch.angle), math.sin(patch.angle)])
    across = np.array([-along[1], along[0]])
    if patch.surface == "field":
        with canvas.clipped(patch.polygon):
            for offset in np.arange(-reach, reach, rng.uniform(3, 6)):
                rows = centre + across * (offset + rng.normal(0, 0.4)) + np.outer((-reach, reach), along)
                canvas.line(rows, tuple(c * rng.normal(0.93, 0.05) for c in patch.colour), rng.uniform(1, 2))
    if patch.surface == "car park":
        with canvas.clipped(patch.polygon):
            for offset in np.arange(-reach, reach, 22):
                for spot in np.arange(-reach, reach, 6.5):
                    start = centre + across * offset + along * spot
                    canvas.line(np.stack([start - across * 5, start + across * 5]), (168, 168, 164), 0.5)


def _draw_roof(canvas: Canvas, house: House, lean: Points, view: View) -> None:
    """Each face is lit by the cosine between its normal and the sun, relative to flat ground."""
    rng = np.random.default_rng(house.seed)
    for wing in house.wings:
        corners = wing + lean
        along, across = corners[1] - corners[0], corners[3] - corners[0]
        if house.roof == "flat":
            canvas.fill(corners, house.colour)
            canvas.line(np.concatenate([corners, corners[:1]]), tuple(c * 1.12 for c in house.colour), 0.9)
            for _ in range(int(np.linalg.norm(along) * np.linalg.norm(across) / 420)):
                spot = corners[0] + along * rng.uniform(0.1, 0.9) + across * rng.uniform(0.15, 0.85)
                unit = rectangle(spot, rng.uniform(2, 6), rng.uniform(2, 4), math.atan2(along[1], along[0]))
                canvas.fill(unit + view.shadow(1.0), tuple(c * 0.55 for c in house.colour))
                canvas.fill(unit, (168, 168, 166) if rng.random() < 0.7 else (110, 112, 114))
            continue
        inset = 0.0 if house.roof == "gable" else min(0.5, 0.5 * float(np.linalg.norm(across) / np.linalg.norm(along)))
        middle = corners[0] + across / 2
        ridge = np.stack([middle + along * inset, middle + along * (1 - inset)])
        a, b, c, d = corners
        faces = [((a, b, ridge[1], ridge[0]), -across), ((d, c, ridge[1], ridge[0]), across)]
        if inset:
            faces += [((a, d, ridge[0]), -along), ((b, c, ridge[1]), along)]
        for face, downhill in faces:
            facing = float(downhill / np.linalg.norm(downhill) @ view.to_sun)
            light = math.cos(ROOF_SLOPE) + math.sin(ROOF_SLOPE) * facing / math.tan(math.radians(view.sun_elevation))
            canvas.fill(np.stack(face), tuple(max(0.0, 0.3 + 0.7 * light) * c for c in house.colour))
        canvas.line(ridge, tuple(c * 1.15 for c in house.colour), 0.7)


def _trees_left(layout: Layout, kind: str | None, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Rows of x, y, radius, shade, burnt (0 or 1) of the trees that still stand."""
    trees = np.array(layout.trees, np.float64).reshape(-1, 4)
    damaged = [h.centre for h in layout.houses if h.subtype in ("major-damage", "destroyed")]
    near = np.zeros(len(trees), bool)
    for spot in damaged:
        near |= ((trees[:, :2] - spot) ** 2).sum(axis=1) < 42**2
    lost = {"wind": np.where(near, 0.55, 0.25), "fire": near * 0.35, "flooding": near * 0.2}.get(str(kind), near * 0.05)
    draws = rng.random((len(trees), 2))
    burnt = (near & (kind == "fire") & (draws[:, 1] < 0.85)).astype(np.float64)
    if kind is None:
        return np.column_stack([trees, burnt])
    trees[:, 2] *= rng.uniform(0.88, 1.06, len(trees))
    return np.column_stack([trees, burnt])[draws[:, 0] >= lost]


def _shadows(layout: Layout, trees: npt.NDArray[np.float64], view: View, kind: str | None) -> Canvas:
    """A mask of what lies in the shadow of buildings and trees."""
    mask = Canvas.mask(layout.size, view.registration)
    for house in layout.houses:
        shadow = view.shadow(roof_height(house, kind))
        for wing in house.wings:
            mask.fill(cv2.convexHull(np.concatenate([wing, wing + shadow]).astype(np.float32))[:, 0], (255, 0, 0))
    for x, y, radius, _, _ in trees:
        tip = view.shadow(radius * 0.55) + (x, y)
        mask.disk(tip[0], tip[1], radius * 0.95, (255, 0, 0))
    return mask


def _draw_trees(
    canvas: Canvas, trees: npt.NDArray[np.float64], view: View, kind: str | None, rng: np.random.Generator
) -> None:
    """Crowns of clumps that are brighter towards the sun."""
    leaf = np.array((58, 76, 46)) * rng.normal(1, 0.06, 3)
    if kind == "wind":
        leaf = leaf * (1.22, 0.97, 0.85)
    clumps = rng.normal(0, 0.5, (len(trees), 6, 2)) + view.to_sun * 0.12
    light = 0.92 + 0.28 * clumps @ view.to_sun + rng.normal(0, 0.13, (len(trees), 6))
    for (x, y, radius, shade, burnt), spots, lights in zip(trees, clumps, light, strict=True):
        colour = np.array((52, 46, 40)) if burnt else leaf * shade * (1 + 0.12 * np.array((shade - 1, 0, 1 - shade)) * 5)
        canvas.disk(x, y, radius * (0.55 if burnt else 0.8), tuple(colour * 0.72))
        for (dx, dy), lit in zip(spots, lights, strict=True):
            canvas.disk(x + dx * radius, y + dy * radius, radius * (0.2 if burnt else 0.38), tuple(colour * max(lit, 0.4)))


def _observe(canvas: Canvas, layout: Layout, view: View, kind: str | None, rng: np.random.Generator) -> Picture:
    """What the sensor makes of it: clouds, haze, colour, softness, noise; uint8 [H, W, 3]."""
    picture = canvas.averaged()
    grain = 1 + 0.05 * noise(rng, layout.size, (2.5, 1)) + 0.03 * noise(rng, layout.size, (60, 7))
    picture *= grain[..., None]
    if kind is not None:
        clouds = [house for house in layout.houses if house.subtype == "un-classified"]
        if clouds:
            picture += (_cover(clouds, layout.size, rng))[..., None] * (np.float32(216) - picture)
    picture = cv2.GaussianBlur(picture, (0, 0), view.blur)
    air = np.array((118, 126, 134), np.float32)
    picture = picture * np.array(view.gain, np.float32) * (1 - view.haze) + air * view.haze
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(1.6)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _cover(houses: list[House], size: int, rng: np.random.Generator) -> FloatField:
    """float32 [H, W] in [0, 1]: small clouds above the given buildings."""
    cloud = np.zeros((size, size), np.float32)
    for house in houses:
        radius = float(np.ptp(house.outline, axis=0).max()) * 0.7 + 6
        cv2.circle(cloud, [round(v) for v in house.centre], round(radius), 1.4, -1)
    soft = cv2.GaussianBlur(cloud, (0, 0), 7) * (1 + 0.3 * noise(rng, size, (26, 12, 6)))
    return np.clip(soft, 0, 0.97).astype(np.float32)

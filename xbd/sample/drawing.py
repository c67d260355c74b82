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

from xbd.sample.canvas import Canvas, Picture, noise
from xbd.sample.damage import damage_ground, damage_roof, roof_height
from xbd.sample.filters import FloatField, blur, normals
from xbd.sample.layout import (
    CAR_COLOURS,
    METRES_PER_PIXEL,
    Colour,
    House,
    Layout,
    Patch,
    Points,
    rectangle,
    unit,
)
from xbd.sample.plan import plan_scene

VERGE: Colour = (106, 106, 94)
FACADE: Colour = (104, 100, 94)
# How the ground's colours differ from those before the event.
SEASON: dict[str | None, Colour] = {
    None: (1, 1, 1), "wind": (1.08, 0.98, 0.92), "fire": (1.06, 0.98, 0.95), "flooding": (0.98, 1, 0.95),
    "earthquake": (1.03, 1.03, 0.96),
}  # fmt: skip
TUFTS = 6  # of a tree's crown
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
        return unit(math.radians(self.sun_azimuth - 90))

    def shadow(self, height: float) -> Points:
        """[2] pixels from an object of `height` metres to the tip of its shadow."""
        return -self.to_sun * height / math.tan(math.radians(self.sun_elevation)) / METRES_PER_PIXEL

    def lean(self, height: float) -> Points:
        """[2] pixels by which a point `height` metres up is displaced."""
        length = height * math.tan(math.radians(self.off_nadir_angle)) / METRES_PER_PIXEL
        return unit(math.radians(self.target_azimuth - 90)) * length


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
    ground_rng, details_rng, pre_rng, post_rng = rng.spawn(4)
    ground = _draw_ground(ground_rng, size)
    details_seed = int(details_rng.integers(2**31))  # the same twice: what is not damaged looks alike in both
    before = _draw(layout, ground, pre_view, None, np.random.default_rng(details_seed))
    after = _draw(layout, ground, post_view, disaster_type, np.random.default_rng(details_seed))
    pre, post = _observe(before, [], pre_view, pre_rng), _observe(after, layout.clouds, post_view, post_rng)
    return SyntheticScene(pre, post, _label(layout, pre_view), pre_view, post_view)


def _choose_views(rng: np.random.Generator) -> tuple[View, View]:
    """A pre image from nearly overhead and a post image as soon as one could be had: more oblique, another sun."""
    pre = View(
        sun_azimuth=rng.uniform(135, 170),
        sun_elevation=rng.uniform(50, 68),
        off_nadir_angle=rng.uniform(2, 8),
        target_azimuth=rng.uniform(0, 360),
        registration=(0.0, 0.0),
        gain=tuple(rng.normal(0.98, 0.02, 3) * rng.uniform(0.93, 1.07)),
        haze=rng.uniform(0, 0.06),
        blur=rng.uniform(0.45, 0.65),
    )
    post = View(
        sun_azimuth=rng.uniform(180, 220),
        sun_elevation=rng.uniform(38, 58),
        off_nadir_angle=rng.uniform(10, 20),
        target_azimuth=rng.uniform(0, 360),
        registration=tuple(rng.normal(0, 0.6, 2)),
        gain=tuple(rng.normal(1, 0.025, 3) * rng.uniform(0.85, 1.12)),
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
        roof = shapely.transform(roof, lambda points: points.round(3))  # whatever the last digit was
        pieces = [piece for piece in getattr(roof, "geoms", [roof]) if piece.area >= 16]
        found += [SyntheticBuilding(piece, house.subtype) for piece in pieces if isinstance(piece, shapely.Polygon)]
    return found


def _draw_ground(rng: np.random.Generator, size: int) -> FloatField:
    """[H, W, 3]: grass, dry grass and soil, mixed by noise of many scales."""
    wet = rng.uniform(0.1, 0.9)
    colours = np.array([(84, 100, 62), (128, 118, 86), (138, 118, 94)]) * rng.normal(1, 0.05, (3, 3))
    dryness = noise(rng, size, (160, 60, 24, 9)) * 0.22 + (1 - wet)
    bareness = noise(rng, size, (110, 40, 15, 6)) * 0.25 + 0.1
    dry = np.clip(dryness, 0, 1)[..., None]
    bare = np.clip((bareness - 0.25) * 3, 0, 1)[..., None]
    ground = (colours[0] * (1 - dry) + colours[1] * dry) * (1 - bare) + colours[2] * bare
    return np.asarray(ground * (1 + 0.06 * noise(rng, size, (5, 2.2))[..., None]))


def _draw(
    layout: Layout, ground: FloatField, view: View, disaster_type: str | None, rng: np.random.Generator
) -> Canvas:
    """The scene without air and sensor; disaster_type is None before the event."""
    canvas = Canvas.of(ground * np.array(SEASON[disaster_type]), view.registration)
    for patch in layout.patches:
        _draw_patch(canvas, patch, rng)
    for street in layout.streets:
        canvas.line(street.points, VERGE, street.width + 4)
    for street in layout.streets:
        canvas.line(street.points, street.colour, street.width)
        canvas.line(street.points, _times(street.colour, 0.93), street.width * 0.5)
        if street.width > 13:
            canvas.line(street.points, _times(street.colour, 1.25), 0.6)
    if disaster_type is not None:
        damage_ground(canvas, layout, disaster_type, rng)
    trees = _trees_left(layout, disaster_type, rng)
    canvas.shade(_shadows(layout, trees, view, disaster_type), 0.47)
    gone = rng.random(len(layout.cars)) < (0.0 if disaster_type is None else 0.5)
    for car, absent in zip(layout.cars, gone, strict=True):
        if not absent:
            body = rectangle(car[:2], 8.5, 3.8, car[2])
            canvas.fill(body + view.shadow(0.7), (44, 46, 50))
            canvas.fill(body, CAR_COLOURS[car[3]])
            canvas.fill(rectangle(car[:2], 3.5, 3.2, car[2]), _times(CAR_COLOURS[car[3]], 0.6))
    for house in layout.houses:
        height = roof_height(house, disaster_type)
        if height > 1:
            lean = view.lean(height)
            for step in (0.0, 0.35, 0.7):
                canvas.fill(house.outline + lean * step, FACADE)
            _draw_roof(canvas, house, lean, view)
        if disaster_type is not None:
            damage_roof(canvas, house, view.lean(height), disaster_type)
    _draw_trees(canvas, trees, view, disaster_type, rng)
    return canvas


def _draw_patch(canvas: Canvas, patch: Patch, rng: np.random.Generator) -> None:
    canvas.fill(patch.polygon, patch.colour)
    centre, reach = patch.polygon.mean(axis=0), float(np.ptp(patch.polygon, axis=0).max())
    along = unit(patch.angle)
    across = np.array([-along[1], along[0]])
    if patch.surface == "field":
        with canvas.clipped(patch.polygon) as part:
            for offset in np.arange(-reach, reach, rng.uniform(3, 6)):
                row = centre + across * (offset + rng.normal(0, 0.4)) + np.outer((-reach, reach), along)
                part.line(row, _times(patch.colour, rng.normal(0.93, 0.05)), rng.uniform(1, 2))
    elif patch.surface == "car park":
        bays = np.stack(np.meshgrid(np.arange(-reach, reach, 6.5), np.arange(-reach, reach, 22)), -1).reshape(-1, 2)
        middle = centre + bays @ np.stack([along, across])
        with canvas.clipped(patch.polygon) as part:
            part.line(np.stack([middle - across * 5, middle + across * 5], axis=1), (168, 168, 164), 0.5)


def _draw_roof(canvas: Canvas, house: House, lean: Points, view: View) -> None:
    """Each face is lit by the cosine between its normal and the sun, relative to flat ground."""
    rng = np.random.default_rng(house.seed)
    for wing in house.wings:
        corners = wing + lean
        along, across = corners[1] - corners[0], corners[3] - corners[0]
        if house.roof == "flat":
            canvas.fill(corners, house.colour)
            canvas.line(np.concatenate([corners, corners[:1]]), _times(house.colour, 1.12), 0.9)
            for _ in range(int(np.linalg.norm(along) * np.linalg.norm(across) / 420)):
                spot = corners[0] + along * rng.uniform(0.1, 0.9) + across * rng.uniform(0.15, 0.85)
                unit = rectangle(spot, rng.uniform(2, 6), rng.uniform(2, 4), math.atan2(along[1], along[0]))
                canvas.fill(unit + view.shadow(1.0), _times(house.colour, 0.55))
                canvas.fill(unit, (168, 168, 166) if rng.random() < 0.7 else (110, 112, 114))
            continue
        inset = 0.0 if house.roof == "gable" else min(0.5, 0.5 * float(np.linalg.norm(across) / np.linalg.norm(along)))
        middle = corners[0] + across / 2
        ridge = np.stack([middle + along * inset, middle + along * (1 - inset)])
        a, b, c, d = corners
        faces: list[tuple[tuple[Points, ...], Points]] = [
            ((a, b, ridge[1], ridge[0]), -across), ((d, c, ridge[1], ridge[0]), across),
        ]  # fmt: skip
        if inset:
            faces += [((a, d, ridge[0]), -along), ((b, c, ridge[1]), along)]
        for face, downhill in faces:
            facing = float(downhill / np.linalg.norm(downhill) @ view.to_sun)
            light = math.cos(ROOF_SLOPE) + math.sin(ROOF_SLOPE) * facing / math.tan(math.radians(view.sun_elevation))
            canvas.fill(np.stack(face), _times(house.colour, max(0.0, 0.3 + 0.7 * light)))
        canvas.line(ridge, _times(house.colour, 1.15), 0.7)


def _trees_left(layout: Layout, disaster_type: str | None, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Rows of x, y, radius, shade, burnt (0 or 1) of the trees that still stand."""
    trees = np.array(layout.trees, np.float64).reshape(-1, 4)
    damaged = [h.centre for h in layout.houses if h.subtype in ("major-damage", "destroyed")]
    near = np.zeros(len(trees), bool)
    for spot in damaged:
        near |= ((trees[:, :2] - spot) ** 2).sum(axis=1) < 42**2
    lost = {"wind": np.where(near, 0.55, 0.25), "fire": near * 0.35, "flooding": near * 0.2}.get(
        str(disaster_type), near * 0.05
    )
    draws = rng.random((len(trees), 2))
    burnt = (near & (disaster_type == "fire") & (draws[:, 1] < 0.85)).astype(np.float64)
    if disaster_type is None:
        return np.column_stack([trees, burnt])
    trees[:, 2] *= rng.uniform(0.88, 1.06, len(trees))
    return np.column_stack([trees, burnt])[draws[:, 0] >= lost]


def _shadows(layout: Layout, trees: npt.NDArray[np.float64], view: View, disaster_type: str | None) -> Canvas:
    """A mask of what lies in the shadow of buildings and trees."""
    mask = Canvas.mask(layout.size, view.registration)
    for house in layout.houses:
        shadow = view.shadow(roof_height(house, disaster_type))
        for wing in house.wings:
            mask.fill(cv2.convexHull(np.concatenate([wing, wing + shadow]).astype(np.float32))[:, 0], (255, 0, 0))
    tips = trees[:, :2] + view.shadow(0.55) * trees[:, 2:3]
    mask.disks(tips, trees[:, 2] * 0.95, [(255, 0, 0)] * len(trees))
    return mask


def _draw_trees(
    canvas: Canvas, trees: npt.NDArray[np.float64], view: View, disaster_type: str | None, rng: np.random.Generator
) -> None:
    """Crowns of clumps that are brighter towards the sun."""
    leaf = np.array((60, 79, 48)) * rng.normal(1, 0.06, 3)
    if disaster_type == "wind":
        leaf = leaf * (1.22, 0.97, 0.85)
    clumps = rng.normal(0, 0.5, (len(trees), TUFTS, 2)) + view.to_sun * 0.12
    light = 0.92 + 0.28 * clumps @ view.to_sun + rng.normal(0, 0.13, (len(trees), TUFTS))
    radii, shades, burnt = trees[:, 2], trees[:, 3:4], trees[:, 4:5] > 0
    warmth = 1 + 0.6 * (shades - 1) * (1, 0, -1)
    colours = np.where(burnt, (52, 46, 40), leaf * shades * warmth)
    spots = trees[:, None, :2] + clumps * radii[:, None, None]
    lit = colours[:, None] * np.maximum(light, 0.4)[..., None]
    # Crown and tufts of a tree follow each other, so that it covers those before it as a whole.
    centres = np.concatenate([trees[:, None, :2], spots], axis=1).reshape(-1, 2)
    sizes = radii[:, None] * np.where(burnt, (0.55, *[0.2] * TUFTS), (0.8, *[0.38] * TUFTS))
    canvas.disks(centres, sizes.ravel(), np.concatenate([colours[:, None] * 0.72, lit], axis=1).reshape(-1, 3).tolist())


def _observe(canvas: Canvas, clouds: list[tuple[float, float, float]], view: View, rng: np.random.Generator) -> Picture:
    """What the sensor makes of it: clouds, haze, colour, softness, noise; uint8 [H, W, 3]."""
    picture = canvas.averaged()
    size = len(picture)
    picture *= (1 + 0.03 * noise(rng, size, (2.5, 1)) + 0.03 * noise(rng, size, (60, 7)))[..., None]
    for cloud in clouds:
        picture += _cover(cloud, size, rng)[..., None] * (np.array((200, 202, 205)) - picture)
    picture = blur(picture, view.blur)
    picture = picture * np.array(view.gain) * (1 - view.haze) + np.array((118, 126, 134)) * view.haze
    picture += normals(rng, picture.shape) * 1.6
    return np.asarray(np.clip(picture + 0.5, 0, 255), np.uint8)


def _cover(cloud: tuple[float, float, float], size: int, rng: np.random.Generator) -> FloatField:
    """[H, W] in [0, 1]: how much a cloud hides."""
    x, y, radius = cloud
    cover = np.zeros((size, size), np.uint8)
    cv2.circle(cover, (round(x), round(y)), round(radius), 1, -1)
    for spot in rng.normal((x, y), radius * 0.55, (12, 2)):
        cv2.circle(cover, (round(spot[0]), round(spot[1])), round(radius * rng.uniform(0.2, 0.5)), 1, -1)
    soft = np.minimum(blur(cover.astype(np.float64) * 1.1, radius * 0.28), 1)
    return np.asarray(np.clip(soft * (0.92 + 0.05 * noise(rng, size, (70, 25, 9))), 0, 1))


def _times(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor

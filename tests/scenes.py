"""A tiny data set in xBD's layout: hand-made scenes, their label files, and the arguments that name a pair."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIZE = 64  # pixels of a tiny scene
GRADE_NAMES = ("no-damage", "minor-damage", "major-damage", "destroyed", "un-classified")
# By the hash of their names, with validation_share 0.25, the flood scenes are in train and the fire scenes are not.
TRAIN_SCENES = (*(f"tiny-flood_{number:08}" for number in range(6)), "tiny-fire_00000003", "tiny-fire_00000006")
TEST_SCENES = ("tiny-fire_00000000", "tiny-fire_00000005", "tiny-flood_00000010")


class Rectangle(NamedTuple):
    """A building of a hand-made scene; pixels, borders included."""

    subtype: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def wkt(self) -> str:
        left, top, right, bottom = self[1:]
        return f"POLYGON (({left} {top}, {right} {top}, {right} {bottom}, {left} {bottom}, {left} {top}))"


def feature(wkt: Any, subtype: Any = "no-damage", uid: str = "b-1") -> dict[str, Any]:
    """One entry of features.xy; subtype None leaves the key out, as in pre labels."""
    properties = {"feature_type": "building", "uid": uid} | ({} if subtype is None else {"subtype": subtype})
    return {"properties": properties, "wkt": wkt}


def write_label(path: Path, features: Sequence[Mapping[str, Any]], **metadata: Any) -> Path:
    """A label file as xBD publishes it."""
    known = {"disaster": "tiny-flood", "disaster_type": "flooding", "gsd": 1.5, "off_nadir_angle": 12.25}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"features": {"lng_lat": [], "xy": list(features)}, "metadata": known | metadata}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_scene(
    root: Path, source: str, scene: str, buildings: Sequence[Rectangle], size: tuple[int, int] = (SIZE, SIZE)
) -> None:
    """The four files of a scene; the images are noise with the buildings in colours that tell their grade."""
    rng = np.random.default_rng(list(scene.encode()))
    images = rng.integers(40, 90, (2, *size, 3), dtype=np.uint8)
    for building in buildings:
        area = (slice(building.top, building.bottom + 1), slice(building.left, building.right + 1))
        images[0][area] = (210, 200, 190)
        images[1][area] = (210 - 40 * GRADE_NAMES.index(building.subtype), 150, 190)
    for image, moment in zip(images, ("pre", "post"), strict=True):
        path = root / source / "images" / f"{scene}_{moment}_disaster.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        write_label(
            root / source / "labels" / f"{scene}_{moment}_disaster.json",
            [
                feature(building.wkt, building.subtype if moment == "post" else None, f"{scene}-{number}")
                for number, building in enumerate(buildings)
            ],
            disaster=scene.rsplit("_", 1)[0],
        )


def tiny_buildings(scene: str) -> list[Rectangle]:
    """Five buildings that do not touch, one of each grade, at places that depend on the scene."""
    rng = np.random.default_rng([7, *scene.encode()])
    order = rng.permutation(len(GRADE_NAMES))
    buildings = []
    for number, grade in enumerate(order):
        left, top = (int(corner) for corner in rng.integers(1, 6, 2) + np.array([number % 3, number // 3]) * 20)
        buildings.append(Rectangle(GRADE_NAMES[grade], left, top, left + 12, top + 11))
    return buildings


def write_raw(root: Path) -> Path:
    """The tiny raw data set: 8 scenes in train, 3 in test."""
    for source, scenes in (("train", TRAIN_SCENES), ("test", TEST_SCENES)):
        for scene in scenes:
            write_scene(root, source, scene, tiny_buildings(scene))
    return root


def pair(raw: Path, scene: str = TEST_SCENES[0]) -> list[str]:
    folder = raw / "test" / "images"
    return ["--pre", str(folder / f"{scene}_pre_disaster.png"), "--post", str(folder / f"{scene}_post_disaster.png")]

"""A small synthetic data set in the exact layout of xBD, so that the whole pipeline runs without any data.

The pictures are drawn, the events invented. A model that learns from them shows that everything works, no more.
"""

import base64
import json
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from tqdm import tqdm

from base.files import new_folder
from base.images import encode_png
from xbd.sample.drawing import SyntheticBuilding, SyntheticScene, View, draw_scene
from xbd.sample.layout import METRES_PER_PIXEL

__all__ = ["EVENTS", "Event", "SyntheticScene", "draw_scene", "write_sample"]

METRES_PER_DEGREE = 111_320.0  # of latitude
PREFIX = "sample-"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Event:
    """An invented event; corner: longitude and latitude in degrees; dates of the two images."""

    name: str
    disaster_type: str
    corner: tuple[float, float]
    pre_date: str
    post_date: str


EVENTS = (
    Event(f"{PREFIX}hurricane", "wind", (-85.62, 30.21), "2021-03-14T16:41:07.000Z", "2021-09-02T16:33:52.000Z"),
    Event(f"{PREFIX}wildfire", "fire", (-122.71, 38.52), "2020-06-21T19:02:33.000Z", "2020-10-11T19:12:48.000Z"),
    Event(f"{PREFIX}flooding", "flooding", (-90.18, 32.31), "2019-11-08T17:05:11.000Z", "2020-02-18T16:58:27.000Z"),
    Event(f"{PREFIX}earthquake", "earthquake", (-99.09, 19.27), "2022-01-30T17:21:40.000Z", "2022-05-05T17:29:03.000Z"),
)  # fmt: skip


def write_sample(out: Path, *, train: int, test: int, size: int, seed: int) -> None:
    """Writes `train` and `test` scenes of size x size pixels to out/{train,test}/{images,labels}.

    The events take turns. A scene depends on the seed, its split and its number only, so more scenes leave the
    earlier ones as they are. `out` appears, or is replaced, when everything is written.
    Raises InputError where `out` holds anything but such a sample.
    """
    with new_folder(out, lambda path: path.name.startswith(PREFIX)) as folder:
        for split in SPLITS:
            for kind in ("images", "labels"):
                (folder / split / kind).mkdir(parents=True)
        tasks = [("train", number) for number in range(train)] + [("test", number) for number in range(test)]
        with ProcessPoolExecutor() as pool:
            futures = [pool.submit(_write_scene, folder / split, split, number, size, seed) for split, number in tasks]
            for future in tqdm(futures, desc="sample", unit="scene", disable=None):
                future.result()


def _write_scene(folder: Path, split: str, number: int, size: int, seed: int) -> None:
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    event = EVENTS[number % len(EVENTS)]
    scene = draw_scene(rng, size, event.disaster_type)
    # Even numbers are train's and odd ones test's: no name in both, however many scenes are added to either.
    identity = number // len(EVENTS) * len(SPLITS) + SPLITS.index(split)
    uids = [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in scene.buildings]
    origin = np.asarray(event.corner) + rng.uniform(-0.05, 0.05, 2)
    for moment, picture in (("pre", scene.pre), ("post", scene.post)):
        name = f"{event.name}_{identity:08d}_{moment}_disaster"
        features = {
            "lng_lat": _features(scene.buildings, uids, moment, origin),
            "xy": _features(scene.buildings, uids, moment, None),
        }
        label = {"features": features, "metadata": _metadata(event, scene, moment, f"{name}.png", size, rng)}
        (folder / "images" / f"{name}.png").write_bytes(encode_png(picture))
        (folder / "labels" / f"{name}.json").write_text(json.dumps(label), encoding="utf-8")


def _features(
    buildings: list[SyntheticBuilding], uids: list[str], moment: str, origin: npt.NDArray[np.float64] | None
) -> list[dict[str, Any]]:
    """XBD's list of buildings: in pixels, or in degrees where the image's upper left corner is given."""
    features = []
    for building, uid in zip(buildings, uids, strict=True):
        properties = {"feature_type": "building", "uid": uid}
        if moment == "post":
            properties = {"feature_type": "building", "subtype": building.subtype, "uid": uid}
        polygon = building.polygon if origin is None else _to_degrees(building.polygon, origin)
        features.append({"properties": properties, "wkt": polygon.wkt})
    return features


def _to_degrees(polygon: shapely.Polygon, origin: npt.NDArray[np.float64]) -> shapely.Polygon:
    latitude = METRES_PER_PIXEL / METRES_PER_DEGREE
    degrees = np.array([latitude / np.cos(np.radians(origin[1])), -latitude])
    return shapely.transform(polygon, lambda points: (points * degrees + origin).round(9))


def _metadata(
    event: Event, scene: SyntheticScene, moment: str, name: str, size: int, rng: np.random.Generator
) -> dict[str, Any]:
    """All keys of xBD's metadata, in its order."""
    view: View = scene.pre_view if moment == "pre" else scene.post_view
    # As in xBD, pan_resolution is about the image's pixel and gsd that of the four times coarser colour bands; both
    # grow as the sensor looks aside.
    resolution = METRES_PER_PIXEL / float(np.cos(np.radians(view.off_nadir_angle)))
    catalog = uuid.uuid5(uuid.NAMESPACE_URL, f"{event.name}/{moment}").hex[:16].upper()
    return {
        "sensor": "WORLDVIEW02",
        "provider_asset_type": "WORLDVIEW02",
        "gsd": round(4 * resolution, 7),
        "capture_date": event.pre_date if moment == "pre" else event.post_date,
        "off_nadir_angle": round(view.off_nadir_angle, 6),
        "pan_resolution": round(resolution, 8),
        "sun_azimuth": round(view.sun_azimuth, 6),
        "sun_elevation": round(view.sun_elevation, 6),
        "target_azimuth": round(view.target_azimuth, 6),
        "disaster": event.name,
        "disaster_type": event.disaster_type,
        "catalog_id": catalog,
        "original_width": size,
        "original_height": size,
        "width": size,
        "height": size,
        "id": base64.urlsafe_b64encode(rng.bytes(26)).decode().rstrip("="),
        "img_name": name,
    }

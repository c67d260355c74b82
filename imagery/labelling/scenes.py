"""Scenes in xBD's raw layout, cut out of a map's images around the buildings that people judged.

A label says of a pixel what its map's outline says: those whose centres lie in it, which also voted on its grade.
"""

import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from base.errors import InputError, printable
from base.files import new_folder, write_file
from base.grades import BACKGROUND, SUBTYPES, UNCLASSIFIED
from base.images import encode_png
from imagery.errors import RasterError
from imagery.find.footprints import onto_grid
from imagery.find.ground import place, to_degrees
from imagery.labelling.classes import Labelled
from imagery.read.grid import Grid
from imagery.read.raster import ImagePair
from imagery.read.vectors import Polygons
from xbd.labels import Building
from xbd.names import IMAGE, LABEL, MOMENTS, file_name, is_scene_name, scene_file
from xbd.sample.synthetic import PREFIX
from xbd.scenes import GSD_PIXELS

SIDE = 1024  # pixels of a scene of xBD
SOURCE = "train"  # the folder of the layout
FACTS = "labels.json"
# Pixels by which a polygon goes beyond the centres of its outermost ones: it then has an area, and crosses itself
# nowhere, and its corners still round to these.
MARGIN = 0.1
NAMES = {number: subtype for subtype, number in SUBTYPES.items()}
Mask = npt.NDArray[np.uint8]


class EventError(InputError):
    """A disaster that scenes cannot be called after."""


@dataclass(frozen=True)
class Event:
    """What the scenes are of. name, kind: the disaster's, and its type in xBD's words, None where nobody says. Raises
    EventError.
    """

    name: str
    kind: str | None

    def __post_init__(self) -> None:
        if not is_scene_name(self.name) or self.name.startswith(PREFIX):
            raise EventError(
                f"--event: found {printable(self.name)!r}, expected the name of a disaster without / and not beginning "
                f"with {PREFIX}, as the synthetic ones do, such as socal-fire."
            )


class Cut(NamedTuple):
    """What was written. scenes: their names. drawn: buildings of each class in them, those cut in two twice. claimed:
    the share of their pixels with data that is background by the map alone.
    """

    scenes: tuple[str, ...]
    drawn: dict[str, int]
    claimed: float


def is_ours(event: str, path: Path) -> bool:
    """Whether an earlier run wrote this file of its folder, for the same event."""
    if len(path.parts) != 3:
        return str(path) == FACTS
    source, kind, name = path.parts
    found = scene_file(name, {"images": IMAGE, "labels": LABEL}.get(kind, "?"))
    return source == SOURCE and found is not None and found.scene.rpartition("_")[0] == event


def write_scenes(
    out: Path, pair: ImagePair, labelled: Labelled, event: Event, map_hash: str, about: Mapping[str, Any]
) -> Cut:
    """Writes the scenes into the folder `out`, which appears with all of them: of the squares of SIDE pixels that the
    images are made of, those that a judged building reaches into. Where a square goes beyond the images it is black.

    map_hash: of the map. about: what FACTS says beside what is known here. Raises RasterError, VectorError, and
    InputError where `out` holds other files.
    """
    _, polygons, _ = onto_grid(Polygons(out, labelled.frame, ()), pair.grid)
    tiles = list(_tiles(pair.grid, polygons[labelled.told]))
    if not tiles:
        raise RasterError(f"{pair.pre.name}: no judged building lies in it, expected some. Give the images of the map.")
    tree = shapely.STRtree(polygons)
    # Who was judged is drawn over who was not.
    order = np.argsort(np.where(labelled.classes == UNCLASSIFIED, 0, 1 + labelled.judged), kind="stable")
    rank = np.argsort(order)
    drawn, claimed, seen = dict.fromkeys(NAMES.values(), 0), 0, 0
    names = []
    with new_folder(out, lambda path: is_ours(event.name, path)) as folder:
        for number, window in tiles:
            looked_at = np.zeros((SIDE, SIDE), bool)
            buildings = []
            for row in sorted(tree.query(_square(window)), key=rank.__getitem__):
                mask, left, top = _mask(polygons[row], window)
                looked_at[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask > 0
                if labelled.classes[row] != BACKGROUND:
                    buildings += [
                        Building(_uid(map_hash, number, row, part), polygon, int(labelled.classes[row]))
                        for part, polygon in enumerate(outlines_of(mask, left, top))
                    ]
            images, valid = _read(pair, window)
            name = f"{event.name}_{int(map_hash[:8], 16) % 10_000:04d}{number:04d}"
            _write_scene(folder / SOURCE, name, images, buildings, _metadata(pair, event), _ground(pair.grid, window))
            names.append(name)
            for building in buildings:
                drawn[NAMES[building.grade or 0]] += 1
            claimed, seen = claimed + int((valid & ~looked_at).sum()), seen + int(valid.sum())
        cut = Cut(tuple(names), drawn, claimed / max(seen, 1))
        facts = {"map": map_hash, **about, "scenes": len(names), "buildings": labelled.counts(), "drawn": drawn}
        facts |= {"background_by_the_map": round(cut.claimed, 4), "said": describe_background(cut)}
        write_file(folder / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return cut


def describe_background(cut: Cut) -> str:
    """What a reader must know of the ground beside the buildings, a sentence."""
    return (
        f"{100 * cut.claimed:.0f} % of the scenes is background by the map alone: nobody looked there for buildings "
        "that the map missed, and training takes it for ground without any"
    )


def outlines_of(mask: Mask, left: int = 0, top: int = 0) -> list[shapely.Polygon]:
    """Polygons, one for each part of a mask [H, W] that begins at this column and row, in pixels of a label:
    `xbd.masks.rasterize` draws the parts from them, pixel for pixel. Holes are filled, as a label of xBD knows none; a
    part of one pixel has no polygon.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        points = contour[:, 0] + np.array([left, top], np.float64)
        if len(points) == 1:
            continue
        line = shapely.LineString([*points, points[0]])
        area = shapely.Polygon(points) if len(points) > 2 else line
        around = shapely.union_all([shapely.make_valid(area), line]).buffer(MARGIN, join_style="bevel")
        found.append(shapely.Polygon(around.exterior))
    return found


def _tiles(grid: Grid, told: npt.NDArray[np.object_]) -> Iterator[tuple[int, Window]]:
    """The squares that one of the polygons reaches into, with their numbers, row by row."""
    across, down = math.ceil(grid.width / SIDE), math.ceil(grid.height / SIDE)
    tree = shapely.STRtree(told)
    for number in range(across * down):
        window = Window(number % across * SIDE, number // across * SIDE, SIDE, SIDE)
        if len(tree.query(_square(window), predicate="intersects")):
            yield number, window


def _uid(map_hash: str, number: int, row: int, part: int) -> str:
    """The same whenever the map is labelled again."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{map_hash}/{number}/{row}/{part}"))


def _square(window: Window) -> shapely.Polygon:
    """Around the centres of a window's pixels."""
    right, bottom = window.col_off + window.width, window.row_off + window.height
    corners = window.col_off + 0.5, window.row_off + 0.5, right - 0.5, bottom - 0.5
    return shapely.Polygon(shapely.get_coordinates(shapely.box(*corners)))


def _mask(polygon: shapely.Geometry, window: Window) -> tuple[Mask, int, int]:
    """The pixels of a window whose centres lie in a polygon, or, of one so small that it holds no centre, those that it
    touches: [h, w] around them, and the column and row where this begins in the window.
    """
    bounds = shapely.bounds(polygon)
    (west, north), (east, south) = (
        side(part).astype(int).tolist() for side, part in ((np.floor, bounds[:2]), (np.ceil, bounds[2:]))
    )
    size, transform = (max(1, south - north), max(1, east - west)), Affine.translation(west, north)
    mask: Mask = rasterize([polygon], size, transform=transform, dtype="uint8")
    if not mask.any():
        mask = rasterize([polygon], size, transform=transform, all_touched=True, dtype="uint8")
    left, top = max(west, window.col_off), max(north, window.row_off)
    right, bottom = (max(0, start + side) for start, side in (
        (window.col_off, window.width), (window.row_off, window.height)
    ))  # fmt: skip
    inside = mask[max(0, top - north) : max(0, bottom - north), max(0, left - west) : max(0, right - west)]
    return inside, left - window.col_off, top - window.row_off


def _read(pair: ImagePair, window: Window) -> tuple[dict[str, Mask], npt.NDArray[np.bool_]]:
    """Both images in a window, uint8 [SIDE, SIDE, 3], by their moment, and where both have data; black beyond them."""
    width, height = (min(SIDE, whole - start) for whole, start in (
        (pair.grid.width, window.col_off), (pair.grid.height, window.row_off)
    ))  # fmt: skip
    tile = pair.read(Window(window.col_off, window.row_off, width, height))
    beyond = ((0, SIDE - height), (0, SIDE - width))
    images = (np.pad(colours.transpose(1, 2, 0), (*beyond, (0, 0))) for colours in (tile.pre, tile.post))
    return dict(zip(MOMENTS, images, strict=True)), np.pad(tile.valid, beyond)


def _ground(grid: Grid, window: Window) -> Callable[[shapely.Polygon], str]:
    """From a polygon of a label to the WKT of the same in degrees: its whole numbers are centres of pixels."""
    placed = grid.transform @ Affine.translation(window.col_off + 0.5, window.row_off + 0.5)

    def degrees(polygon: shapely.Polygon) -> str:
        one = np.array([polygon], dtype=object)
        return str(shapely.to_wkt(to_degrees(place(one, placed), grid.crs)[0], rounding_precision=9))

    return degrees


def _metadata(pair: ImagePair, event: Event) -> dict[str, dict[str, Any]]:
    """By the moment, the keys of xBD that are known."""
    pixel = pair.grid.gsd
    known = {"gsd": round(GSD_PIXELS * pixel, 4), "pan_resolution": round(pixel, 4), "disaster": event.name}
    known |= {} if event.kind is None else {"disaster_type": event.kind}
    known |= {f"{kind}{side}": SIDE for kind in ("original_", "") for side in ("width", "height")}
    first = pair.sources.pre[0], pair.sources.post[0]
    return {moment: _acquired(path) | known for moment, path in zip(MOMENTS, first, strict=True)}


def _acquired(path: Path) -> dict[str, Any]:
    """What GDAL knows of the picture, from the vendor's file beside it or from the file itself.

    Source: https://gdal.org/en/stable/user/raster_data_model.html#imagery-domain-remote-sensing
    """
    with rasterio.open(path) as dataset:
        tags = dataset.tags(ns="IMAGERY")
    date = tags.get("ACQUISITIONDATETIME", "")  # in UTC, with a blank before the time
    found = {"sensor": tags.get("SATELLITEID"), "capture_date": date and f"{date.replace(' ', 'T')}Z"}
    return {key: value for key, value in found.items() if value}


def _write_scene(
    folder: Path, name: str, images: Mapping[str, Mask], buildings: Sequence[Building],
    metadata: Mapping[str, Mapping[str, Any]], degrees: Callable[[shapely.Polygon], str],
) -> None:  # fmt: skip
    for moment, image in images.items():
        lists: dict[str, list[dict[str, Any]]] = {"lng_lat": [], "xy": []}
        for building in buildings:
            properties = {"feature_type": "building", "uid": building.uid}
            if moment == "post":
                properties["subtype"] = NAMES[building.grade or 0]
            wkt = shapely.to_wkt(building.polygon, rounding_precision=2)
            lists["xy"].append({"properties": properties, "wkt": wkt})
            lists["lng_lat"].append({"properties": properties, "wkt": degrees(building.polygon)})
        known = {**metadata[moment], "img_name": file_name(name, moment)}
        write_file(folder / "images" / file_name(name, moment), encode_png(image))
        label = json.dumps({"features": lists, "metadata": known})
        write_file(folder / "labels" / file_name(name, moment, LABEL), label)

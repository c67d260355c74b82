"""xBD labels: one JSON file an image, its buildings as WKT polygons in pixels, with a damage grade after the event.

Source: Gupta et al., "xBD: A Dataset for Assessing Building Damage", https://arxiv.org/abs/1911.09296
"""

import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.wkt

from base.access import unreadable
from base.errors import InputError
from base.grades import SUBTYPES

# Far beyond any image, and far below the 32-bit integers that polygons are drawn in; NaN is not below it either.
MAX_COORDINATE = 1e6


class LabelError(InputError):
    """A label file that is not what xBD publishes; the message names file, finding, expectation and remedy."""


@dataclass(frozen=True)
class Building:
    """One labelled building.

    uid: identity shared by the pre and the post label. polygon: in pixels, x to the right, y down.
    grade: 1 no damage, 2 minor, 3 major, 4 destroyed, 255 un-classified; None in pre labels, which have no grade.
    """

    uid: str
    polygon: shapely.Polygon
    grade: int | None

    @property
    def is_sound(self) -> bool:
        """False for polygons that cross themselves or have no area; they are drawn all the same, and counted."""
        return bool(self.polygon.is_valid and self.polygon.area > 0)


@dataclass(frozen=True)
class Label:
    """Buildings and metadata of one label file."""

    buildings: list[Building]
    metadata: dict[str, Any]


def read_buildings(path: Path) -> list[Building]:
    """The buildings of a label file, in its order; see `read_label`."""
    return read_label(path).buildings


def read_label(path: Path) -> Label:
    """Reads a pre or post label file; see `decode_label`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelError(f"{path}: {unreadable(path, error, '. Bring the label file back.')}") from error
    return decode_label(content, str(path))


def decode_label(encoded: bytes, name: str) -> Label:
    """Decodes the content of a pre or post label file, with or without a byte order mark. An empty building list is a
    valid scene.

    Raises LabelError, naming `name`, where the content is not JSON, lacks a field, or holds a geometry that is not a
    WKT polygon with coordinates below a million, or a subtype that xBD does not define.
    """
    try:
        content = json.loads(encoded.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if encoded.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise LabelError(f"{name}: is not JSON (it is UTF-16, expected UTF-8). Save the file as UTF-8.") from error
        raise LabelError(f"{name}: is not JSON ({error}). Mend the file.") from error
    try:
        features, metadata = content["features"]["xy"], content["metadata"]
    except (KeyError, TypeError) as error:
        raise LabelError(
            f"{name}: has no {error}, expected the keys features.xy and metadata, as in published xBD labels."
        ) from error
    if not isinstance(features, list) or not isinstance(metadata, dict):
        raise LabelError(f"{name}: features.xy must be a list and metadata a mapping, as in published xBD labels.")
    return Label([_read_building(name, number, feature) for number, feature in enumerate(features)], metadata)


def _read_building(name: str, number: int, feature: Any) -> Building:
    try:
        properties, wkt = feature["properties"], feature["wkt"]
        uid = str(properties.get("uid", f"number {number}"))
        subtype = properties.get("subtype")
    except (KeyError, TypeError, AttributeError) as error:
        raise LabelError(f"{name}: building number {number}, expected the keys properties and wkt. Fix it.") from error
    remedy = "Fix the label, or list the scene under prepare.exclude."
    if subtype is not None and (not isinstance(subtype, str) or subtype not in SUBTYPES):
        raise LabelError(f"{name}: building {uid}: subtype {subtype!r} is not one of {', '.join(SUBTYPES)}. {remedy}")
    try:
        if not isinstance(wkt, str):
            raise TypeError("not a text")
        with np.errstate(all="ignore"):  # shapely warns of NaN and overflow beside the error below
            polygon = shapely.wkt.loads(wkt)
    except (shapely.errors.GEOSException, TypeError, NotImplementedError) as error:  # the last is of curves
        raise LabelError(f"{name}: building {uid}: wkt {str(wkt)[:60]!r} is malformed ({error}). {remedy}") from error
    if not isinstance(polygon, shapely.Polygon):
        raise LabelError(f"{name}: building {uid}: geometry is a {polygon.geom_type}, expected a Polygon. {remedy}")
    if not all(abs(value) < MAX_COORDINATE for point in polygon.exterior.coords for value in point):
        raise LabelError(f"{name}: building {uid}: has a coordinate that is no pixel of any image. {remedy}")
    return Building(uid, polygon, None if subtype is None else SUBTYPES[subtype])

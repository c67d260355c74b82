"""From a raw scene to a prepared one: both images and the mask in one array, and what the index says of it."""

import ast
import hashlib
import inspect
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import shapely

from base import images
from base.access import unreadable
from base.grades import SUBTYPES
from base.images import decode_image
from xbd import labels, masks
from xbd.labels import decode_label
from xbd.masks import is_drawn, rasterize
from xbd.names import other_ending
from xbd.scenes import RawScene, SceneError, SceneRecord


class Sources(NamedTuple):
    """The contents of a raw scene's files, read once."""

    pre: bytes
    post: bytes
    label: bytes

    def hashes(self) -> dict[str, str]:
        """The sha256 of each, by its column in the index."""
        return {f"{name}_sha256": hashlib.sha256(part).hexdigest() for name, part in self._asdict().items()}


def read_sources(raw: RawScene) -> Sources:
    """Reads the three files; raises SceneError where one is missing or unreadable."""
    return Sources(*(_read(path) for path in (raw.image("pre"), raw.image("post"), raw.label)))


def prepare_scene(raw: RawScene, sources: Sources) -> tuple[npt.NDArray[np.uint8], SceneRecord]:
    """uint8 [H, W, 7] (pre RGB, post RGB, mask) and the index line; its split is the published one.

    Raises LabelError, ImageError or SceneError where a file is damaged or does not fit the others.
    """
    pre = decode_image(sources.pre, str(raw.image("pre")))
    post = decode_image(sources.post, str(raw.image("post")))
    if pre.shape != post.shape:
        raise SceneError(
            f"{raw.image('post')}: is {post.shape[1]}x{post.shape[0]} pixels, the pre image "
            f"{pre.shape[1]}x{pre.shape[0]}, expected one size. Fetch the pair again, or list the scene under "
            "prepare.exclude."
        )
    label = decode_label(sources.label, str(raw.label))
    _check_size(raw, label.metadata, (pre.shape[1], pre.shape[0]))
    ungraded = [building.uid for building in label.buildings if building.grade is None]
    if ungraded:
        raise SceneError(f"{raw.label}: building {ungraded[0]} has no subtype, expected a grade in every post label.")
    mask = rasterize(label.buildings, (pre.shape[0], pre.shape[1]))
    counts = Counter(building.grade for building in label.buildings)
    buildings: dict[str, Any] = {_column(name): counts[grade] for name, grade in SUBTYPES.items()}
    hashes: dict[str, Any] = sources.hashes()
    array = np.dstack([pre, post, mask])
    record = SceneRecord(
        scene=raw.scene,
        split=raw.source,
        source=raw.source,
        disaster=_name(raw, label.metadata, "disaster", raw.disaster),
        disaster_type=_name(raw, label.metadata, "disaster_type", "unknown"),
        height=pre.shape[0],
        width=pre.shape[1],
        **buildings,
        unsound_polygons=sum(not building.is_sound for building in label.buildings),
        gsd=_number(raw, label.metadata, "gsd"),
        off_nadir_angle=_number(raw, label.metadata, "off_nadir_angle"),
        **hashes,
        array_sha256=hashlib.sha256(array.data).hexdigest(),
        undrawn_buildings=sum(not is_drawn(building, mask.shape) for building in label.buildings),
    )
    return array, record


def preparation_version() -> str:
    """Identity of what turns sources into arrays: this code, comments aside, and the libraries that decode, judge and
    draw.

    Arrays that another version made are not kept when a data set is prepared again.
    """
    modules = (images, labels, masks, sys.modules[__name__])
    code = [ast.dump(ast.parse(inspect.getsource(module))).encode() for module in modules]
    libraries = (
        f"numpy {np.__version__}, opencv {cv2.__version__}, pillow {PIL.__version__}, "
        f"shapely {shapely.__version__}, geos {shapely.geos_version_string}"
    )
    return hashlib.sha256(b"".join(code) + libraries.encode()).hexdigest()


def _column(grade: str) -> str:
    return grade.replace("un-", "un").replace("-", "_")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        other = other_ending(path)
        remedy = f": {other}" if other else ". Bring the file back."
        raise SceneError(f"{path}: {unreadable(path, error, remedy)}") from error


def _check_size(raw: RawScene, metadata: dict[str, Any], size: tuple[int, int]) -> None:
    """Raises SceneError where the label says that it was made for images of another (width, height)."""
    said = tuple(_number(raw, metadata, key) for key in ("width", "height"))
    if any(not math.isnan(one) and one != found for one, found in zip(said, size, strict=True)):
        raise SceneError(
            f"{raw.label}: metadata.width and height are {said[0]:g}x{said[1]:g} pixels, the images "
            f"{size[0]}x{size[1]}, expected one size. Bring the images that the label was made for, scale its "
            "polygons, or list the scene under prepare.exclude."
        )


def _name(raw: RawScene, metadata: dict[str, Any], key: str, default: str) -> str:
    """A name of the label's metadata, that the index can hold; the default where the key is missing."""
    value = metadata.get(key, default)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise SceneError(f"{raw.label}: metadata.{key} is {value!r}, expected a name. Correct or remove it.")
    return value


def _number(raw: RawScene, metadata: dict[str, Any], key: str) -> float:
    """A number of the label's metadata; NaN where the key is missing."""
    value = metadata.get(key, math.nan)
    if not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        raise SceneError(f"{raw.label}: metadata.{key} is {value!r}, expected a number. Correct or remove it.")
    return float(value)

"""What a shard leaves for the merge, as a folder: classes, buildings, their features, its part of the images, and what
is compared with the training data.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from base.access import unreadable
from base.errors import shortly
from base.images import ImageError, encode_png, read_image
from imagery.find.joining import Buildings, Edges, Pieces
from imagery.find.pixels import Numbers
from imagery.predict.domain import Parts
from imagery.predict.tile_features import Scale
from imagery.predict.tile_store import CLASSES
from imagery.shards.footprints import Graded
from imagery.shards.plan import Plan, PlanError
from xbd.overview import Image

SHARD = "shard.json"  # comes last: where it is, the rest is whole
BUILDINGS, MEANS, SUMS, COMPARED = "buildings.npz", "means.npy", "sums.npz", "compared.npz"
IMAGES = ("before.png", "after.png")
FILES = (CLASSES, BUILDINGS, MEANS, SUMS, COMPARED, *IMAGES, SHARD)
_REMEDY = "Predict the shard again."


class Features(NamedTuple):
    """Of the buildings of a shard, of footprints those that are seen. means: float16 [N, channels]; of those that may
    go on in other shards the sums are kept, see `TileFeatures.sums`: going_on: [M] their numbers, sums:
    [M, 2, 1 + channels].
    """

    means: npt.NDArray[np.float16]
    going_on: Numbers
    sums: Numbers


class StoredShard(NamedTuple):
    """has_data: whether any pixel has. scales: of the features, none where none were kept or no pixel has data."""

    folder: Path
    number: int
    has_data: bool
    scales: tuple[Scale, ...]

    @property
    def classes(self) -> Path:
        """The raster of its part of the grid, see `imagery.predict.inference.predict_part`."""
        return self.folder / CLASSES

    def pieces(self) -> Pieces:
        """Raises PlanError where the file is damaged."""
        with _reading(self.folder / BUILDINGS) as path, np.load(path) as stored:
            offsets = stored["rings"], stored["polygons"]
            points = stored["points"].astype(np.float64)
            outlines = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, offsets)
            known = stored["votes"], np.asarray(outlines, dtype=object), stored["partly"], np.zeros(0, np.int64)
            return Pieces(Buildings(*known), stored["first"], Edges(*(stored[name] for name in Edges._fields)))

    def footprints(self) -> Graded:
        """What it says of footprints, where the plan has some. Raises PlanError where the file is damaged."""
        with _reading(self.folder / BUILDINGS) as path, np.load(path) as stored:
            return Graded(*(stored[name] for name in Graded._fields))

    def features(self) -> Features:
        """Raises PlanError where a file is damaged."""
        with _reading(self.folder / MEANS) as path:
            means = np.load(path, mmap_mode="r")
        with _reading(self.folder / SUMS) as path, np.load(path) as stored:
            return Features(means, stored["going_on"], stored["sums"])

    def compared(self) -> Parts:
        """What is compared with the training data. Raises PlanError where the file is damaged."""
        with _reading(self.folder / COMPARED) as path, np.load(path) as stored:
            known = {name: (stored[f"{name}_of"].tolist(), stored[name]) for name in Parts._fields}
            return Parts(**{name: dict(zip(*found, strict=True)) for name, found in known.items()})

    def images(self) -> tuple[Image, Image]:
        """Both images as `imagery.give.look.reduce` gives them. Raises PlanError."""
        try:
            before, after = (read_image(self.folder / name) for name in IMAGES)
        except ImageError as error:
            raise PlanError(f"{error} {_REMEDY}") from error
        return before, after


def name_of(number: int) -> str:
    """The folder of a shard among those of others."""
    return f"shard-{number:05}"


def is_ours(path: Path) -> bool:
    """Whether a path relative to a shard's folder is one of its files."""
    return str(path) in FILES


def write_buildings(folder: Path, pieces: Pieces) -> None:
    """Writes the buildings of a shard."""
    buildings = pieces.buildings
    points: npt.NDArray[Any] = np.zeros((0, 2))
    offsets: tuple[npt.NDArray[Any], ...] = np.zeros(1, np.int64), np.zeros(1, np.int64)
    if len(buildings.outlines):  # of none shapely does not know the kind
        _, points, offsets = shapely.to_ragged_array(buildings.outlines[:])
    np.savez_compressed(
        folder / BUILDINGS, votes=buildings.votes, partly=buildings.partly, first=pieces.first,
        points=points.astype(np.int32), rings=offsets[0], polygons=offsets[1], **pieces.edges._asdict(),
    )  # fmt: skip


def write_footprints(folder: Path, graded: Graded) -> None:
    """Writes what the pixels of a shard say of footprints, in the place of its buildings."""
    np.savez_compressed(folder / BUILDINGS, **graded._asdict())


def write_images(folder: Path, images: Sequence[Image]) -> None:
    """Writes the reduced images of a shard."""
    for name, image in zip(IMAGES, images, strict=True):
        (folder / name).write_bytes(encode_png(image))


def write_compared(folder: Path, parts: Parts) -> None:
    """Writes what is compared with the training data."""
    arrays: dict[str, Any] = {}
    for name, own in parts._asdict().items():
        arrays |= {f"{name}_of": np.array([*own], np.int64), name: np.array([*own.values()])}
    np.savez_compressed(folder / COMPARED, **arrays)


def write_facts(folder: Path, plan: Plan, number: int, *, has_data: bool, scales: Sequence[Scale]) -> None:
    """Writes what says that the folder is whole, and of which plan."""
    facts = {
        "plan": plan.digest, "shard": number, "has_data": has_data, "scales": [list(scale) for scale in scales],
        "bytes": {name: (folder / name).stat().st_size for name in FILES if name != SHARD},
    }  # fmt: skip
    (folder / SHARD).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def read_shard(folder: Path, plan: Plan, number: int) -> StoredShard:
    """The shard in a folder; raises PlanError where it is not whole, or of another plan."""
    path = folder / SHARD
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = facts["plan"], facts["shard"]
        sizes = {name: int(facts["bytes"][name]) for name in FILES if name != SHARD}
        stored = StoredShard(folder, number, bool(facts["has_data"]), tuple(Scale(*scale) for scale in facts["scales"]))
    except OSError as error:
        raise PlanError(f"{path}: {unreadable(path, error, f'. {_REMEDY}')}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    if found != (plan.digest, number):
        raise PlanError(
            f"{path}: is shard {found[1]} of plan {str(found[0])[:12]}, expected shard {number} of {plan.digest[:12]}. "
            f"{_REMEDY}"
        )
    for name, size in sizes.items():
        own = (folder / name).stat().st_size if (folder / name).exists() else None
        if own != size:
            seen = "is missing" if own is None else f"has {own} bytes, expected {size}"
            raise PlanError(f"{folder / name}: {seen}. {_REMEDY}")
    return stored


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """Around reading a file of arrays."""
    try:
        yield path
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> PlanError:
    return PlanError(f"{path}: cannot be read ({shortly(error)}). {_REMEDY}")

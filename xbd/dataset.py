"""What training and evaluation read: random crops and whole scenes, from the memory maps of the prepared data."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from base.grades import SUBTYPES
from xbd.scenes import INDEX, MASK, POST, PRE, SceneError, SceneRecord, open_scene, read_index
from xbd.windows import Parts, read_parts, read_planes, resize_planes

if TYPE_CHECKING:
    from xbd.augmentation.pipelines import Augmentation

# Each process of training and each loader worker has its own cores; OpenCV's threads would only fight with them.
cv2.setNumThreads(0)

Array = npt.NDArray[np.uint8]
BAND = 64  # rows of a scene that are searched for damage at a time


class Sample(NamedTuple):
    """pre, post: uint8 [3, H, W]; mask: uint8 [H, W], 0-4 and 255; batches add a leading dimension."""

    pre: Tensor
    post: Tensor
    mask: Tensor


class _Crop(NamedTuple):
    """What is random about an item: its scene, the window's upper left corner and side in pixels, which axes run
    backwards (-1), whether they change places, and how many pixels post is read beside pre.
    """

    record: SceneRecord
    corner: tuple[int, int]
    side: int
    flips: npt.NDArray[np.int64]
    transposed: bool
    shift: npt.NDArray[np.int64]


class SceneCrops(Dataset[Sample]):
    """Random crops with flips, quarter turns and scaling, one geometry for both images and the mask.

    An epoch is `crops_per_scene` crops of every scene. Item `i` is crop `i % len` of epoch `i // len`, and a pure
    function of (seed, i): neither the number of workers nor a resumed run changes what is drawn. Indices beyond
    the first epoch are therefore valid.

    root: a prepared data set. crop_size: pixels of the sample. scale: range of the zoom; the window read from the
    scene is crop_size / zoom pixels. Where it reaches beyond the scene, images are 0 and the mask is 255 (ignored).

    damage_focus: the probability f with which an item's window is replaced by one that holds a damaged pixel (grades
    2-4). The pixel is drawn in three steps, each uniform: a scene whose buildings, by the index, are damaged; of its
    bands of BAND rows that show damage, one; of the band's damaged pixels, one. The window is uniform among those
    that hold the pixel and stay inside the scene. Zoom, flips and turn are the item's own, and the other items are
    those of f = 0. Where a share p of the uniform crops shows damage, f + (1 - f) p of all are expected to; only
    damage one pixel wide may be lost between the samples of a zoom below 1.

    misalignment: the post image is read up to so many pixels of the scene beside pre and mask, by whole numbers drawn
    uniformly for each axis. Where that reaches beyond the scene, post is 0; the mask stays as it is.

    augmentation: the pipelines `geometry` and `photometry` of `xbd.augmentation.pipelines`, which take the place of the
    flips and quarter turns. Where they turn by any angle, a wider window is read, so that the corners show the scene;
    a damaged pixel that `damage_focus` placed near a corner may then turn out of the crop.

    Raises SceneError (from `read_index`, `open_scene`) where the data set is missing or damaged, and where
    damage_focus finds no damage in it, AugmentationError where a pipeline cannot be used.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        crop_size: int = 512,
        *,
        scale: Sequence[float] = (0.8, 1.2),
        crops_per_scene: int = 1,
        seed: int = 0,
        damage_focus: float = 0.0,
        misalignment: int = 0,
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        self.root, self.split, self.records = Path(root), split, read_index(Path(root), [split])
        self.crop_size, self.scale = crop_size, (float(scale[0]), float(scale[1]))
        self.crops_per_scene, self.seed = crops_per_scene, seed
        self.damage_focus, self.misalignment = damage_focus, misalignment
        self.augmentation = None if augmentation is None else _pipelines(augmentation, crop_size)
        self._damaged = np.flatnonzero([r.minor_damage + r.major_damage + r.destroyed > 0 for r in self.records])
        if damage_focus > 0 and not len(self._damaged):
            raise self._no_damage()

    def __len__(self) -> int:
        return len(self.records) * self.crops_per_scene

    def __getitem__(self, index: int) -> Sample:
        crop = self._draw(index)
        if self.augmentation is not None:
            return _augmented(open_scene(self.root, crop.record), crop, self.augmentation, (self.seed, index))
        planes = read_planes(open_scene(self.root, crop.record), crop.corner, crop.side, crop.flips, crop.shift)
        parts = torch.from_numpy(resize_planes(planes, self.crop_size, crop.transposed))
        return Sample(parts[PRE], parts[POST], parts[MASK])

    def scene_of(self, index: int) -> str:
        """Name of the scene that an item is cut from."""
        return self._draw(index).record.scene

    def _draw(self, index: int) -> "_Crop":
        rng = np.random.default_rng((self.seed, index))
        record = self.records[index % len(self) // self.crops_per_scene]
        side = round(self.crop_size / rng.uniform(*self.scale))
        top, left = (int(rng.integers(0, max(1, length - side + 1))) for length in (record.height, record.width))
        flips, transposed = 1 - 2 * rng.integers(2, size=2), bool(rng.integers(2))
        if rng.random() < self.damage_focus:
            record, pixel = self._draw_damage(rng)
            lengths = (record.height, record.width)
            top, left = (_draw_start(rng, *axis, side) for axis in zip(pixel, lengths, strict=True))
        shift = rng.integers(-self.misalignment, self.misalignment, 2, endpoint=True)
        return _Crop(record, (top, left), side, flips, transposed, shift)

    def _draw_damage(self, rng: np.random.Generator) -> tuple[SceneRecord, tuple[int, int]]:
        """A scene, and the row and the column of a damaged pixel of it."""
        first, count = int(rng.integers(len(self._damaged))), len(self._damaged)
        for number in range(first, first + count):
            record = self.records[self._damaged[number % count]]
            pixel = _find_damage(open_scene(self.root, record), rng)
            if pixel is not None:
                return record, pixel
            # A building that the index counts may lie beside the image: then the next scene stands in.
        raise self._no_damage()

    def _no_damage(self) -> SceneError:
        return SceneError(
            f"train.damage_focus: found {self.damage_focus}, but no {self.split} scene of {self.root / INDEX} shows a "
            "building of minor damage or worse. Set it to 0, or prepare scenes with damage."
        )


class Scenes(Dataset[Sample]):
    """Whole scenes in the order of the index, for evaluation. `records[i]` describes item i."""

    def __init__(self, root: Path | str, splits: Sequence[str]) -> None:
        self.root, self.records = Path(root), read_index(Path(root), splits)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        scene = open_scene(self.root, self.records[index])
        return Sample(_to_tensor(scene[..., PRE]), _to_tensor(scene[..., POST]), torch.tensor(scene[..., MASK]))


def _find_damage(scene: Array, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a damaged pixel, or None: a random one of a random band among those that show damage.

    Bands are looked through in random order up to the first that shows damage. On real scenes that is a tenth of the
    mask on average, and needs no memory of where damage lies, in none of the loader's processes.
    """
    for start in BAND * rng.permutation(math.ceil(len(scene) / BAND)):
        grades = scene[start : start + BAND, :, MASK]
        rows, columns = np.nonzero((grades >= SUBTYPES["minor-damage"]) & (grades <= SUBTYPES["destroyed"]))
        if len(rows):
            chosen = rng.integers(len(rows))
            return int(start + rows[chosen]), int(columns[chosen])
    return None


def _draw_start(rng: np.random.Generator, pixel: int, length: int, side: int) -> int:
    """Where a window of `side` pixels may start on an axis of `length` pixels so that it holds the pixel."""
    return int(rng.integers(max(0, pixel - side + 1), min(pixel, max(0, length - side)), endpoint=True))


def _pipelines(augmentation: Mapping[str, Any], size: int) -> "Augmentation":
    from xbd.augmentation.pipelines import Augmentation  # imports for seconds

    return Augmentation(**augmentation, size=size)


def _augmented(scene: Array, crop: _Crop, augmentation: "Augmentation", seed: tuple[int, int]) -> Sample:
    """The crop as the pipelines change it."""
    side = round(crop.side * augmentation.reach)
    # A scene smaller than the window lies in its middle, about which it is turned, and not in its corner.
    top, left = (
        start - (side - crop.side) // 2 if length >= crop.side else (length - side) // 2
        for start, length in zip(crop.corner, scene.shape[:2], strict=True)
    )
    pre, post, mask = read_parts(scene, top, left, side, augmentation.channels)
    if crop.shift.any():
        post = read_parts(scene, top + crop.shift[0], left + crop.shift[1], side, augmentation.channels)[1]
    if augmentation.side is not None:
        size = (augmentation.side, augmentation.side)
        pre, post = (np.asarray(cv2.resize(image, size), np.uint8) for image in (pre, post))
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    sample = augmentation.apply(Parts(pre, post, mask), seed)
    return Sample(_to_tensor(sample.pre), _to_tensor(sample.post), torch.from_numpy(np.ascontiguousarray(sample.mask)))


def _to_tensor(image: Array) -> Tensor:
    """[H, W, 3] to a contiguous [3, H, W]."""
    return torch.from_numpy(np.stack(cv2.split(image)))  # in half the time of a transposed copy

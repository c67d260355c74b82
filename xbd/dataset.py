"""What training and evaluation read: random crops and whole scenes, from the memory maps of the prepared data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xbd.labels import UNCLASSIFIED
from xbd.scenes import MASK, POST, PRE, open_scene, read_index

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for a newer version over the network otherwise
import albumentations as A

# Each process of training and each loader worker has its own cores; OpenCV's threads would only fight with them.
cv2.setNumThreads(0)


class Sample(NamedTuple):
    """pre, post: uint8 [3, H, W]; mask: uint8 [H, W], 0-4 and 255; batches add a leading dimension."""

    pre: Tensor
    post: Tensor
    mask: Tensor


class SceneCrops(Dataset[Sample]):
    """Random crops with flips, quarter turns and scaling, one geometry for both images and the mask.

    An epoch is `crops_per_scene` crops of every scene. Item `i` is crop `i % len` of epoch `i // len`, and a pure
    function of (seed, i): neither the number of workers nor a resumed run changes what is drawn. Indices beyond
    the first epoch are therefore valid.

    root: a prepared data set. crop_size: pixels of the sample. scale: range of the zoom; the window read from the
    scene is crop_size / zoom pixels. Where it reaches beyond the scene, images are 0 and the mask is 255 (ignored).
    augment: False gives the same windows without zoom, flips and turns.
    Raises SceneError (from `read_index`, `open_scene`) where the data set is missing or damaged.
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
        augment: bool = True,
    ) -> None:
        self.root, self.records = Path(root), read_index(Path(root), [split])
        self.crop_size, self.scale = crop_size, (float(scale[0]), float(scale[1]))
        self.crops_per_scene, self.seed, self.augment = crops_per_scene, seed, augment
        # D4, the eight symmetries of the square, is both flips and the quarter turns in one.
        self._geometry = A.Compose(
            [A.Resize(crop_size, crop_size, interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST)]
            + ([A.D4(p=1)] if augment else []),
            additional_targets={"post": "image"},
        )

    def __len__(self) -> int:
        return len(self.records) * self.crops_per_scene

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        record = self.records[index % len(self) // self.crops_per_scene]
        zoom = rng.uniform(*self.scale) if self.augment else 1.0
        side = round(self.crop_size / zoom)
        top, left = (int(rng.integers(0, max(1, length - side + 1))) for length in (record.height, record.width))
        window = _read_window(open_scene(self.root, record), top, left, side)
        self._geometry.set_random_seed(int(rng.integers(2**31)))
        out = self._geometry(image=window[..., PRE], post=window[..., POST], mask=window[..., MASK])
        return Sample(_to_tensor(out["image"]), _to_tensor(out["post"]), torch.from_numpy(out["mask"].copy()))


class Scenes(Dataset[Sample]):
    """Whole scenes in the order of the index, for evaluation. `records[i]` describes item i."""

    def __init__(self, root: Path | str, splits: Sequence[str]) -> None:
        self.root, self.records = Path(root), read_index(Path(root), splits)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        scene = open_scene(self.root, self.records[index])
        return Sample(_to_tensor(scene[..., PRE]), _to_tensor(scene[..., POST]), torch.tensor(scene[..., MASK]))


def _read_window(scene: npt.NDArray[np.uint8], top: int, left: int, side: int) -> npt.NDArray[np.uint8]:
    """A square window of the map, [side, side, 7]; beyond the scene's edge images are 0 and the mask is ignored."""
    part = np.ascontiguousarray(scene[top : top + side, left : left + side])
    if part.shape[:2] == (side, side):
        return part
    window = np.zeros((side, side, part.shape[2]), np.uint8)
    window[..., MASK] = UNCLASSIFIED
    window[: part.shape[0], : part.shape[1]] = part
    return window


def _to_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    """[H, W, 3] to a contiguous [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

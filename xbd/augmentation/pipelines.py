"""Two pipelines of Albumentations, one for geometry and one for light, as a pure function of a seed.

Its import takes seconds, so only what augments imports this file.
"""

import copy
import math
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from base.errors import InputError, printable
from base.grades import UNCLASSIFIED

# Albumentations asks PyPI for a newer version when it is imported, and warns where there is no network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2

from xbd.augmentation.presets import GEOMETRY, PHOTOMETRY
from xbd.augmentation.rotated_crop import RotatedCrop
from xbd.windows import Array, Parts

Pipeline = str | Mapping[str, Any]
# Transforms after which the square still shows what it showed; all others get a wider one, and are cut to its centre.
KEEPS_THE_SQUARE = (
    A.HorizontalFlip, A.VerticalFlip, A.Transpose, A.D4, A.SquareSymmetry, A.RandomRotate90, A.CoarseDropout,
    A.GridDropout, A.NoOp,
)  # fmt: skip
NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)  # of a mask, between whose grades no other grade lies
TRIALS = 8  # samples by which a pipeline of a user is tried, each of which takes one way through groups such as OneOf


class AugmentationError(InputError):
    """A pipeline that Albumentations does not know, or that would spoil the samples."""


class Augmentation:
    """What `train.augmentation` says, ready to be applied to samples of `size` pixels.

    geometry, photometry: the name of a preset, or a pipeline in the form of `albumentations.to_dict`.
    Raises AugmentationError where one is no pipeline, where geometry changes light, mixes grades of the mask or takes
    what it uncovers in it for background, where photometry moves pixels, which the mask would not follow, and where
    samples on which a pipeline of a user is tried come out as none.
    """

    def __init__(self, geometry: Pipeline, photometry: Pipeline, size: int) -> None:
        self.size = size
        pair = {"post": "image"}
        transforms = GEOMETRY[geometry](size) if isinstance(geometry, str) else _read("geometry", geometry)
        self.geometry = A.Compose(transforms, additional_targets=pair)
        transforms = PHOTOMETRY[photometry]() if isinstance(photometry, str) else _read("photometry", photometry)
        self.photometry = A.Compose(transforms)
        leaves = list(_leaves(self.geometry))
        for transform in leaves:
            self._check_geometry(transform)
        for transform in _leaves(self.photometry):
            if not isinstance(transform, A.ImageOnlyTransform | A.NoOp):
                raise AugmentationError(
                    f"train.augmentation.photometry: found {type(transform).__name__}, which moves or hides pixels; "
                    "expected changes of light and colour alone. Put it into geometry, which the mask follows."
                )
        self._turns = any(isinstance(transform, RotatedCrop) for transform in leaves)
        self._turns_first = isinstance(next(iter(self.geometry.transforms), None), RotatedCrop)
        self._keeps = all(isinstance(transform, KEEPS_THE_SQUARE) for transform in leaves)
        if not (isinstance(geometry, str) and isinstance(photometry, str)):
            self._try()

    @property
    def reach(self) -> float:
        """How many times wider than the crop the window is that `apply` wants."""
        return 1.0 if self._keeps else 2**0.5

    @property
    def side(self) -> int | None:
        """Side in pixels of the squares that `apply` wants; None where it scales them itself."""
        return None if self._turns else round(self.size * self.reach)

    @property
    def channels(self) -> int:
        """Of the images that `apply` wants, see `read_parts`."""
        return 4 if self._turns_first else 3

    def as_dict(self) -> dict[str, Any]:
        """Both pipelines in the form of `albumentations.to_dict`, with the library's version."""
        return {"geometry": A.to_dict(self.geometry), "photometry": A.to_dict(self.photometry)}

    def apply(self, parts: Parts, seed: Sequence[int]) -> Parts:
        """A sample of [size, size]; the same for the same seed, whatever was augmented before.

        Raises AugmentationError where what a pipeline makes is no sample.
        """
        # Not from 0 on: numpy takes (seed, index, 0) for (seed, index), from which the window was drawn.
        self._draw_from(self.geometry, (*seed, 1))
        try:
            made = self.geometry(image=parts.pre, post=parts.post, mask=parts.mask)
            pre, post, mask = (_centre(made[name], self.size) for name in ("image", "post", "mask"))
            if self.photometry.transforms:  # season, hour and sensor of the two differ
                pre, post = (self._light(image, (*seed, number)) for number, image in enumerate((pre, post), 2))
        except Exception as error:  # whatever a hundred transforms raise
            raise AugmentationError(
                f"train.augmentation: a pipeline fails on a sample ({_reason(error)}). Leave out the transform that "
                "does, or what it needs beside images and mask."
            ) from error
        result = Parts(pre, post, mask)
        for name, part, shape in zip(Parts._fields, result, ([3], [3], []), strict=True):
            if list(part.shape) != [self.size, self.size, *shape] or part.dtype != np.uint8:
                raise AugmentationError(
                    f"train.augmentation: found {name} of {list(part.shape)} and {part.dtype} behind the pipelines; "
                    f"expected {[self.size, self.size, *shape]} and uint8. Leave out what changes either."
                )
        return result

    def _light(self, image: Array, seed: Sequence[int]) -> Any:
        self._draw_from(self.photometry, seed)
        return self.photometry(image=image)["image"]

    def _try(self) -> None:
        """Raises AugmentationError where samples come out as none, with all transforms applied that ever are."""
        trial, side = copy.copy(self), self.side or round(self.size * self.reach)
        trial.geometry, trial.photometry = copy.deepcopy((self.geometry, self.photometry))
        for transform in (*_leaves(trial.geometry), *_leaves(trial.photometry)):
            transform.p = math.ceil(transform.p)
        image = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
        for seed in range(TRIALS):
            trial.apply(Parts(image, image.copy(), image[..., 0] % 5), (seed,))

    def _check_geometry(self, transform: Any) -> None:
        name = type(transform).__name__
        if not isinstance(transform, A.DualTransform):
            raise AugmentationError(
                f"train.augmentation.geometry: found {name}, which changes light or colour, in both images alike; "
                "expected what moves or hides pixels. Put it into photometry, which is drawn for each image."
            )
        fill = getattr(transform, "fill_mask", None)
        if fill is not None and fill != UNCLASSIFIED:
            raise AugmentationError(
                f"train.augmentation.geometry: {name} fills the mask with {fill}, which says what is not seen; "
                f"expected fill_mask {UNCLASSIFIED}, which no loss counts."
            )
        if getattr(transform, "mask_interpolation", cv2.INTER_NEAREST) not in NEAREST:
            raise AugmentationError(
                f"train.augmentation.geometry: {name} mixes grades of the mask (mask_interpolation "
                f"{transform.mask_interpolation}); expected {cv2.INTER_NEAREST}, which takes the nearest pixel."
            )
        if isinstance(transform, RotatedCrop) and (
            transform.size != self.size or transform not in self.geometry.transforms
        ):
            raise AugmentationError(
                f"train.augmentation.geometry: {name} gives {transform.size} pixels; expected train.crop_size, "
                f"{self.size}, and no group such as OneOf around it, for it always applies."
            )

    @staticmethod
    def _draw_from(pipeline: A.Compose, seed: Sequence[int]) -> None:
        """One stream of random numbers for all transforms. `set_random_seed` gives each the same numbers: then an
        image that is flipped one way is flipped the other way, too.
        """
        generator = np.random.default_rng(seed)
        pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))


def _read(name: str, form: Mapping[str, Any]) -> list[Any]:
    """The transforms of a pipeline in the form of `albumentations.to_dict`. Raises AugmentationError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is missing, before the error that says so
            pipeline = A.from_dict(dict(form))
    except Exception as error:  # whatever pydantic and the constructors of a hundred transforms raise
        raise AugmentationError(
            f"train.augmentation.{name}: Albumentations {A.__version__} cannot read it ({_reason(error)}); expected "
            "the name of a preset, or what its `to_dict` gives for a Compose."
        ) from error
    if not isinstance(pipeline, A.Compose):
        raise AugmentationError(
            f"train.augmentation.{name}: found {type(pipeline).__name__}; expected a Compose around all transforms."
        )
    transforms = list(pipeline.transforms)
    return transforms if pipeline.p == 1 else [A.Sequential(transforms, p=pipeline.p)]


def _reason(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}")


def _leaves(pipeline: Any) -> list[Any]:
    """The transforms of a pipeline, without what only groups them."""
    if isinstance(pipeline, A.BaseCompose):
        return [leaf for part in pipeline.transforms for leaf in _leaves(part)]
    return [pipeline]


def _centre(image: Array, size: int) -> Array:
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[max(top, 0) : max(top, 0) + size, max(left, 0) : max(left, 0) + size]

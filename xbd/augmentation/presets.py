"""The named pipelines of augmentation, in transforms of Albumentations."""

from collections.abc import Callable, Sequence
from typing import Any

import albumentations as A

from base.grades import UNCLASSIFIED
from xbd.augmentation.rotated_crop import RotatedCrop

Transforms = Sequence[Any]


def _paper_geometry(size: int) -> Transforms:
    """Paper, section 3: "horizontal and vertical flips, rotation"; the scale is the window's.

    Both flips together are half a turn, so that a mirror image of every second sample, turned by any angle, is all.
    """
    return [RotatedCrop(size=size, mirror=0.5)]


def _strong_geometry(size: int) -> Transforms:
    """The paper's, and holes in the same place of both images, where nothing is asked for."""
    hole = (0.04, 0.12)
    holes = A.CoarseDropout(
        num_holes_range=(1, 6), hole_height_range=hole, hole_width_range=hole, fill=0, fill_mask=UNCLASSIFIED, p=0.3
    )
    return [*_paper_geometry(size), holes]


def _strong_photometry() -> Transforms:
    """What season, hour, haze, sensor and the way of a file into the archive change about one place."""
    light = [
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.25, p=1.0),
        A.RandomGamma(gamma_limit=(70, 140), p=1.0),
        # Haze takes contrast away and adds light.
        A.RandomBrightnessContrast(brightness_limit=(0.05, 0.25), contrast_limit=(-0.45, -0.15), p=1.0),
    ]
    colour = [
        A.RGBShift(r_shift_limit=18, g_shift_limit=18, b_shift_limit=18, p=1.0),
        A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=30, val_shift_limit=0, p=1.0),
    ]
    sharpness = [
        A.GaussianBlur(blur_limit=(3, 5), p=1.0),
        A.MotionBlur(blur_limit=(3, 5), p=1.0),
        A.Downscale(scale_range=(0.5, 0.9), p=1.0),
    ]
    grain = [
        A.GaussNoise(std_range=(0.02, 0.05), per_channel=False, p=1.0),
        A.ImageCompression(quality_range=(50, 95), p=1.0),
    ]
    return [
        A.OneOf(light, p=0.7),
        A.OneOf(colour, p=0.4),
        A.OneOf(sharpness, p=0.2),
        A.OneOf(grain, p=0.2),
        A.RandomShadow(num_shadows_limit=(1, 2), shadow_dimension=4, p=0.1),
    ]


GEOMETRY: dict[str, Callable[[int], Transforms]] = {
    "none": lambda size: [],
    "paper": _paper_geometry,
    "strong": _strong_geometry,
}
# The paper names no change of light or colour.
PHOTOMETRY: dict[str, Callable[[], Transforms]] = {"none": list, "paper": list, "strong": _strong_photometry}

"""Samples behind pipelines of Albumentations: one geometry for images and mask, light of its own for each image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from base.grades import UNCLASSIFIED
from model import settings
from tests.xbd.test_crops import as_arrays, coordinate_scene, write_scenes
from xbd.augmentation import __main__ as command
from xbd.augmentation.pipelines import Augmentation, AugmentationError
from xbd.augmentation.presets import GEOMETRY, PHOTOMETRY
from xbd.augmentation.rotated_crop import RotatedCrop, rotation
from xbd.dataset import Sample, SceneCrops

PAPER = {"geometry": "paper", "photometry": "none"}
STRONG = {"geometry": "strong", "photometry": "strong"}
NONE = {"geometry": "none", "photometry": "none"}
CROP = 48
SIDE = 200  # of the scene that shows its coordinates


def pipeline(*transforms: Any) -> dict[str, Any]:
    """These in the form of the library."""
    return dict(A.to_dict(A.Compose(list(transforms))))


def crops(root: Path, augmentation: Mapping[str, Any] | None, **settings: Any) -> SceneCrops:
    return SceneCrops(root, crop_size=CROP, augmentation=augmentation, **{"scale": (1.0, 1.0), **settings})


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set with one scene, of which each pixel tells where it is."""
    return write_scenes(tmp_path_factory.mktemp("coordinates"), {"scene": coordinate_scene(SIDE, SIDE)})


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set with one scene, the same on both days, of even texture and one grade."""
    scene = np.random.default_rng(0).integers(90, 150, (SIDE, SIDE, 7)).astype(np.uint8)
    scene[..., 3:6], scene[..., 6] = scene[..., :3], 1
    return write_scenes(tmp_path_factory.mktemp("gray"), {"scene": scene})


@given(st.integers(0, 5000))
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.6, 1.6)])
def test_images_and_mask_turn_together(coordinates: Path, scale: tuple[float, float], index: int) -> None:
    pre, post, mask = as_arrays(crops(coordinates, PAPER, scale=scale)[index])
    np.testing.assert_array_equal(pre[..., :2], post[..., :2])
    columns, rows = pre[..., 0].astype(int) - 1, pre[..., 1].astype(int) - 1
    scene = (mask != UNCLASSIFIED) & (pre[..., 2] == 50)  # and not mixed with what lies beyond it
    inner = scene & (np.abs(columns % 16 - 7.5) < 6) & (np.abs(rows % 16 - 7.5) < 6)
    assert inner.sum() > 200
    expected = 1 + (columns // 16) % 2 + 2 * ((rows // 16) % 2)
    np.testing.assert_array_equal(mask[inner], expected[inner])


@pytest.mark.parametrize("degrees", [0, 30, 90, 137.5, -60])
@pytest.mark.parametrize("side", [68, 100])
def test_a_turn_shows_what_the_angle_says_at_the_zoom_of_the_window(degrees: float, side: int) -> None:
    """Against the coordinates themselves: the offset from the centre, turned and scaled."""
    image = np.stack([*np.meshgrid(np.arange(side), np.arange(side)), np.zeros((side, side))], -1).astype(np.uint8)
    turned = RotatedCrop(size=CROP).apply(image, rotation(side, CROP, degrees)).astype(float)
    offset = np.arange(CROP) - (CROP - 1) / 2
    length, angle = side / 2**0.5 / CROP, np.radians(degrees)
    right, down = np.meshgrid(offset * length, offset * length)
    column = (side - 1) / 2 + np.cos(angle) * right - np.sin(angle) * down
    row = (side - 1) / 2 + np.sin(angle) * right + np.cos(angle) * down
    assert np.abs(turned[..., 0] - column).max() < 0.6  # of rounding to whole numbers, and of OpenCV's 1/32 pixel
    assert np.abs(turned[..., 1] - row).max() < 0.6


def test_a_mirror_image_is_that_of_the_same_turn() -> None:
    """Of smooth images, where OpenCV's 1/32 pixel makes no more than a level of difference."""
    side = 100
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    image = np.stack([columns, rows, columns + rows], -1).astype(np.uint8)
    mask = (rows // 20).astype(np.uint8)
    made = []
    for mirror in (0.0, 1.0):
        pipeline = A.Compose([RotatedCrop(size=CROP, mirror=mirror)])
        pipeline.set_random_seed(7)
        made.append(pipeline(image=image, mask=mask))
    plain, mirrored = made
    difference = mirrored["image"].astype(int) - plain["image"][:, ::-1]
    assert np.abs(difference).max() <= 1
    assert (mirrored["mask"] != plain["mask"][:, ::-1]).mean() < 0.02
    assert (mirrored["mask"] != plain["mask"]).mean() > 0.1


def test_a_fourth_channel_is_dropped_and_changes_no_other() -> None:
    image = np.random.default_rng(0).integers(256, size=(68, 68, 4), dtype=np.uint8)
    matrix = rotation(68, CROP, 40)
    transform = RotatedCrop(size=CROP)
    np.testing.assert_array_equal(transform.apply(image, matrix), transform.apply(image[..., :3].copy(), matrix))


def test_all_angles_occur_and_both_hands(coordinates: Path) -> None:
    angles, hands = [], []
    for index in range(160):
        pre, _, mask = as_arrays(crops(coordinates, PAPER)[index])
        if (mask == UNCLASSIFIED).any():
            continue
        image = pre.astype(int)
        right, down = image[4:-4, -5, :2] - image[4:-4, 4, :2], image[-5, 4:-4, :2] - image[4, 4:-4, :2]
        (x, y), (u, v) = right.mean(0), down.mean(0)
        angles.append(np.degrees(np.arctan2(y, x)) % 360)
        hands.append(x * v - y * u > 0)
    assert len(angles) > 60
    assert np.histogram(angles, 4, (0, 360))[0].min() > len(angles) / 10
    assert len(angles) / 4 < sum(hands) < 3 * len(angles) / 4
    assert len({round(angle) for angle in angles}) > 40  # not the quarter turns alone


def test_a_turned_crop_inside_the_scene_shows_nothing_but_the_scene(tmp_path: Path) -> None:
    """Also its corners: the window is wide enough for them. Beyond the scene images are 0, and the mask is ignored."""
    write_scenes(tmp_path, {"scene": np.full((SIDE, SIDE, 7), 3, np.uint8)})
    whole, cut = 0, 0
    for index in range(100):
        pre, post, mask = as_arrays(crops(tmp_path, PAPER)[index])
        seen = mask != UNCLASSIFIED
        whole, cut = whole + bool(seen.all()), cut + (not seen.all())
        assert set(np.unique(mask)) <= {3, UNCLASSIFIED}
        # Bilinear pixels at the scene's edge are between the two.
        assert (pre[seen] > 0).all() and (post[~seen] < 3).all()
    assert whole > 30
    assert cut > 3


def test_no_turn_loses_the_damage_of_a_scene_that_is_smaller_than_the_window(tmp_path: Path) -> None:
    """Here by so much that its corners stay in sight; the window's own may hold nothing."""
    scene = np.full((24, 30, 7), 50, np.uint8)
    scene[..., 6] = 0
    scene[:4, :4, 6] = 4
    root = write_scenes(tmp_path, {"scene": scene})
    turned = crops(root, PAPER, damage_focus=1.0)
    assert all((turned[index].mask == 4).any() for index in range(40))


def test_flips_are_drawn_independently_of_each_other(coordinates: Path) -> None:
    geometry = pipeline(A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5))
    found = []
    for index in range(200):
        pre = as_arrays(crops(coordinates, {"geometry": geometry, "photometry": "none"})[index])[0].astype(int)
        found.append(2 * (pre[0, 0, 0] > pre[0, -1, 0]) + (pre[0, 0, 1] > pre[-1, 0, 1]))
    assert np.bincount(found, minlength=4).min() > 25  # of 50 expected, four standard deviations


def test_the_light_of_pre_and_post_differs_and_the_mask_has_none(gray: Path) -> None:
    differ = 0
    for index in range(30):
        pre, post, mask = as_arrays(crops(gray, {"geometry": "none", "photometry": "strong"})[index])
        differ += not np.array_equal(pre, post)
        assert (mask == 1).all()
    assert differ > 25
    pre, post, _ = as_arrays(crops(gray, NONE)[0])
    np.testing.assert_array_equal(pre, post)


def test_holes_are_in_the_same_place_of_both_images_and_no_loss_counts_them(gray: Path) -> None:
    hole = A.CoarseDropout(num_holes_range=(2, 4), fill=0, fill_mask=UNCLASSIFIED, p=1.0)
    for index in range(10):
        sample = crops(gray, {"geometry": pipeline(hole), "photometry": "none"})[index]
        pre, post, mask = as_arrays(sample)
        holes = (pre == 0).all(-1)
        assert 0 < holes.mean() < 0.5
        np.testing.assert_array_equal(holes, (post == 0).all(-1))
        np.testing.assert_array_equal(holes, mask == UNCLASSIFIED)


def equal(one: Sample, other: Sample) -> bool:
    return all(torch.equal(*parts) for parts in zip(one, other, strict=True))


@pytest.mark.slow
def test_a_sample_depends_on_seed_and_index_alone(gray: Path) -> None:
    """Neither on what came before, nor on the process that makes it, nor on the random state of the libraries."""
    given = crops(gray, STRONG, crops_per_scene=24, seed=3, misalignment=2)
    forwards = [given[index] for index in range(24)]
    torch.manual_seed(7)
    np.random.seed(7)
    again = crops(gray, STRONG, crops_per_scene=24, seed=3, misalignment=2)
    for index in reversed(range(24)):
        assert equal(again[index], forwards[index])
    loader = DataLoader(again, batch_size=8, num_workers=2)
    for number, batch in enumerate(loader):
        expected = [torch.stack(parts) for parts in zip(*forwards[8 * number : 8 * number + 8], strict=True)]
        assert equal(Sample(*batch), Sample(*expected))
    assert not equal(crops(gray, STRONG, seed=4)[0], crops(gray, STRONG, seed=3)[0])


def test_parameters_and_the_command_know_the_presets_that_there_are() -> None:
    """By lists of their own: the import of the presets takes seconds."""
    assert set(settings.PRESETS) == set(command.PRESETS) == set(GEOMETRY) == set(PHOTOMETRY)


def test_a_preset_in_the_form_of_the_library_gives_the_same_samples(coordinates: Path) -> None:
    form = pipeline(*GEOMETRY["paper"](CROP))
    for index in range(5):
        assert equal(
            crops(coordinates, {"geometry": form, "photometry": "none"}, scale=(0.8, 1.2))[index],
            crops(coordinates, PAPER, scale=(0.8, 1.2))[index],
        )


def test_the_librarys_own_rotation_shows_no_corners_either(tmp_path: Path) -> None:
    write_scenes(tmp_path, {"scene": np.full((400, 400, 7), 3, np.uint8)})
    turn = A.Rotate(limit=(-180, 180), fill_mask=UNCLASSIFIED, p=1.0)
    given = crops(tmp_path, {"geometry": pipeline(turn), "photometry": "none"}, scale=(0.9, 1.1))
    samples = [given[index] for index in range(20)]
    assert all(sample.mask.shape == (CROP, CROP) for sample in samples)
    assert sum(bool((sample.mask == 3).all()) for sample in samples) > 10


@pytest.mark.parametrize(
    ("geometry", "photometry", "named"),
    [
        ({"transform": {"__class_fullname__": "Nonsense", "p": 1.0}}, "none", "cannot read it (KeyError: 'Nonsense')"),
        ({"transforms": []}, "none", "cannot read it"),
        (pipeline(A.RandomGamma()), "none", "found RandomGamma, which changes light"),
        (pipeline(A.Rotate()), "none", "Rotate fills the mask with 0"),
        ("none", pipeline(A.HorizontalFlip()), "found HorizontalFlip, which moves or hides pixels"),
        ("none", pipeline(A.OneOf([A.RandomGamma(), A.CoarseDropout()])), "found CoarseDropout"),
        (dict(A.to_dict(A.HorizontalFlip())), "none", "found HorizontalFlip; expected a Compose"),
        (pipeline(A.Affine(fill_mask=255, mask_interpolation=2)), "none", "Affine mixes grades of the mask"),
        (pipeline(RotatedCrop(size=64)), "none", "RotatedCrop gives 64 pixels; expected train.crop_size, 48"),
        (pipeline(A.OneOf([RotatedCrop(size=CROP)])), "none", "no group such as OneOf"),
        ("none", {"transform": {"__class_fullname__": "RandomGamma", "gamma_limit": "x", "p": 1.0}}, "cannot read it"),
    ],
)
def test_what_would_spoil_the_samples_is_refused(geometry: Any, photometry: Any, named: str) -> None:
    with pytest.raises(AugmentationError) as caught:
        Augmentation(geometry, photometry, CROP)
    message = str(caught.value)
    assert message.startswith("train.augmentation.")
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("geometry", "photometry", "named"),
    [
        ("none", pipeline(A.ToFloat(p=0.01)), "found pre of [48, 48, 3] and float32"),
        ("none", pipeline(A.OneOf([A.Blur(p=1), A.ToGray(num_output_channels=1, p=1)])), "found pre of [48, 48] and"),
        (pipeline(A.BBoxSafeRandomCrop(p=0.01)), "none", "a pipeline fails on a sample (KeyError: 'bboxes')"),
    ],
)
def test_a_pipeline_whose_results_are_no_samples_is_refused_before_training(
    geometry: Any, photometry: Any, named: str
) -> None:
    """Also one that would spoil a sample in a hundred only."""
    with pytest.raises(AugmentationError) as caught:
        Augmentation(geometry, photometry, CROP)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_probability_of_a_whole_pipeline_counts(coordinates: Path) -> None:
    geometry = dict(A.to_dict(A.Compose([A.HorizontalFlip(p=1.0)], p=0.25)))
    given = crops(coordinates, {"geometry": geometry, "photometry": "none"})
    images = [as_arrays(given[index])[0].astype(int) for index in range(80)]
    assert 8 < sum(image[0, 0, 0] > image[0, -1, 0] for image in images) < 35

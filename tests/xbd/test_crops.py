"""What random crops show: one geometry for images and mask, nothing beyond the scene, damage as often as asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from xbd.dataset import BAND, Sample, SceneCrops
from xbd.scenes import SceneError, SceneRecord, save_scene, write_index

Array = npt.NDArray[np.uint8]
COORDINATES = 96  # pixels of the scene that shows its coordinates
CROP = 32


def write_scenes(root: Path, scenes: Mapping[str, Array], damaged: Mapping[str, int] | None = None) -> Path:
    """A prepared data set of these scenes, all in train. damaged: the index's counts, else 1 where the mask has any."""
    records = []
    for name, scene in scenes.items():
        save_scene(root, name, scene)
        count = int(shows_damage(scene[..., 6])) if damaged is None else damaged[name]
        height, width, _ = scene.shape
        records.append(
            SceneRecord(
                name, "train", "train", "d", "t", height, width, 0, 0, count, 0, 0, 0, 1.0, 0.0, "a", "b", "c", "d"
            )
        )
    write_index(root, records)
    return root


def coordinate_scene(height: int = COORDINATES, width: int = COORDINATES) -> Array:
    """Red is the column + 1, green the row + 1 (0 is left for what lies outside), blue tells pre from post; the mask
    is 1-4 by quarters of 16 x 16 pixels.
    """
    rows, columns = np.mgrid[:height, :width]
    image = [columns + 1, rows + 1]
    mask = 1 + (columns // 16) % 2 + 2 * ((rows // 16) % 2)
    return np.stack([*image, np.full_like(rows, 50), *image, np.full_like(rows, 200), mask], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set with one scene, `coordinate_scene`."""
    return write_scenes(tmp_path_factory.mktemp("coordinates"), {"scene": coordinate_scene()})


def as_arrays(sample: Sample) -> tuple[Array, Array, Array]:
    """pre and post [H, W, 3], mask [H, W]."""
    return sample.pre.permute(1, 2, 0).numpy(), sample.post.permute(1, 2, 0).numpy(), sample.mask.numpy()


def corner(pre: Array) -> tuple[int, int]:
    """First row and column that an image of coordinates shows."""
    return int(pre[..., 1].min()) - 1, int(pre[..., 0].min()) - 1


def symmetries(array: Array) -> list[Array]:
    """The eight symmetries of the square, by turns and a transposition."""
    turned = [np.rot90(array, turns) for turns in range(4)]
    return turned + [np.swapaxes(part, 0, 1) for part in turned]


def shows_damage(mask: Any) -> bool:
    return bool(np.isin(mask, (2, 3, 4)).any())


def test_an_epoch_visits_every_scene_equally_often(tmp_path: Path) -> None:
    write_scenes(tmp_path, {f"s{number}": np.full((40, 40, 7), number + 1, np.uint8) for number in range(3)})
    crops = SceneCrops(tmp_path, crop_size=CROP, crops_per_scene=4, scale=(1, 1))
    for epoch in range(2):
        seen = [int(crops[epoch * 12 + i].pre[0, 0, 0]) for i in range(12)]
        assert sorted(seen) == [1] * 4 + [2] * 4 + [3] * 4


def test_the_windows_of_a_seed_stay_what_they_were(coordinates: Path) -> None:
    """Row, column and side of windows that were drawn before crops could be focused or misaligned."""
    crops = SceneCrops(coordinates, crop_size=32, scale=(1, 1), seed=1)
    corners = [corner(as_arrays(crops[index])[0]) for index in range(6)]
    assert corners == [(49, 61), (23, 39), (60, 28), (53, 8), (25, 55), (24, 59)]
    crops = SceneCrops(coordinates, crop_size=48, scale=(0.8, 1.2), seed=3)
    windows = [(*corner(pre), int(pre[..., 0].max())) for pre in (as_arrays(crops[index])[0] for index in range(4))]
    assert windows == [(6, 9, 67), (25, 17, 70), (21, 28, 87), (11, 12, 69)]


def test_without_scaling_a_crop_is_a_window_under_one_of_eight_symmetries_and_all_occur(coordinates: Path) -> None:
    scene = coordinate_scene()
    crops = SceneCrops(coordinates, crop_size=CROP, scale=(1.0, 1.0), seed=1)
    found: list[int] = []
    corners: set[tuple[int, int]] = set()
    for index in range(400):
        pre, post, mask = as_arrays(crops[index])
        top, left = corner(pre)
        windows = symmetries(scene[top : top + CROP, left : left + CROP])
        # The coordinates tell which symmetry it is; post and mask must have followed.
        matching = [i for i, window in enumerate(windows) if np.array_equal(window[..., :3], pre)]
        assert len(matching) == 1
        np.testing.assert_array_equal(post, windows[matching[0]][..., 3:6])
        np.testing.assert_array_equal(mask, windows[matching[0]][..., 6])
        found += matching
        corners.add((top, left))
    assert np.bincount(found, minlength=8).min() > 25  # of 50 expected, four standard deviations
    assert len(corners) > 300
    assert max(max(found) for found in corners) <= COORDINATES - CROP


@given(st.integers(0, 5000))
def test_with_scaling_images_and_mask_keep_one_geometry(coordinates: Path, index: int) -> None:
    crops = SceneCrops(coordinates, crop_size=48, scale=(0.6, 1.6), seed=2)
    pre, post, mask = as_arrays(crops[index])
    np.testing.assert_array_equal(pre[..., :2], post[..., :2])
    columns, rows = pre[..., 0].astype(int) - 1, pre[..., 1].astype(int) - 1
    expected = 1 + (columns // 16) % 2 + 2 * ((rows // 16) % 2)
    inner = (np.abs(columns % 16 - 7.5) < 6.5) & (np.abs(rows % 16 - 7.5) < 6.5)  # one pixel off the borders
    assert inner.sum() > 300
    np.testing.assert_array_equal(mask[inner], expected[inner])


@pytest.mark.parametrize("zoom", [0.6, 0.8, 1.2, 1.4, 3.0])
def test_the_mask_is_sampled_at_the_centres_of_its_pixels(tmp_path: Path, zoom: float) -> None:
    """Where window and scene are one, the centre of output pixel i is (i + 1/2) side / size of the scene."""
    side = round(96 / zoom)
    scene = np.zeros((side, side, 7), np.uint8)
    scene[..., 6] = np.arange(side)
    write_scenes(tmp_path, {"s": scene})
    crops = SceneCrops(tmp_path, crop_size=96, scale=(zoom, zoom))
    expected = np.tile(((np.arange(96) + 0.5) * side / 96).astype(np.uint8), (96, 1))
    for index in range(4):
        assert any(np.array_equal(as_arrays(crops[index])[2], window) for window in symmetries(expected))


def test_the_zoom_stays_in_its_range_and_uses_it(coordinates: Path) -> None:
    crops = SceneCrops(coordinates, crop_size=48, scale=(0.8, 1.2), seed=3)
    sides = []
    for index in range(60):
        pre, _, _ = as_arrays(crops[index])
        sides.append(int(pre[..., 0].max()) - int(pre[..., 0].min()) + 1)
    assert 38 <= min(sides) < 44
    assert 54 < max(sides) <= 60  # 48 / 1.2 = 40 and 48 / 0.8 = 60 pixels, the outermost blurred


@pytest.mark.parametrize("size", [(20, 24), (20, 96), (96, 20)])
def test_beyond_the_scene_images_are_zero_and_the_mask_is_ignored(tmp_path: Path, size: tuple[int, int]) -> None:
    write_scenes(tmp_path, {"small": coordinate_scene(*size)})
    crops = SceneCrops(tmp_path, crop_size=48, scale=(1.0, 1.0), seed=1)
    for index in range(10):
        pre, post, mask = as_arrays(crops[index])
        outside = pre[..., 0] == 0
        assert outside.sum() == 48 * 48 - min(48, size[0]) * min(48, size[1])
        assert not pre[outside].any()
        assert not post[outside].any()
        np.testing.assert_array_equal(mask == 255, outside)


def test_masks_are_never_blends_of_classes(tmp_path: Path) -> None:
    """Between 0 and 4, interpolation would invent 1, 2 and 3."""
    scene = np.zeros((64, 64, 7), np.uint8)
    scene[::3, :, 6] = 4
    write_scenes(tmp_path, {"s": scene})
    crops = SceneCrops(tmp_path, crop_size=40, scale=(0.5, 2.0))
    for index in range(60):
        assert set(np.unique(crops[index].mask)) <= {0, 4, 255}


@pytest.mark.parametrize("size", [(96, 96), (40, 36), (20, 96)])
def test_a_misaligned_post_image_is_shifted_against_pre_and_mask_by_all_steps_up_to_the_limit(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    scene = coordinate_scene(*size)
    write_scenes(tmp_path, {"s": scene})
    # What lies beyond the scene, for windows of up to 2 pixels and shifts of up to 2.
    around = np.pad(scene, ((2, CROP + 2), (2, CROP + 2), (0, 0)))
    around[..., 6] = np.pad(scene[..., 6], ((2, CROP + 2), (2, CROP + 2)), constant_values=255)
    aligned = SceneCrops(tmp_path, crop_size=CROP, scale=(1, 1))
    crops = SceneCrops(tmp_path, crop_size=CROP, scale=(1, 1), misalignment=2)
    shifts: list[tuple[int, int]] = []
    for index in range(300):
        pre, post, mask = as_arrays(crops[index])
        old_pre, _, old_mask = as_arrays(aligned[index])
        np.testing.assert_array_equal(pre, old_pre)
        np.testing.assert_array_equal(mask, old_mask)
        top, left = (int(pre[..., axis][pre[..., axis] > 0].min()) + 1 for axis in (1, 0))  # in `around`
        windows = symmetries(around[top : top + CROP, left : left + CROP, :3])
        symmetry = next(i for i, window in enumerate(windows) if np.array_equal(window, pre))
        matching = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(
                symmetries(around[top + down :, left + right :, 3:6][:CROP, :CROP])[symmetry],
                post,
            )
        ]
        assert len(matching) == 1
        shifts += matching
    assert len(set(shifts)) == 25


def test_a_shift_beyond_the_scene_leaves_post_black_and_the_mask_as_it_is(tmp_path: Path) -> None:
    write_scenes(tmp_path, {"s": coordinate_scene(20, 20)})
    crops = SceneCrops(tmp_path, crop_size=CROP, scale=(1, 1), misalignment=10_000)
    for index in range(20):
        pre, post, mask = as_arrays(crops[index])
        assert not post.any()
        assert (pre[..., 2] == 50).sum() == (mask != 255).sum() == 400


def scenes_with_damage() -> dict[str, Array]:
    """Without any, with one small and one large building, and with what must not count as damage."""
    masks = {name: np.zeros((COORDINATES, COORDINATES), np.uint8) for name in ("none", "small", "large", "graded")}
    masks["none"][10:50, 10:50] = 255
    masks["small"][80:84, 5:9] = 2
    masks["large"][20:60, 30:90] = 3
    masks["graded"][:] = 1
    masks["graded"][70:73, 60:63] = 4
    return {name: np.dstack([np.zeros((*mask.shape, 6), np.uint8), mask]) for name, mask in masks.items()}


@pytest.mark.parametrize("focus", [0.0, 0.3, 0.8, 1.0])
def test_the_share_of_crops_with_damage_is_the_focus_and_of_the_rest_the_uniform_share(
    tmp_path: Path, focus: float
) -> None:
    scenes = scenes_with_damage()
    write_scenes(tmp_path, scenes)
    windows = [sliding_window_view(np.isin(scene[..., 6], (2, 3, 4)), (CROP, CROP)) for scene in scenes.values()]
    uniform = float(np.mean([window.any((2, 3)).mean() for window in windows]))
    assert 0.25 < uniform < 0.35
    expected, count = focus + (1 - focus) * uniform, 1000
    crops = SceneCrops(tmp_path, crop_size=CROP, scale=(1, 1), damage_focus=focus)
    found = sum(shows_damage(crops[index].mask) for index in range(count)) / count
    assert abs(found - expected) <= 4 * (expected * (1 - expected) / count) ** 0.5


def test_a_focus_of_one_shows_damage_in_every_crop_at_any_zoom(prepared: Path) -> None:
    for size in (CROP, 96):
        crops = SceneCrops(prepared, crop_size=size, scale=(0.6, 1.6), damage_focus=1.0)
        assert all(shows_damage(crops[index].mask) for index in range(300))


def test_the_crops_that_are_not_focused_are_those_without_a_focus(prepared: Path) -> None:
    uniform, focused = (SceneCrops(prepared, crop_size=CROP, damage_focus=focus) for focus in (0.0, 0.5))
    same = [all(map(torch.equal, uniform[index], focused[index])) for index in range(300)]
    assert 110 <= sum(same) <= 190  # of 150 expected, 4.6 standard deviations
    assert all(alike or shows_damage(focused[index].mask) for index, alike in enumerate(same))


def test_a_focus_draws_scene_then_band_then_pixel_uniformly(tmp_path: Path) -> None:
    """Two scenes with a damaged pixel each; the second has another two bands, with a hundred damaged pixels and one."""
    masks = np.zeros((2, 5 * BAND, 40), np.uint8)
    masks[0, 7, 3] = 2
    masks[1, 7, 3] = 2
    masks[1, 2 * BAND : 2 * BAND + 10, :10] = 3
    masks[1, 4 * BAND + 63, 39] = 4
    write_scenes(
        tmp_path, {str(i): np.dstack([np.full((*m.shape, 6), i + 1, np.uint8), m]) for i, m in enumerate(masks)}
    )
    crops = SceneCrops(tmp_path, crop_size=CROP, scale=(1, 1), damage_focus=1.0)
    samples = [crops[index] for index in range(1200)]
    drawn = [(int(sample.pre.max()), int(sample.mask.max())) for sample in samples]
    for kind, share in (((1, 2), 1 / 2), ((2, 2), 1 / 6), ((2, 3), 1 / 6), ((2, 4), 1 / 6)):
        assert abs(drawn.count(kind) / 1200 - share) <= 4 * (share * (1 - share) / 1200) ** 0.5
    assert not any((sample.mask == 255).any() for sample in samples)  # windows stay inside the scene


def test_a_focus_draws_the_damaged_pixels_of_a_band_uniformly(tmp_path: Path) -> None:
    scene = np.zeros((BAND, COORDINATES, 7), np.uint8)
    scene[5, 5:8, 6], scene[50, 90, 6] = 2, 4
    write_scenes(tmp_path, {"s": scene})
    crops = SceneCrops(tmp_path, crop_size=8, scale=(1, 1), damage_focus=1.0)
    found = [int(crops[index].mask.max()) for index in range(600)]
    assert abs(found.count(4) / 600 - 1 / 4) <= 4 * (1 / 4 * 3 / 4 / 600) ** 0.5


def test_a_focused_window_holds_its_pixel_at_any_place(tmp_path: Path) -> None:
    scene = np.zeros((COORDINATES, COORDINATES, 7), np.uint8)
    scene[48, 48, 6] = 4
    write_scenes(tmp_path, {"s": scene})
    crops = SceneCrops(tmp_path, crop_size=8, scale=(1, 1), damage_focus=1.0)
    places = {tuple(np.argwhere(crops[index].mask.numpy() == 4)[0]) for index in range(600)}
    assert len(places) == 64


def test_a_scene_whose_damaged_buildings_are_not_in_its_mask_is_passed_over(tmp_path: Path) -> None:
    scenes = scenes_with_damage()
    write_scenes(tmp_path, scenes, {"none": 3, "small": 1, "large": 0, "graded": 0})
    crops = SceneCrops(tmp_path, crop_size=CROP, scale=(1, 1), damage_focus=1.0)
    assert all(set(np.unique(crops[index].mask)) == {0, 2} for index in range(50))


@pytest.mark.parametrize("counted", [0, 3], ids=["by the index", "by the mask"])
def test_a_focus_without_any_damage_is_an_error_that_names_the_parameter(tmp_path: Path, counted: int) -> None:
    write_scenes(tmp_path, {"none": scenes_with_damage()["none"]}, {"none": counted})
    assert SceneCrops(tmp_path, crop_size=CROP)[0].mask.shape == (CROP, CROP)
    with pytest.raises(SceneError, match=r"^train\.damage_focus: found 0\.5, but no train scene of ") as caught:
        crops = SceneCrops(tmp_path, crop_size=CROP, damage_focus=0.5)
        for index in range(50):
            crops[index]
    assert str(tmp_path / "index.csv") in str(caught.value)
    assert "\n" not in str(caught.value)

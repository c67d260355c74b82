"""Crops and scenes of a prepared data set: reproducible, in one geometry, and ignored beyond the scene's edge."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import SIZE, TEST_SCENES, read_csv
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from xbd.dataset import Sample, SceneCrops, Scenes
from xbd.scenes import SceneError, SceneRecord, save_scene, write_index

Array = npt.NDArray[np.uint8]
COORDINATES = 96  # pixels of the scene that shows its coordinates


def record(scene: str, height: int, width: int, split: str = "train") -> SceneRecord:
    return SceneRecord(scene, split, split, "d", "t", height, width, 0, 0, 0, 0, 0, 0, 1.0, 0.0, "a", "b", "c")


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
    root = tmp_path_factory.mktemp("coordinates")
    save_scene(root, "scene", coordinate_scene())
    write_index(root, [record("scene", COORDINATES, COORDINATES)])
    return root


def as_arrays(sample: Sample) -> tuple[Array, Array, Array]:
    """pre and post [H, W, 3], mask [H, W]."""
    return sample.pre.permute(1, 2, 0).numpy(), sample.post.permute(1, 2, 0).numpy(), sample.mask.numpy()


def symmetries(array: Array) -> list[Array]:
    """The eight symmetries of the square, by turns and a transposition."""
    turned = [np.rot90(array, turns) for turns in range(4)]
    return turned + [np.swapaxes(part, 0, 1) for part in turned]


def equal(a: Sample, b: Sample) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_samples_are_uint8_with_channels_first(prepared: Path) -> None:
    sample = SceneCrops(prepared, crop_size=32)[0]
    assert sample.pre.shape == sample.post.shape == (3, 32, 32)
    assert sample.mask.shape == (32, 32)
    assert {part.dtype for part in sample} == {torch.uint8}
    batch = Sample(*next(iter(DataLoader(SceneCrops(prepared, crop_size=32), batch_size=4))))
    assert batch.pre.shape == (4, 3, 32, 32)
    assert batch.mask.shape == (4, 32, 32)


def test_an_item_depends_on_seed_and_index_and_not_on_the_order(prepared: Path) -> None:
    forwards, backwards = (SceneCrops(prepared, crop_size=32, crops_per_scene=2, seed=5) for _ in range(2))
    count = len(forwards)
    assert count == 12
    first = [forwards[i] for i in range(count)]
    second = [backwards[i] for i in reversed(range(count))][::-1]
    again = [forwards[i] for i in range(count)]
    for a, b, c in zip(first, second, again, strict=True):
        assert equal(a, b)
        assert equal(a, c)


@pytest.mark.slow
def test_workers_do_not_change_what_is_drawn(prepared: Path) -> None:
    batches = []
    for workers in (0, 2):
        crops = SceneCrops(prepared, crop_size=32, crops_per_scene=3, seed=5)
        batches.append([Sample(*batch) for batch in DataLoader(crops, batch_size=4, num_workers=workers)])
    assert len(batches[0]) == len(batches[1]) > 1
    assert all(equal(a, b) for a, b in zip(*batches, strict=True))


def test_epochs_seeds_and_crops_of_one_scene_differ(prepared: Path) -> None:
    crops = SceneCrops(prepared, crop_size=32, crops_per_scene=2, seed=5)
    other = SceneCrops(prepared, crop_size=32, crops_per_scene=2, seed=6)
    epoch = len(crops)
    for i in range(epoch):
        assert not equal(crops[i], crops[i + epoch])
        assert not equal(crops[i], other[i])
    assert not equal(crops[0], crops[1])


def test_an_epoch_visits_every_scene_equally_often(tmp_path: Path) -> None:
    for number in range(3):
        save_scene(tmp_path, f"s{number}", np.full((40, 40, 7), number + 1, np.uint8))
    write_index(tmp_path, [record(f"s{number}", 40, 40) for number in range(3)])
    crops = SceneCrops(tmp_path, crop_size=32, crops_per_scene=4, scale=(1, 1))
    for epoch in range(2):
        seen = [int(crops[epoch * 12 + i].pre[0, 0, 0]) for i in range(12)]
        assert sorted(seen) == [1] * 4 + [2] * 4 + [3] * 4


def test_without_scaling_a_crop_is_a_window_under_one_of_eight_symmetries_and_all_occur(coordinates: Path) -> None:
    scene = coordinate_scene()
    crops = SceneCrops(coordinates, crop_size=32, scale=(1.0, 1.0), seed=1)
    found: set[int] = set()
    corners: set[tuple[int, int]] = set()
    for index in range(150):
        pre, post, mask = as_arrays(crops[index])
        left, top = int(pre[..., 0].min()) - 1, int(pre[..., 1].min()) - 1
        windows = symmetries(scene[top : top + 32, left : left + 32])
        # The coordinates tell which symmetry it is; post and mask must have followed.
        matching = [i for i, window in enumerate(windows) if np.array_equal(window[..., :3], pre)]
        assert len(matching) == 1
        np.testing.assert_array_equal(post, windows[matching[0]][..., 3:6])
        np.testing.assert_array_equal(mask, windows[matching[0]][..., 6])
        found.add(matching[0])
        corners.add((top, left))
    assert found == set(range(8))
    assert len(corners) > 100
    assert max(max(corner) for corner in corners) <= COORDINATES - 32


@given(st.integers(0, 5000))
def test_with_scaling_images_and_mask_keep_one_geometry(coordinates: Path, index: int) -> None:
    crops = SceneCrops(coordinates, crop_size=48, scale=(0.6, 1.6), seed=2)
    pre, post, mask = as_arrays(crops[index])
    np.testing.assert_array_equal(pre[..., :2], post[..., :2])
    columns, rows = pre[..., 0].astype(int) - 1, pre[..., 1].astype(int) - 1
    expected = 1 + (columns // 16) % 2 + 2 * ((rows // 16) % 2)
    inner = (np.abs(columns % 16 - 7.5) < 5.5) & (np.abs(rows % 16 - 7.5) < 5.5)  # two pixels off the borders
    assert inner.sum() > 300
    np.testing.assert_array_equal(mask[inner], expected[inner])


def test_the_zoom_stays_in_its_range_and_uses_it(coordinates: Path) -> None:
    crops = SceneCrops(coordinates, crop_size=48, scale=(0.8, 1.2), seed=3)
    sides = []
    for index in range(60):
        pre, _, _ = as_arrays(crops[index])
        sides.append(int(pre[..., 0].max()) - int(pre[..., 0].min()) + 1)
    assert 38 <= min(sides) < 44
    assert 54 < max(sides) <= 60  # 48 / 1.2 = 40 and 48 / 0.8 = 60 pixels, the outermost blurred


def test_without_augmentation_crops_are_upright_windows(coordinates: Path) -> None:
    crops = SceneCrops(coordinates, crop_size=32, augment=False, seed=4)
    scene = coordinate_scene()
    for index in range(20):
        pre, post, mask = as_arrays(crops[index])
        left, top = int(pre[0, 0, 0]) - 1, int(pre[0, 0, 1]) - 1
        np.testing.assert_array_equal(np.dstack([pre, post, mask]), scene[top : top + 32, left : left + 32])


@pytest.mark.parametrize("size", [(20, 24), (20, 96), (96, 20)])
def test_beyond_the_scene_images_are_zero_and_the_mask_is_ignored(tmp_path: Path, size: tuple[int, int]) -> None:
    save_scene(tmp_path, "small", coordinate_scene(*size))
    write_index(tmp_path, [record("small", *size)])
    crops = SceneCrops(tmp_path, crop_size=48, scale=(1.0, 1.0), seed=1)
    for index in range(10):
        pre, post, mask = as_arrays(crops[index])
        outside = pre[..., 0] == 0
        assert outside.sum() == 48 * 48 - min(48, size[0]) * min(48, size[1])
        assert not pre[outside].any()
        assert not post[outside].any()
        np.testing.assert_array_equal(mask == 255, outside)


@given(st.integers(0, 10_000))
def test_masks_hold_only_classes_of_the_scene_after_scaling(prepared: Path, index: int) -> None:
    crops = SceneCrops(prepared, crop_size=40, scale=(0.5, 2.0), seed=9)
    assert set(np.unique(crops[index].mask)) <= {0, 1, 2, 3, 4, 255}


def test_masks_are_never_blends_of_classes(tmp_path: Path) -> None:
    """Between 0 and 4, interpolation would invent 1, 2 and 3."""
    scene = np.zeros((64, 64, 7), np.uint8)
    scene[::3, :, 6] = 4
    save_scene(tmp_path, "s", scene)
    write_index(tmp_path, [record("s", 64, 64)])
    crops = SceneCrops(tmp_path, crop_size=40, scale=(0.7, 1.5))
    for index in range(30):
        assert set(np.unique(crops[index].mask)) <= {0, 4, 255}


def test_whole_scenes_come_in_the_order_of_the_index(prepared: Path) -> None:
    scenes = Scenes(prepared, ["test"])
    names = [line["scene"] for line in read_csv(prepared / "index.csv") if line["split"] == "test"]
    assert [entry.scene for entry in scenes.records] == names == sorted(TEST_SCENES)
    assert len(scenes) == 3
    for i, name in enumerate(names):
        stored = np.load(prepared / "scenes" / f"{name}.npy")
        np.testing.assert_array_equal(np.dstack(as_arrays(scenes[i])), stored)


def test_splits_are_apart(prepared: Path) -> None:
    chosen = [{entry.scene for entry in Scenes(prepared, [split]).records} for split in ("train", "validation", "test")]
    assert [len(part) for part in chosen] == [6, 2, 3]
    assert len(set.union(*chosen)) == 11
    assert {entry.scene for entry in SceneCrops(prepared).records} == chosen[0]


def first_scene(root: Path) -> Path:
    return sorted((root / "scenes").iterdir())[0]


ARRAYS: dict[str, Any] = {
    "missing": lambda path: path.unlink(),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "header cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "no length": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage" * 100),
    "wrong type": lambda path: np.save(path, np.zeros((SIZE, SIZE, 7), np.float32)),
    "wrong shape": lambda path: np.save(path, np.zeros((SIZE, SIZE - 1, 7), np.uint8)),
    "pickled": lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
}


@pytest.mark.parametrize("fault", ARRAYS.values(), ids=ARRAYS)
def test_a_damaged_array_is_an_error_that_names_it(prepared: Path, tmp_path: Path, fault: Any) -> None:
    data = shutil.copytree(prepared, tmp_path / "data")
    path = first_scene(data)
    fault(path)
    scenes = Scenes(data, ["train", "validation", "test"])
    number = [entry.scene for entry in scenes.records].index(path.stem)
    with pytest.raises(SceneError) as caught:
        scenes[number]
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (None, "no prepared data set"),
        ("", "it has no scene at all"),
        ("scene,split\na,train\n", "a line that does not fit"),
    ],
    ids=["missing", "empty", "other columns"],
)
def test_a_data_set_without_a_usable_index_is_an_error_that_names_it(
    tmp_path: Path, content: str | None, finding: str
) -> None:
    if content is not None:
        (tmp_path / "index.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SceneError, match=finding) as caught:
        SceneCrops(tmp_path)
    assert str(tmp_path / "index.csv") in str(caught.value)


def test_an_index_line_that_broke_off_is_an_error(prepared: Path, tmp_path: Path) -> None:
    content = (prepared / "index.csv").read_text(encoding="utf-8")
    (tmp_path / "index.csv").write_text(content[:-80], encoding="utf-8")
    with pytest.raises(SceneError, match="a line that does not fit"):
        SceneCrops(tmp_path)


def test_a_split_without_scenes_is_an_error_that_names_what_there_is(prepared: Path) -> None:
    with pytest.raises(SceneError, match="no scene in hold; it has test, train, validation"):
        SceneCrops(prepared, "hold")

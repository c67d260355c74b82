"""What a prepared data set hands out: crops that can be drawn again, whole scenes, and errors where it is damaged."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.comparing import read_csv
from tests.scenes import SIZE, TEST_SCENES
from xbd.dataset import Sample, SceneCrops, Scenes
from xbd.scenes import SceneError


def equal(a: Sample, b: Sample) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_samples_are_uint8_with_channels_first(prepared: Path) -> None:
    sample = SceneCrops(prepared, crop_size=32)[0]
    assert sample.pre.shape == sample.post.shape == (3, 32, 32)
    assert sample.mask.shape == (32, 32)
    assert {part.dtype for part in sample} == {torch.uint8}
    assert all(part.is_contiguous() for part in sample)
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
def test_neither_workers_nor_a_resume_in_mid_epoch_change_what_is_drawn(prepared: Path) -> None:
    """The third epoch in random order, and what is left of it after two batches."""

    def load(start: int, workers: int) -> list[Sample]:
        crops = SceneCrops(prepared, crop_size=32, crops_per_scene=3, seed=5, damage_focus=0.5, misalignment=3)
        order = np.random.default_rng(0).permutation(len(crops)) + 2 * len(crops)
        loader = DataLoader(crops, batch_size=4, sampler=order[start:].tolist(), num_workers=workers)
        return [Sample(*batch) for batch in loader]

    whole = load(0, 0)
    assert len(whole) == 5
    for start, workers in ((0, 2), (8, 0), (8, 2)):
        found = load(start, workers)
        assert len(found) == 5 - start // 4
        assert all(equal(a, b) for a, b in zip(whole[start // 4 :], found, strict=True))


def test_epochs_seeds_and_crops_of_one_scene_differ(prepared: Path) -> None:
    crops = SceneCrops(prepared, crop_size=32, crops_per_scene=2, seed=5)
    other = SceneCrops(prepared, crop_size=32, crops_per_scene=2, seed=6)
    epoch = len(crops)
    for i in range(epoch):
        assert not equal(crops[i], crops[i + epoch])
        assert not equal(crops[i], other[i])
    assert not equal(crops[0], crops[1])


def test_whole_scenes_come_in_the_order_of_the_index(prepared: Path) -> None:
    scenes = Scenes(prepared, ["test"])
    names = [line["scene"] for line in read_csv(prepared / "index.csv") if line["split"] == "test"]
    assert [entry.scene for entry in scenes.records] == names == sorted(TEST_SCENES)
    assert len(scenes) == 3
    for i, name in enumerate(names):
        stored = np.load(prepared / "scenes" / f"{name}.npy")
        pre, post, mask = scenes[i]
        np.testing.assert_array_equal(np.concatenate([pre, post, mask[None]]), stored.transpose(2, 0, 1))


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
    "damaged header": lambda path: path.write_bytes(path.read_bytes().replace(b"(64", b'"64', 1)),
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

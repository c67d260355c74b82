"""Prepare run again: the arrays of scenes that did not change are kept, damaged ones and those of other code not."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.prepare import prepare
from tests.comparing import tree
from tests.components.prepared_arrays import array, changed, files
from tests.scenes import TEST_SCENES, TRAIN_SCENES, Rectangle, feature, write_label, write_scene
from tests.tiny import prepare_params
from xbd.scenes import SceneError, read_index

ALL = prepare_params()
SCENES = sorted(TRAIN_SCENES + TEST_SCENES)
ONE = TRAIN_SCENES[1]


@pytest.fixture
def out(data: Path, tmp_path: Path) -> Path:
    """The prepared form of `data`."""
    prepare(data, tmp_path / "out", ALL)
    return tmp_path / "out"


def label(raw: Path, scene: str = ONE) -> Path:
    return raw / "train" / "labels" / f"{scene}_post_disaster.json"


def test_arrays_of_unchanged_scenes_are_kept(data: Path, prepared: Path, out: Path) -> None:
    before = files(out)
    prepare(data, out, ALL)
    assert changed(before, files(out)) == set()
    assert tree(out) == tree(prepared)


def test_other_splits_need_no_new_arrays(data: Path, out: Path) -> None:
    before = files(out)
    prepare(data, out, prepare_params(validation_share=0, holdout_disasters=["tiny-fire"], workers=2))
    assert changed(before, files(out)) == set()
    assert {record.split for record in read_index(out)} == {"train", "out_of_event", "test"}


def test_a_changed_label_makes_this_scene_anew_and_no_other(data: Path, out: Path, tmp_path: Path) -> None:
    before = files(out)
    write_label(label(data), [feature(Rectangle("destroyed", 2, 2, 9, 9).wkt, "destroyed")])
    prepare(data, out, ALL)
    assert changed(before, files(out)) == {ONE}
    mask = np.load(array(out, ONE))[..., 6]
    assert np.count_nonzero(mask) == np.count_nonzero(mask[2:10, 2:10] == 4) == 64
    prepare(data, tmp_path / "fresh", ALL)
    assert tree(out) == tree(tmp_path / "fresh")


def test_scenes_that_come_go_or_move_leave_the_others_alone(data: Path, out: Path, tmp_path: Path) -> None:
    before = files(out)
    write_scene(data, "train", "tiny-flood_00000077", [])
    for path in sorted((data / "train").rglob(f"{ONE}_*")):
        path.unlink()
    for path in sorted((data / "train").rglob(f"{TRAIN_SCENES[2]}_*")):
        moved = data / "tier3" / path.relative_to(data / "train")
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    prepare(data, out, ALL)
    assert changed(before, files(out)) == {ONE, "tiny-flood_00000077"}
    assert [record.scene for record in read_index(out) if record.source == "tier3"] == [TRAIN_SCENES[2]]
    prepare(data, tmp_path / "fresh", ALL)
    assert tree(out) == tree(tmp_path / "fresh")


def test_an_excluded_scene_loses_its_array(data: Path, out: Path) -> None:
    before = files(out)
    prepare(data, out, prepare_params(exclude=[ONE]))
    assert changed(before, files(out)) == {ONE}
    assert ONE not in {record.scene for record in read_index(out)}


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/no/such/file")


# NumPy reads an array of another format version all the same, and stumbles over a header that is not closed.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped bit of the data": lambda path: flip(path, -100),
    "flipped bit of the version": lambda path: flip(path, 6),
    "flipped bit of the header": lambda path: flip(path, 10),
    "unclosed header": lambda path: path.write_bytes(path.read_bytes().replace(b"}", b" ", 1)),
    "truncated": lambda path: os.truncate(path, 5000),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": lambda path: path.unlink(),
    "link to nothing": link_to_nothing,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_array_is_made_anew(data: Path, prepared: Path, out: Path, damage: Callable[[Path], object]) -> None:
    before = files(out)
    damage(array(out, ONE))
    prepare(data, out, ALL)
    assert changed(before, files(out)) == {ONE}
    assert tree(out) == tree(prepared)


@pytest.mark.parametrize("version", [b"0" * 64, b"", b"\xff\xfe", None], ids=["other", "empty", "no text", "missing"])
def test_arrays_of_other_code_are_all_made_anew(data: Path, prepared: Path, out: Path, version: bytes | None) -> None:
    """`preparation_version` changes with the code that decodes and draws, and with its libraries."""
    before = files(out)
    (out / "version.txt").unlink()
    if version is not None:
        (out / "version.txt").write_bytes(version)
    prepare(data, out, ALL)
    assert changed(before, files(out)) == set(SCENES)
    assert tree(out) == tree(prepared)


@pytest.mark.parametrize("index", [b"", b"\xff", b"scene,split\na,train\n"], ids=["empty", "no text", "other columns"])
def test_an_unreadable_index_is_made_anew(data: Path, prepared: Path, out: Path, index: bytes) -> None:
    (out / "index.csv").write_bytes(index)
    prepare(data, out, ALL)
    assert tree(out) == tree(prepared)


def test_a_link_into_a_cache_is_kept_by_its_file(data: Path, prepared: Path, out: Path, tmp_path: Path) -> None:
    """DVC may replace an array by a link into its cache; the cache's file is used and not changed."""
    cached = tmp_path / "cached"
    array(out, ONE).rename(cached)
    array(out, ONE).symlink_to(cached)
    cached.chmod(0o444)
    prepare(data, out, ALL)
    assert not array(out, ONE).is_symlink()
    assert array(out, ONE).samefile(cached)
    assert tree(out) == tree(prepared)


def test_where_files_cannot_be_linked_they_are_copied(
    data: Path, prepared: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    before = files(out)
    prepare(data, out, ALL)
    assert changed(before, files(out)) == set(SCENES)
    assert tree(out) == tree(prepared)


def test_an_output_that_is_a_link_to_another_disk_stays_one(data: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk" / "prepared")
    for _ in range(2):
        prepare(data, link, ALL)
        assert link.is_symlink()
        assert tree(tmp_path / "disk" / "prepared") == tree(prepared)
        assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["prepared"]


def test_a_failed_run_leaves_the_earlier_output_as_it_was_and_its_work_to_the_next(
    data: Path, out: Path, tmp_path: Path
) -> None:
    before, sound = tree(out), label(data).read_bytes()
    write_label(label(data, TRAIN_SCENES[2]), [])
    label(data).unlink()
    with pytest.raises(SceneError, match=ONE):
        prepare(data, out, ALL)
    assert tree(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "out", "raw"]
    waiting = files(tmp_path / ".out.partial")
    assert set(waiting) == set(SCENES) - {ONE}
    label(data).write_bytes(sound)
    prepare(data, out, ALL)
    assert changed(waiting, files(out)) == {ONE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]

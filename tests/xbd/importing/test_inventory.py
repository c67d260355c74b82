"""The table about a raw data folder: counted by hand, and what is missing by name."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import GRADE_NAMES, Rectangle, feature, write_label, write_scene
from xbd.importing import inventory
from xbd.importing.inventory import describe_inventory, take_inventory
from xbd.scenes import SOURCES

FLOOD = "tiny-flood_00000001"


@pytest.fixture
def folder(raw: Path, tmp_path: Path) -> Path:
    """A copy of the tiny raw data set, to take things away from."""
    return shutil.copytree(raw, tmp_path / "xbd")


def test_every_split_is_counted_with_the_buildings_of_each_grade(raw: Path) -> None:
    train, test = take_inventory(raw)
    assert (train.split, train.pairs, test.split, test.pairs) == ("train", 8, "test", 3)
    assert train.buildings == dict.fromkeys(GRADE_NAMES, 8)
    assert test.buildings == dict.fromkeys(GRADE_NAMES, 3)
    assert train.disasters == test.disasters == ["tiny-fire", "tiny-flood"]
    assert train.missing == test.missing == {}
    assert train.unreadable == test.unreadable == []


def test_grades_are_not_mixed_up(tmp_path: Path) -> None:
    buildings = [
        Rectangle(grade, 10 * number, 10, 10 * number + 5, 20)
        for number, grade in enumerate(grade for index, grade in enumerate(GRADE_NAMES) for _ in range(index))
    ]
    write_scene(tmp_path, "hold", "tiny-quake_00000001", buildings, size=(128, 128))
    write_scene(tmp_path, "hold", "tiny-quake_00000002", [])
    (hold,) = take_inventory(tmp_path)
    assert hold.buildings == {
        "no-damage": 0, "minor-damage": 1, "major-damage": 2, "destroyed": 3, "un-classified": 4
    }  # fmt: skip
    assert hold.pairs == 2


def test_what_is_missing_is_named(folder: Path) -> None:
    train = folder / "train"
    (train / "labels" / f"{FLOOD}_pre_disaster.json").unlink()
    (train / "images" / "tiny-flood_00000002_pre_disaster.png").unlink()
    (train / "images" / "tiny-flood_00000003_post_disaster.png").unlink()
    assert take_inventory(folder)[0].missing == {
        "images without a label": [f"{FLOOD}_pre_disaster"],
        "labels without an image": ["tiny-flood_00000002_pre_disaster", "tiny-flood_00000003_post_disaster"],
        "post images without a pre image": ["tiny-flood_00000002_post_disaster"],
        "pre images without a post image": ["tiny-flood_00000003_pre_disaster"],
    }
    assert take_inventory(folder)[0].pairs == 6


def test_labels_that_cannot_be_used_are_reported_and_the_others_counted(folder: Path) -> None:
    labels = folder / "train" / "labels"
    (labels / f"{FLOOD}_post_disaster.json").write_text("{", encoding="utf-8")
    write_label(labels / "tiny-flood_00000002_post_disaster.json", [feature("POINT (1 1)")])
    write_label(labels / "tiny-flood_00000003_post_disaster.json", [feature("POLYGON ((0 0, 1 0, 1 1, 0 0))", None)])
    train = take_inventory(folder)[0]
    assert train.buildings == dict.fromkeys(GRADE_NAMES, 5)
    assert train.pairs == 8
    broken, point, ungraded = train.unreadable
    assert broken.startswith(f"LabelError: {labels / FLOOD}_post_disaster.json: is not JSON")
    assert "tiny-flood_00000002_post_disaster.json: building b-1: geometry is a Point" in point
    assert "tiny-flood_00000003_post_disaster.json: building b-1 has no subtype" in ungraded
    assert all(f"warning: {error}" in describe_inventory([train]).splitlines() for error in train.unreadable)


def test_files_of_no_pair_are_not_counted(folder: Path) -> None:
    before = take_inventory(folder)
    for name in (".DS_Store", f"._{FLOOD}_pre_disaster.png", "notes.png", f"{FLOOD}_pre_disaster.json"):
        (folder / "train" / "images" / name).write_bytes(b"")
    (folder / "other").mkdir()
    assert take_inventory(folder) == before


def test_the_table_shows_counts_sums_and_the_first_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inventory.PUBLISHED_PAIRS, "test", 3)
    for number in range(5):
        (folder / "train" / "labels" / f"tiny-flood_{number:08}_pre_disaster.json").unlink()
    lines = describe_inventory(take_inventory(folder)).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["split", "pairs", *GRADE_NAMES],
        ["train", "8", "8", "8", "8", "8", "8"],
        ["test", "3", "3", "3", "3", "3", "3"],
        ["all", "11", "11", "11", "11", "11", "11"],
    ]
    assert lines[4:] == [
        "train: 2 disasters: tiny-fire, tiny-flood",
        "test: 2 disasters: tiny-fire, tiny-flood",
        "warning: train: 8 pairs, the official archive has 2799.",
        "warning: train: images without a label: 5 (tiny-flood_00000000_pre_disaster, "
        "tiny-flood_00000001_pre_disaster, tiny-flood_00000002_pre_disaster and 2 more)",
    ]


def test_the_published_numbers_of_pairs_sum_up_to_those_of_the_data_set() -> None:
    assert tuple(inventory.PUBLISHED_PAIRS) == SOURCES
    assert inventory.PUBLISHED_PAIRS["train"] + inventory.PUBLISHED_PAIRS["tier3"] == 9168
    assert sum(inventory.PUBLISHED_PAIRS.values()) == 11034


def test_real_labels_are_counted_as_their_subtypes_stand_in_the_files(xbd_sample: Path) -> None:
    for split in take_inventory(xbd_sample):
        subtypes = Counter(
            entry["properties"]["subtype"]
            for path in (xbd_sample / split.split / "labels").glob("*_post_disaster.json")
            for entry in json.loads(path.read_text())["features"]["xy"]
        )
        assert split.buildings == {grade: subtypes[grade] for grade in GRADE_NAMES}
        assert split.missing == {}
        assert split.unreadable == []

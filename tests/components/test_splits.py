"""Splits: no scene in two of them, the same choice everywhere, whole events held out, copies of an image found."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare import choose_split, find_duplicates, main, prepare
from tests.commands import exit_line
from tests.comparing import read_csv
from tests.scenes import TEST_SCENES, TRAIN_SCENES, write_scene
from tests.tiny import prepare_params, write_params
from xbd.scenes import SOURCES, SPLITS, SceneError, SceneRecord, read_index

FIRE = tuple(name for name in TRAIN_SCENES if "fire" in name)
FLOOD = tuple(name for name in TRAIN_SCENES if "flood" in name)


def record(scene: str, source: str = "train", images: tuple[str, str] = ("", "")) -> SceneRecord:
    """What is known of a scene before its split is chosen; the images are those of no other scene if not given."""
    pre, post = images[0] or f"pre of {scene}", images[1] or f"post of {scene}"
    disaster = scene.rsplit("_", 1)[0]
    counts = (0, 0, 0, 0, 0, 0)
    return SceneRecord(scene, source, source, disaster, "t", 64, 64, *counts, 1.0, 0.0, pre, post, "label", "array")


def storm(number: int) -> str:
    return f"some-storm_{number:08}"


def splits(out: Path) -> dict[str, str]:
    """Scene to split of a prepared data set, read as text."""
    return {line["scene"]: line["split"] for line in read_csv(out / "index.csv")}


# Positions from `printf some-storm_00000001 | sha256sum`: 0x4238... / 2**64 = 0.2587, and so on.
@pytest.mark.parametrize(
    ("share", "validation"),
    [(0.25, []), (0.26, [1]), (0.4, [1]), (0.41, [1, 7]), (0.5, [1, 4, 7]), (0.6, [1, 4, 6, 7])],
)
def test_validation_scenes_are_chosen_by_the_sha256_of_their_name(share: float, validation: list[int]) -> None:
    params = prepare_params(validation_share=share)
    assert [number for number in range(8) if choose_split(record(storm(number)), params) == "validation"] == validation


@given(
    st.text("abcdefgh-_0123456789", min_size=1, max_size=30),
    st.sampled_from(["train", "tier3"]),
    st.floats(0, 0.89),
)
def test_the_split_depends_on_the_name_alone_and_grows_with_the_share(name: str, source: str, share: float) -> None:
    params = prepare_params(validation_share=share)
    here = choose_split(record(name, source), params)
    assert here in ("train", "validation")
    assert here == choose_split(replace(record(name, "train"), gsd=2.0, post_sha256="another"), params)
    if here == "validation":
        assert choose_split(record(name, source), prepare_params(validation_share=share + 0.1)) == "validation"
    assert choose_split(record(name, source), prepare_params(validation_share=0)) == "train"


def test_about_the_wanted_share_of_the_scenes_is_held_back() -> None:
    params = prepare_params(validation_share=0.1)
    chosen = [choose_split(record(storm(number)), params) for number in range(2000)]
    assert 150 < chosen.count("validation") < 250


@settings(max_examples=25)
@given(
    share=st.floats(0, 0.99),
    holdouts=st.sets(st.sampled_from(["tiny-fire", "tiny-flood"])),
    excluded=st.sets(st.sampled_from(TRAIN_SCENES + TEST_SCENES), max_size=4).filter(lambda names: set(FIRE) - names),
)
def test_no_scene_is_in_two_splits(
    raw: Path, tmp_path_factory: pytest.TempPathFactory, share: float, holdouts: set[str], excluded: set[str]
) -> None:
    """Each split is read as the later steps read it; a scene, or one of its images, in two of them would be a leak."""
    out = tmp_path_factory.getbasetemp() / "no-scene-in-two-splits"  # one folder, so that arrays are kept
    params = prepare_params(validation_share=share, holdout_disasters=sorted(holdouts), exclude=sorted(excluded))
    prepare(raw, out, params)
    present = {line["split"] for line in read_csv(out / "index.csv")} & set(SPLITS)
    found = {split: read_index(out, [split]) for split in present}
    names = [line.scene for lines in found.values() for line in lines]
    assert sorted(names) == sorted(set(TRAIN_SCENES + TEST_SCENES) - excluded)
    images = [image for lines in found.values() for line in lines for image in (line.pre_sha256, line.post_sha256)]
    assert len(images) == len(set(images))
    for split, lines in found.items():
        for line in lines:
            assert (line.source == "test") == (split == "test")
            assert (line.source == "train" and line.disaster in holdouts) == (split == "out_of_event")


def test_published_test_scenes_stay_there(prepared: Path) -> None:
    expected = dict.fromkeys(FLOOD, "train") | dict.fromkeys(FIRE, "validation") | dict.fromkeys(TEST_SCENES, "test")
    assert splits(prepared) == expected


def test_scenes_keep_their_split_when_others_come(raw: Path, prepared: Path, tmp_path: Path) -> None:
    more = shutil.copytree(raw, tmp_path / "raw")
    for number in range(6):
        write_scene(more, "tier3", storm(number), [])
    prepare(more, tmp_path / "out", prepare_params())
    after = splits(tmp_path / "out")
    assert {name: after[name] for name in splits(prepared)} == splits(prepared)
    assert len(after) == len(splits(prepared)) + 6


def test_tier3_gives_train_and_validation_scenes_and_test_and_hold_give_none(tmp_path: Path) -> None:
    for source, first in zip(SOURCES, range(0, 80, 20), strict=True):
        for number in range(first, first + 12):
            write_scene(tmp_path / "raw", source, storm(number), [], (32, 32))
    prepare(tmp_path / "raw", tmp_path / "out", prepare_params(validation_share=0.4))
    found: dict[str, set[str]] = {}
    for line in read_csv(tmp_path / "out" / "index.csv"):
        found.setdefault(line["source"], set()).add(line["split"])
    assert found == {
        "train": {"train", "validation"},
        "tier3": {"train", "validation"},
        "test": {"test"},
        "hold": {"hold"},
    }


def test_held_out_disasters_are_a_split_of_their_own_and_leave_published_splits_alone(
    raw: Path, prepared: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    write_scene(data, "tier3", "tiny-flood_00000099", [])
    prepare(data, tmp_path / "out", prepare_params(holdout_disasters=["tiny-flood"]))
    held_out = dict.fromkeys((*FLOOD, "tiny-flood_00000099"), "out_of_event")
    assert splits(tmp_path / "out") == splits(prepared) | held_out
    assert "tiny-flood_00000010" in TEST_SCENES


def test_the_disaster_is_that_of_the_label_and_not_of_the_name(raw: Path, tmp_path: Path) -> None:
    """An event that was published under two names of scenes must not be trained on when it is held out."""
    data = shutil.copytree(raw, tmp_path / "raw")
    label = data / "train" / "labels" / f"{FLOOD[0]}_post_disaster.json"
    label.write_text(label.read_text(encoding="utf-8").replace("tiny-flood", "tiny-fire"), encoding="utf-8")
    prepare(data, tmp_path / "out", prepare_params(holdout_disasters=["tiny-fire"]))
    held_out = {name for name, split in splits(tmp_path / "out").items() if split == "out_of_event"}
    assert held_out == {*FIRE, FLOOD[0]}


def test_an_unknown_disaster_to_hold_out_is_an_error_that_lists_the_known_ones(raw: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"prepare": {"holdout_disasters": ["tiny-fire", "tiny-flod"]}})
    line = exit_line(main, "--params", params, "--raw", raw, "--out", tmp_path / "out")
    assert "prepare.holdout_disasters: tiny-flod" in line
    assert "tiny-fire, tiny-flood" in line
    assert not (tmp_path / "out").exists()


def test_a_disaster_that_only_test_scenes_show_cannot_be_held_out(raw: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    write_scene(data, "test", storm(1), [])
    with pytest.raises(SceneError, match=r"prepare\.holdout_disasters: some-storm"):
        prepare(data, tmp_path / "out", prepare_params(holdout_disasters=["some-storm"]))


def copy_images(raw: Path, scene: str, name: str, source: str = "train", moments: tuple[str, ...] = ("pre",)) -> None:
    """A scene whose images, those of `moments`, are the ones of another."""
    write_scene(raw, source, name, [])
    for moment in moments:
        original = raw / "train" / "images" / f"{scene}_{moment}_disaster.png"
        shutil.copyfile(original, raw / source / "images" / f"{name}_{moment}_disaster.png")


def warnings(raw: Path, work: Path, capfd: pytest.CaptureFixture[str], exclude: tuple[str, ...] = ()) -> list[str]:
    """What the command warns of."""
    params = write_params(work / "params.yaml", {"prepare": {"exclude": list(exclude)}})
    main(["--params", str(params), "--raw", str(raw), "--out", str(work / "out")])
    return [line for line in capfd.readouterr().out.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize("moments", [("pre",), ("post",), ("pre", "post")])
def test_an_image_under_two_names_is_reported_once(
    raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], moments: tuple[str, ...]
) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    copy_images(data, FLOOD[1], storm(0), moments=moments)  # both in train
    assert warnings(data, tmp_path, capfd) == [f"warning: the same image stands in {storm(0)}, {FLOOD[1]}"]


def test_an_image_in_two_splits_is_reported_as_a_leak_until_one_is_excluded(
    raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    copy_images(data, FLOOD[1], storm(0), source="test")
    (warning,) = warnings(data, tmp_path, capfd)
    assert warning == (
        f"warning: the same image stands in {storm(0)}, {FLOOD[1]}, in test and train: list all but one under "
        "prepare.exclude"
    )
    assert warnings(data, tmp_path, capfd, exclude=(storm(0),)) == []


def test_duplicates_are_found_across_moments_and_kept_apart() -> None:
    scenes = [
        record("a_1", images=("x", "y")),
        record("b_1", images=("", "x")),  # the post image is the pre image of a_1
        record("c_1", images=("y", "")),  # shares the other image of a_1
        record("d_1", images=("z", "z")),  # twice in one scene: no other name
        replace(record("e_1", "skipped"), pre_sha256="none", post_sha256="none"),
        replace(record("f_1", "skipped"), pre_sha256="none", post_sha256="none"),
    ]
    groups = [[line.scene for line in group] for group in find_duplicates(scenes)]
    assert groups == [["a_1", "b_1"], ["a_1", "c_1"]]

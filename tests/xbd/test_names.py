"""What a scene's files are called."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbd.names import (
    IMAGE,
    LABEL,
    TARGET,
    few,
    file_name,
    is_scene_name,
    nearly_scene_files,
    other_ending,
    scene_file,
    scene_files,
)


@given(st.text(), st.sampled_from(["pre", "post"]), st.sampled_from([IMAGE, LABEL, TARGET]))
def test_the_name_of_a_scenes_file_says_scene_and_moment_and_fits_one_ending(
    scene: str, moment: str, ending: str
) -> None:
    name = file_name(scene, moment, ending)
    assert scene_file(name, ending) == ((scene, moment) if is_scene_name(scene) else None)
    assert not any(scene_file(name, other) for other in (IMAGE, LABEL, TARGET) if other != ending)


@pytest.mark.parametrize("name", ["", ".hidden", "._a_1", "a/b", "a\\b", "a\nb", "a\udcffb", "a\x00"])
def test_a_scene_cannot_be_called_what_hides_it_or_leads_elsewhere(name: str) -> None:
    assert not is_scene_name(name)


def test_other_files_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    for name in ("b_1_post_disaster.png", "a_1_pre_disaster.png", "._a_1_pre_disaster.png", "a_1_pre_disaster.PNG"):
        (tmp_path / name).touch()
    assert list(scene_files(tmp_path)) == [("a_1", "pre"), ("b_1", "post")]
    assert list(scene_files(tmp_path / "nothing")) == []


def test_a_missing_file_is_told_what_stands_in_its_place(tmp_path: Path) -> None:
    missing = tmp_path / "a_1_pre_disaster.png"
    assert other_ending(missing) is None
    (tmp_path / "a_1_pre_disaster.tif").touch()
    assert other_ending(missing) == "found .tif, expected .png. Convert a_1_pre_disaster.tif to .png."
    (tmp_path / "a_1_pre_disaster.Png").touch()
    assert other_ending(missing) == "found .Png, expected .png. Rename a_1_pre_disaster.Png."
    assert other_ending(tmp_path / "nothing" / "a.png") is None


def test_names_that_look_like_those_of_a_scene_are_told_in_few_words() -> None:
    paths = ["x/test/images/b_pre_disaster.PNG", "c_post_disaster.jpg", "._a_pre_disaster.png", "notes.txt"]
    assert nearly_scene_files(paths) == ["b_pre_disaster.PNG", "c_post_disaster.jpg"]
    assert nearly_scene_files(["a\udcff_pre_disaster.png"]) == ["'a\\udcff_pre_disaster.png'"]
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"

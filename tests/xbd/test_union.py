"""Source folders that were prepared apart, as a cluster does it, and read as one data set."""

from pathlib import Path

import pytest

from components import evaluate, prepare
from components.storage.prepared import local_scenes
from tests.commands import exit_line
from tests.comparing import tree
from tests.scenes import TEST_SCENES, TRAIN_SCENES
from tests.tiny import prepare_params
from xbd.scenes import SceneError, open_scene, prepared_version, read_index
from xbd.union import unite


@pytest.fixture(scope="module")
def parts(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny data set, prepared a source folder at a time."""
    root = tmp_path_factory.mktemp("parts")
    for source in ("train", "test"):
        prepare.prepare(raw, root / source, prepare_params(), source)
    return [root / "train", root / "test"]


def test_a_part_holds_the_scenes_of_its_source_folder(parts: list[Path]) -> None:
    assert {record.scene for record in read_index(parts[0])} == set(TRAIN_SCENES)
    assert {record.scene for record in read_index(parts[1])} == set(TEST_SCENES)


def test_the_union_of_the_parts_is_the_data_set_prepared_at_once(
    parts: list[Path], prepared: Path, tmp_path: Path
) -> None:
    unite(parts, tmp_path)
    assert prepared_version(tmp_path) == prepared_version(prepared)
    arrays = {name: content for name, content in tree(prepared).items() if name.endswith(".npy")}
    assert {name: content for name, content in tree(tmp_path).items() if name.endswith(".npy")} == arrays


def test_the_order_of_the_parts_changes_nothing(parts: list[Path], tmp_path: Path) -> None:
    for name, order in (("a", parts), ("b", parts[::-1])):
        (tmp_path / name).mkdir()
        unite(order, tmp_path / name)
    assert prepared_version(tmp_path / "a") == prepared_version(tmp_path / "b")


def test_a_scene_in_two_parts_is_refused(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=rf"scene {min(TEST_SCENES)}: stands in more than one data set \(.*Keep one"):
        unite([parts[1], parts[1]], tmp_path)


def test_skipped_scenes_stay_in_the_index_of_the_union(raw: Path, parts: list[Path], tmp_path: Path) -> None:
    prepare.prepare(raw, tmp_path / "part", prepare_params(exclude=[TRAIN_SCENES[0]]), "train")
    (tmp_path / "union").mkdir()
    unite([tmp_path / "part", parts[1]], tmp_path / "union")
    skipped = read_index(tmp_path / "union", ["skipped"])
    assert [(record.scene, record.problem) for record in skipped] == [(TRAIN_SCENES[0], "prepare.exclude")]


def test_names_of_another_source_folder_are_no_mistake_in_a_part(raw: Path, tmp_path: Path) -> None:
    params = prepare_params(exclude=[TRAIN_SCENES[0]], holdout_disasters=["tiny-fire"])
    records = prepare.prepare(raw, tmp_path / "test", params, "test")
    assert {record.scene for record in records} == set(TEST_SCENES)


def test_a_source_folder_that_is_not_there_is_one_line(raw: Path, params_file: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["--params", params_file, "--raw", raw, "--out", tmp_path / "out"]
    arguments += ["--source", "hold"]
    assert f"{raw}: no scene found, expected {{hold}}/images" in exit_line(prepare.main, *arguments)
    assert not (tmp_path / "out").exists()


def test_an_error_in_a_union_names_the_locations(parts: list[Path]) -> None:
    with pytest.raises(SceneError) as caught, local_scenes(parts) as folder:
        (folder / "scenes" / f"{TEST_SCENES[0]}.npy").unlink()
        open_scene(folder, read_index(folder, ["test"])[0])
    assert str(caught.value).startswith(f"[{parts[0]} {parts[1]}]/scenes/{TEST_SCENES[0]}.npy: cannot be read")


def test_a_step_reads_several_locations(
    parts: list[Path], prepared: Path, model: Path, params_file: Path, tmp_path: Path
) -> None:
    for name, data in (("one", [prepared]), ("parts", parts)):
        arguments = ["--params", params_file, "--data", *data, "--model", model, "--out", tmp_path / name]
        evaluate.main([str(argument) for argument in arguments])
    assert (tmp_path / "one" / "metrics.json").read_bytes() == (tmp_path / "parts" / "metrics.json").read_bytes()

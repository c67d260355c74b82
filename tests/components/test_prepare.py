"""Prepare: what a prepared data set holds, and what the command says of it."""

import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.prepare import main, prepare
from tests.commands import environment, succeed
from tests.comparing import read_csv, read_png, tree
from tests.scenes import SIZE, TEST_SCENES, TRAIN_SCENES, Rectangle, feature, write_label, write_scene
from tests.tiny import prepare_params, write_params
from xbd.arrays import AHEAD, prepare_arrays
from xbd.preparation import prepare_scene, read_sources
from xbd.scenes import RawScene, find_raw_scenes, prepared_version, read_index

ALL = prepare_params()
NAME = "some-storm_00000007"


def test_index_line_of_a_known_scene(tmp_path: Path) -> None:
    buildings = [
        Rectangle("destroyed", 1, 1, 10, 10),
        Rectangle("no-damage", 20, 1, 30, 10),
        Rectangle("no-damage", 40, 1, 44, 10),
        Rectangle("un-classified", 1, 20, 10, 30),
    ]
    write_scene(tmp_path / "raw", "hold", NAME, buildings, (48, 64))
    prepare(tmp_path / "raw", tmp_path / "out", ALL)
    files = [f"images/{NAME}_pre_disaster.png", f"images/{NAME}_post_disaster.png", f"labels/{NAME}_post_disaster.json"]
    hashes = [hashlib.sha256((tmp_path / "raw" / "hold" / file).read_bytes()).hexdigest() for file in files]
    array = np.load(tmp_path / "out" / "scenes" / f"{NAME}.npy")
    hashes.append(hashlib.sha256(array.tobytes()).hexdigest())
    assert (tmp_path / "out" / "index.csv").read_text(encoding="utf-8") == (
        "scene,split,source,disaster,disaster_type,height,width,no_damage,minor_damage,major_damage,destroyed,"
        "unclassified,unsound_polygons,gsd,off_nadir_angle,pre_sha256,post_sha256,label_sha256,array_sha256,"
        "undrawn_buildings,problem\n"
        f"{NAME},hold,hold,some-storm,flooding,48,64,2,0,0,1,1,0,1.5,12.25,{','.join(hashes)},0,none\n"
    )


def test_a_prepared_scene_is_pre_post_and_mask(tmp_path: Path) -> None:
    buildings = [Rectangle("major-damage", 3, 5, 20, 25), Rectangle("un-classified", 30, 30, 40, 63)]
    write_scene(tmp_path / "raw", "test", NAME, buildings)
    prepare(tmp_path / "raw", tmp_path / "out", ALL)
    array = np.load(tmp_path / "out" / "scenes" / f"{NAME}.npy")
    images = tmp_path / "raw" / "test" / "images"
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[..., :3], read_png(images / f"{NAME}_pre_disaster.png"))
    np.testing.assert_array_equal(array[..., 3:6], read_png(images / f"{NAME}_post_disaster.png"))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[5:26, 3:21] = 3
    mask[30:, 30:41] = 255
    np.testing.assert_array_equal(array[..., 6], mask)


def test_a_prepared_data_set_holds_index_version_and_an_array_a_scene_and_nothing_else(prepared: Path) -> None:
    arrays = {f"scenes/{name}.npy" for name in TRAIN_SCENES + TEST_SCENES}
    assert set(tree(prepared)) == {"index.csv", "version.txt"} | arrays
    assert sorted(path.name for path in prepared.parent.iterdir()) == [prepared.name]


@pytest.mark.parametrize("workers", [1, 2, 0])
def test_any_number_of_workers_writes_the_same_bytes(raw: Path, prepared: Path, tmp_path: Path, workers: int) -> None:
    prepare(raw, tmp_path / "again", prepare_params(workers=workers))
    assert tree(tmp_path / "again") == tree(prepared)
    assert prepared_version(tmp_path / "again") == prepared_version(prepared)


def test_the_data_version_changes_with_one_pixel(raw: Path, prepared: Path, tmp_path: Path) -> None:
    other = shutil.copytree(raw, tmp_path / "raw")
    path = other / "train" / "images" / f"{TRAIN_SCENES[0]}_pre_disaster.png"
    image = read_png(path).copy()
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)
    prepare(other, tmp_path / "out", ALL)
    assert prepared_version(tmp_path / "out") != prepared_version(prepared)


class Counted(list[RawScene]):
    """Scenes that count how many of them were asked for."""

    given = 0

    def __iter__(self) -> Iterator[RawScene]:
        for scene in super().__iter__():
            self.given += 1
            yield scene


def test_no_more_scenes_than_a_fixed_number_are_under_way(raw: Path, tmp_path: Path) -> None:
    """Memory must not grow with the data set, nor with one scene that takes long."""
    scenes = Counted(find_raw_scenes(raw))
    assert len(scenes) > AHEAD
    (tmp_path / "folder").mkdir()
    outcomes = prepare_arrays(scenes, tmp_path / "folder", tmp_path / "none", 1)
    for number in range(3):
        next(outcomes)
        assert scenes.given == AHEAD + number
    assert [scene for scene, _ in outcomes] == list(scenes)[3:]


def test_a_scene_without_buildings_is_valid(tmp_path: Path) -> None:
    write_scene(tmp_path / "raw", "train", NAME, [])
    records = prepare(tmp_path / "raw", tmp_path / "out", prepare_params(validation_share=0))
    assert records[0].no_damage == records[0].destroyed == records[0].unsound_polygons == 0
    assert not np.load(tmp_path / "out" / "scenes" / f"{NAME}.npy")[..., 6].any()


def test_missing_metadata_falls_back_to_the_name(tmp_path: Path) -> None:
    write_scene(tmp_path / "raw", "test", NAME, [])
    label = tmp_path / "raw" / "test" / "labels" / f"{NAME}_post_disaster.json"
    label.write_text(json.dumps({"features": {"xy": []}, "metadata": {}}), encoding="utf-8")
    prepare(tmp_path / "raw", tmp_path / "out", ALL)
    record = read_index(tmp_path / "out")[0]
    assert (record.disaster, record.disaster_type) == ("some-storm", "unknown")
    assert np.isnan(record.gsd)


def test_unsound_polygons_are_counted_and_warned_about(raw: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    label = data / "train" / "labels" / f"{TRAIN_SCENES[2]}_post_disaster.json"
    crossing, line = "POLYGON ((1 1, 9 9, 9 1, 1 9, 1 1))", "POLYGON ((20 4, 28 4, 20 4))"
    sound = feature("POLYGON ((40 40, 50 40, 50 50, 40 40))", uid="b-3")
    write_label(label, [feature(crossing), feature(line, "destroyed", "b-2"), sound])
    params = write_params(tmp_path / "params.yaml")
    stdout = succeed("prepare", "--params", params, "--raw", data, "--out", tmp_path / "out", cwd=tmp_path)
    counts = {line["scene"]: line["unsound_polygons"] for line in read_csv(tmp_path / "out" / "index.csv")}
    assert counts == dict.fromkeys(counts, "0") | {TRAIN_SCENES[2]: "2"}
    warning = [text for text in stdout.splitlines() if text.startswith("warning: ")]
    assert len(warning) == 1
    assert "2 polygons in 1 scenes" in warning[0]
    assert TRAIN_SCENES[2] in warning[0]
    mask = np.load(tmp_path / "out" / "scenes" / f"{TRAIN_SCENES[2]}.npy")[..., 6]
    assert (mask[4, 20:29] == 4).all()


def test_buildings_that_the_mask_does_not_show_are_counted_and_warned_about(raw: Path, tmp_path: Path) -> None:
    """Outside of the image; degrees in the place of pixels; nothing. At the border, and as a line, they are shown."""
    data = shutil.copytree(raw, tmp_path / "raw")
    outside, degrees = "POLYGON ((70 1, 90 1, 90 9, 70 1))", "POLYGON ((37.1 37.2, 37.2 37.2, 37.2 37.3, 37.1 37.2))"
    border, line = "POLYGON ((60 1, 90 1, 90 9, 60 1))", "POLYGON ((20 4, 28 4, 20 4))"
    for scene, shapes in ((TRAIN_SCENES[2], [outside, degrees, border, "POLYGON EMPTY"]), (TRAIN_SCENES[0], [outside])):
        write_label(
            data / "train" / "labels" / f"{scene}_post_disaster.json",
            [feature(shape, uid=f"b-{number}") for number, shape in enumerate([*shapes, line])],
            width=SIZE,
            height=SIZE,
        )
    params = write_params(tmp_path / "params.yaml")
    stdout = succeed("prepare", "--params", params, "--raw", data, "--out", tmp_path / "out", cwd=tmp_path)
    counts = {line["scene"]: line["undrawn_buildings"] for line in read_csv(tmp_path / "out" / "index.csv")}
    assert counts == dict.fromkeys(counts, "0") | {TRAIN_SCENES[2]: "3", TRAIN_SCENES[0]: "1"}
    assert (
        "warning: 4 buildings in 2 scenes lie outside of the image or draw no more than a pixel "
        f"({TRAIN_SCENES[0]}: 1, {TRAIN_SCENES[2]}: 3); counted in the index."
    ) in stdout.splitlines()


def test_real_scenes_have_no_building_that_the_mask_does_not_show(xbd_sample: Path) -> None:
    scenes = find_raw_scenes(xbd_sample)
    assert len(scenes) > 4
    for raw in scenes[:4]:
        assert prepare_scene(raw, read_sources(raw))[1].undrawn_buildings == 0


def test_an_index_from_before_a_column_came_is_read(prepared: Path, tmp_path: Path) -> None:
    """Its arrays are not made anew for that."""
    lines = (prepared / "index.csv").read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("undrawn_buildings")
    older = [",".join(line.split(",")[:place] + line.split(",")[place + 1 :]) for line in lines]
    (tmp_path / "index.csv").write_text("\n".join(older) + "\n", encoding="utf-8")
    assert read_index(tmp_path) == read_index(prepared)


def test_hidden_files_are_passed_over_and_a_byte_order_mark_is_read(raw: Path, prepared: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    for path in [path for path in data.rglob("*_disaster.*") if "pre" in path.name or path.suffix == ".json"]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7Mac OS X        ")
    label = data / "train" / "labels" / f"{TRAIN_SCENES[2]}_post_disaster.json"
    label.write_bytes(b"\xef\xbb\xbf" + label.read_bytes())
    prepare(data, tmp_path / "out", prepare_params())
    assert tree(tmp_path / "out" / "scenes") == tree(prepared / "scenes")


def test_the_command_says_how_much_is_in_each_split(
    raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = write_params(tmp_path / "params.yaml", {"prepare": {"holdout_disasters": ["tiny-fire"]}})
    main(["--params", str(params), "--raw", str(raw), "--out", str(tmp_path / "out")])
    said = capfd.readouterr()
    assert said.out.splitlines() == [
        "train: 6 scenes, 30 buildings, 1 disasters",
        "out_of_event: 2 scenes, 10 buildings, 1 disasters",
        "test: 3 scenes, 15 buildings, 2 disasters",
    ]
    assert said.err == ""


def test_a_terminal_shows_progress(raw: Path, tmp_path: Path) -> None:
    """Elsewhere nothing is written to stderr, as the other tests of the command hold."""
    params = write_params(tmp_path / "params.yaml")
    command: list[str | Path] = [sys.executable, "-m", "components.prepare", "--params", params]
    command += ["--raw", raw, "--out", tmp_path / "out"]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    try:
        subprocess.run(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=theirs, check=True)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "prepare: " in shown
    assert "11/11" in shown
    assert "scene" in shown


@pytest.mark.slow
def test_real_scenes_are_prepared(xbd_sample: Path, tmp_path: Path) -> None:
    names = {
        "test": ["hurricane-michael_00000069", "guatemala-volcano_00000006"],
        "train": ["santa-rosa-wildfire_00000019"],
    }
    for source, scenes in names.items():
        for path in sorted((xbd_sample / source).rglob("*_disaster.*")):
            if path.name.rsplit("_", 2)[0] in scenes:
                link = tmp_path / "raw" / source / path.parent.name / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    records = prepare(tmp_path / "raw", tmp_path / "out", prepare_params(validation_share=0))
    assert sorted(record.scene for record in records) == sorted([*names["test"], *names["train"]])
    for record in records:
        label = xbd_sample / record.source / "labels" / f"{record.scene}_post_disaster.json"
        entries = json.loads(label.read_text(encoding="utf-8"))["features"]["xy"]
        subtypes = [entry["properties"]["subtype"] for entry in entries]
        counts = (record.no_damage, record.minor_damage, record.major_damage, record.destroyed, record.unclassified)
        order = ("no-damage", "minor-damage", "major-damage", "destroyed", "un-classified")
        assert counts == tuple(subtypes.count(name) for name in order)
        assert np.load(tmp_path / "out" / "scenes" / f"{record.scene}.npy", mmap_mode="r").shape == (1024, 1024, 7)

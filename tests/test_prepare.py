"""Prepare: what a prepared data set holds, which split a scene is in, and what becomes of bad raw data."""

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import (
    SIZE,
    TEST_SCENES,
    TRAIN_SCENES,
    Rectangle,
    assert_one_line,
    feature,
    read_csv,
    read_png,
    run_step,
    succeed,
    tree,
    write_label,
    write_params,
    write_raw,
    write_scene,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.params import PrepareParams
from components.prepare import choose_split, prepare
from xbd.scenes import RawScene, SceneError, data_version, find_raw_scenes, read_index

ALL = PrepareParams(validation_share=0.25, exclude=[])


def scene_name(number: int) -> str:
    return f"some-storm_{number:08}"


def test_index_line_of_a_known_scene(tmp_path: Path) -> None:
    buildings = [
        Rectangle("destroyed", 1, 1, 10, 10),
        Rectangle("no-damage", 20, 1, 30, 10),
        Rectangle("no-damage", 40, 1, 44, 10),
        Rectangle("un-classified", 1, 20, 10, 30),
    ]
    name = scene_name(7)
    write_scene(tmp_path / "raw", "hold", name, buildings, (48, 64))
    prepare(tmp_path / "raw", tmp_path / "out", ALL)
    files = [f"images/{name}_pre_disaster.png", f"images/{name}_post_disaster.png", f"labels/{name}_post_disaster.json"]
    hashes = [hashlib.sha256((tmp_path / "raw" / "hold" / file).read_bytes()).hexdigest() for file in files]
    assert (tmp_path / "out" / "index.csv").read_text(encoding="utf-8") == (
        "scene,split,source,disaster,disaster_type,height,width,no_damage,minor_damage,major_damage,destroyed,"
        "unclassified,unsound_polygons,gsd,off_nadir_angle,pre_sha256,post_sha256,label_sha256\n"
        f"{name},hold,hold,some-storm,flooding,48,64,2,0,0,1,1,0,1.5,12.25,{','.join(hashes)}\n"
    )


def test_a_prepared_scene_is_pre_post_and_mask(tmp_path: Path) -> None:
    buildings = [Rectangle("major-damage", 3, 5, 20, 25), Rectangle("un-classified", 30, 30, 40, 63)]
    write_scene(tmp_path / "raw", "test", scene_name(1), buildings)
    prepare(tmp_path / "raw", tmp_path / "out", ALL)
    array = np.load(tmp_path / "out" / "scenes" / f"{scene_name(1)}.npy")
    images = tmp_path / "raw" / "test" / "images"
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[..., :3], read_png(images / f"{scene_name(1)}_pre_disaster.png"))
    np.testing.assert_array_equal(array[..., 3:6], read_png(images / f"{scene_name(1)}_post_disaster.png"))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[5:26, 3:21] = 3
    mask[30:, 30:41] = 255
    np.testing.assert_array_equal(array[..., 6], mask)


def test_a_prepared_data_set_holds_its_index_and_an_array_a_scene_and_nothing_else(prepared: Path) -> None:
    assert set(tree(prepared)) == {"index.csv"} | {f"scenes/{name}.npy" for name in TRAIN_SCENES + TEST_SCENES}


def test_two_runs_write_the_same_bytes(raw: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "again", ALL)
    assert tree(tmp_path / "again") == tree(prepared)
    assert data_version(tmp_path / "again") == data_version(prepared)


def test_the_data_version_changes_with_one_pixel(raw: Path, prepared: Path, tmp_path: Path) -> None:
    other = shutil.copytree(raw, tmp_path / "raw")
    path = other / "train" / "images" / f"{TRAIN_SCENES[0]}_pre_disaster.png"
    image = read_png(path).copy()
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)
    prepare(other, tmp_path / "out", ALL)
    assert data_version(tmp_path / "out") != data_version(prepared)


def splits(out: Path) -> dict[str, str]:
    return {line["scene"]: line["split"] for line in read_csv(out / "index.csv")}


def test_every_scene_is_in_one_split_and_published_test_scenes_stay_there(prepared: Path) -> None:
    lines = read_csv(prepared / "index.csv")
    assert sorted(line["scene"] for line in lines) == sorted(TRAIN_SCENES + TEST_SCENES)
    found = splits(prepared)
    assert {name for name, split in found.items() if split == "test"} == set(TEST_SCENES)
    assert {name for name, split in found.items() if split == "validation"} == {
        name for name in TRAIN_SCENES if "fire" in name
    }


def test_scenes_keep_their_split_when_others_come(raw: Path, prepared: Path, tmp_path: Path) -> None:
    more = shutil.copytree(raw, tmp_path / "raw")
    for number in range(6):
        write_scene(more, "tier3", scene_name(number), [])
    prepare(more, tmp_path / "out", ALL)
    after = splits(tmp_path / "out")
    assert {name: after[name] for name in splits(prepared)} == splits(prepared)
    assert len(after) == len(splits(prepared)) + 6


@given(st.text("abcdefgh-_0123456789", min_size=1, max_size=30), st.sampled_from(["train", "tier3"]), st.floats(0, 1))
def test_the_split_depends_on_the_name_alone_and_grows_with_the_share(name: str, source: str, share: float) -> None:
    here = choose_split(RawScene(source, name, Path("here")), share)
    assert here == choose_split(RawScene("train", name, Path("there")), share)
    assert here in ("train", "validation")
    if here == "validation":
        assert choose_split(RawScene(source, name, Path("here")), min(1.0, share + 0.1)) == "validation"
    assert choose_split(RawScene(source, name, Path("here")), 0) == "train"


def test_about_the_wanted_share_of_the_scenes_is_held_back() -> None:
    chosen = [choose_split(RawScene("train", scene_name(number), Path()), 0.1) for number in range(2000)]
    assert 150 < chosen.count("validation") < 250


def test_tier3_gives_train_and_validation_scenes_and_test_and_hold_give_none(tmp_path: Path) -> None:
    for source, first in (("train", 0), ("tier3", 20), ("test", 40), ("hold", 60)):
        for number in range(first, first + 12):
            write_scene(tmp_path / "raw", source, scene_name(number), [], (32, 32))
    prepare(tmp_path / "raw", tmp_path / "out", PrepareParams(validation_share=0.4, exclude=[]))
    found: dict[str, set[str]] = {}
    for line in read_csv(tmp_path / "out" / "index.csv"):
        found.setdefault(line["source"], set()).add(line["split"])
    assert found == {
        "train": {"train", "validation"},
        "tier3": {"train", "validation"},
        "test": {"test"},
        "hold": {"hold"},
    }


def test_a_scene_without_buildings_is_valid(tmp_path: Path) -> None:
    write_scene(tmp_path / "raw", "train", scene_name(1), [])
    records = prepare(tmp_path / "raw", tmp_path / "out", PrepareParams(validation_share=0, exclude=[]))
    assert records[0].no_damage == records[0].destroyed == records[0].unsound_polygons == 0
    assert not np.load(tmp_path / "out" / "scenes" / f"{scene_name(1)}.npy")[..., 6].any()


def test_missing_metadata_falls_back_to_the_name(tmp_path: Path) -> None:
    write_scene(tmp_path / "raw", "test", scene_name(1), [])
    label = tmp_path / "raw" / "test" / "labels" / f"{scene_name(1)}_post_disaster.json"
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


def test_the_command_says_how_much_is_in_each_split(raw: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml")
    stdout = succeed("prepare", "--params", params, "--raw", raw, "--out", tmp_path / "out", cwd=tmp_path)
    assert stdout.splitlines() == [
        "train: 6 scenes, 30 buildings, 1 disasters",
        "validation: 2 scenes, 10 buildings, 1 disasters",
        "test: 3 scenes, 15 buildings, 2 disasters",
    ]


BAD = TRAIN_SCENES[1]


def image(raw: Path, moment: str) -> Path:
    return raw / "train" / "images" / f"{BAD}_{moment}_disaster.png"


def label_path(raw: Path) -> Path:
    return raw / "train" / "labels" / f"{BAD}_post_disaster.json"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def huge_png() -> bytes:
    """A PNG whose header claims 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def save(path: Path, pixels: Any) -> None:
    Image.fromarray(pixels).save(path)


# What is done to the raw data, and what the one line must name.
RAW_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing pre image": (lambda raw: image(raw, "pre").unlink(), f"{BAD}_pre_disaster.png"),
    "missing post image": (lambda raw: image(raw, "post").unlink(), f"{BAD}_post_disaster.png"),
    "missing label": (lambda raw: label_path(raw).unlink(), f"{BAD}_post_disaster.json"),
    "truncated image": (lambda raw: truncate(image(raw, "pre")), f"{BAD}_pre_disaster.png"),
    "empty image": (lambda raw: image(raw, "post").write_bytes(b""), f"{BAD}_post_disaster.png"),
    "gray image": (lambda raw: save(image(raw, "pre"), np.zeros((SIZE, SIZE), np.uint8)), f"{BAD}_pre_disaster.png"),
    "16-bit image": (
        lambda raw: save(image(raw, "post"), np.zeros((SIZE, SIZE), np.uint16)),
        f"{BAD}_post_disaster.png",
    ),
    "image of 10 gigapixels": (lambda raw: image(raw, "pre").write_bytes(huge_png()), f"{BAD}_pre_disaster.png"),
    "sizes that differ": (
        lambda raw: save(image(raw, "post"), np.zeros((SIZE, SIZE + 32, 3), np.uint8)),
        f"{BAD}_post_disaster.png: is 96x64 pixels, the pre image 64x64",
    ),
    "malformed JSON": (lambda raw: truncate(label_path(raw)), f"{BAD}_post_disaster.json: is not JSON"),
    "malformed WKT": (
        lambda raw: write_label(label_path(raw), [feature("POLYGON ((0 0, 1 1, 2")]),
        f"{BAD}_post_disaster.json: building b-1",
    ),
    "infinite coordinate": (
        lambda raw: write_label(label_path(raw), [feature("POLYGON ((0 0, 1e400 1, 2 0, 0 0))")]),
        f"{BAD}_post_disaster.json: building b-1",
    ),
    "unknown subtype": (
        lambda raw: write_label(label_path(raw), [feature("POLYGON ((0 0, 1 1, 2 0, 0 0))", "collapsed")]),
        f"{BAD}_post_disaster.json: building b-1: subtype 'collapsed'",
    ),
    "no subtype": (
        lambda raw: write_label(label_path(raw), [feature("POLYGON ((0 0, 1 1, 2 0, 0 0))", None)]),
        f"{BAD}_post_disaster.json: building b-1",
    ),
    "gsd that is no number": (lambda raw: write_label(label_path(raw), [], gsd="half a metre"), "gsd"),
    "gsd that is null": (lambda raw: write_label(label_path(raw), [], gsd=None), "gsd"),
    "scene in two folders": (lambda raw: write_scene(raw, "tier3", BAD, []), BAD),
    "no scene at all": (empty, "no scene found"),
}


@pytest.mark.parametrize(("fault", "named"), RAW_FAULTS.values(), ids=RAW_FAULTS)
def test_bad_raw_data_ends_in_one_line_and_leaves_nothing_behind(
    raw: Path, tmp_path: Path, fault: Callable[[Path], object], named: str
) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    fault(data)
    params = write_params(tmp_path / "params.yaml")
    before = sorted(tmp_path.iterdir())
    result = run_step("prepare", "--params", params, "--raw", data, "--out", tmp_path / "out", cwd=tmp_path)
    assert_one_line(result, named)
    assert sorted(tmp_path.iterdir()) == before


PARAMETER_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown parameter": ({"prepare": {"validation_shore": 0.1}}, "prepare.validation_shore"),
    "unknown section": ({"prepair": {}}, "prepair"),
    "out of range": ({"prepare": {"validation_share": 1.0}}, "prepare.validation_share"),
    "wrong type": ({"prepare": {"validation_share": "a tenth"}}, "prepare.validation_share"),
    "number as text": ({"prepare": {"validation_share": "0.1"}}, "prepare.validation_share"),
    "unknown scene in exclude": ({"prepare": {"exclude": ["no-such_00000001"]}}, "prepare.exclude: no-such_00000001"),
}


@pytest.mark.parametrize(("override", "named"), PARAMETER_FAULTS.values(), ids=PARAMETER_FAULTS)
def test_bad_parameters_end_in_one_line_and_leave_nothing_behind(
    raw: Path, tmp_path: Path, override: dict[str, Any], named: str
) -> None:
    params = write_params(tmp_path / "params.yaml", override)
    result = run_step("prepare", "--params", params, "--raw", raw, "--out", tmp_path / "out", cwd=tmp_path)
    assert_one_line(result, named)
    assert sorted(tmp_path.iterdir()) == [params]


@pytest.mark.parametrize("out", ["file/out", "file"])
def test_an_output_that_cannot_be_written_ends_in_one_line(raw: Path, tmp_path: Path, out: str) -> None:
    """A path below a regular file, because root may write into any folder."""
    (tmp_path / "file").write_text("here before", encoding="utf-8")
    params = write_params(tmp_path / "params.yaml")
    result = run_step("prepare", "--params", params, "--raw", raw, "--out", tmp_path / out, cwd=tmp_path)
    assert_one_line(result, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "here before"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", params]


def test_all_bad_scenes_are_listed(tmp_path: Path) -> None:
    data = write_raw(tmp_path / "raw")
    label_path(data).write_text("{", encoding="utf-8")
    truncate(data / "train" / "images" / f"{TRAIN_SCENES[4]}_post_disaster.png")
    (data / "test" / "images" / f"{TEST_SCENES[0]}_pre_disaster.png").unlink()
    params = write_params(tmp_path / "params.yaml")
    result = run_step("prepare", "--params", params, "--raw", data, "--out", tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert "3 of 11 scenes" in lines[0]
    assert len(lines) == 4
    for name in (TEST_SCENES[0], BAD, TRAIN_SCENES[4]):
        assert sum(name in line for line in lines[1:]) == 1
    assert not (tmp_path / "out").exists()


def test_a_failed_run_leaves_the_earlier_output_as_it_was(raw: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    prepare(data, tmp_path / "out", ALL)
    before = tree(tmp_path / "out")
    label_path(data).unlink()
    with pytest.raises(SceneError, match=BAD):
        prepare(data, tmp_path / "out", ALL)
    assert tree(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_a_successful_run_replaces_the_earlier_output_whole(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out", ALL)
    prepare(raw, tmp_path / "out", PrepareParams(validation_share=0.25, exclude=[TRAIN_SCENES[0]]))
    assert TRAIN_SCENES[0] not in splits(tmp_path / "out")
    assert not (tmp_path / "out" / "scenes" / f"{TRAIN_SCENES[0]}.npy").exists()


def test_an_output_folder_that_holds_something_else_is_not_wiped(raw: Path, tmp_path: Path) -> None:
    """`--out data` instead of `--out data/prepared` must not cost the user the raw data."""
    keepsake = tmp_path / "out" / "thesis.txt"
    keepsake.parent.mkdir()
    keepsake.write_text("the only copy", encoding="utf-8")
    params = write_params(tmp_path / "params.yaml")
    run_step("prepare", "--params", params, "--raw", raw, "--out", tmp_path / "out", cwd=tmp_path)
    assert keepsake.exists()


def test_an_excluded_bad_scene_lets_the_others_pass(raw: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    label_path(data).write_text("{", encoding="utf-8")
    params = write_params(tmp_path / "params.yaml", {"prepare": {"exclude": [BAD]}})
    succeed("prepare", "--params", params, "--raw", data, "--out", tmp_path / "out", cwd=tmp_path)
    assert set(splits(tmp_path / "out")) == set(TRAIN_SCENES + TEST_SCENES) - {BAD}


def test_raw_scenes_are_found_sorted_and_by_any_of_their_files(raw: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    image(data, "pre").unlink()
    image(data, "post").unlink()
    found = find_raw_scenes(data)
    assert found == sorted(found)
    assert {scene.scene for scene in found} == set(TRAIN_SCENES + TEST_SCENES)


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
    records = prepare(tmp_path / "raw", tmp_path / "out", PrepareParams(validation_share=0, exclude=[]))
    assert sorted(record.scene for record in records) == sorted([*names["test"], *names["train"]])
    for record in records:
        label = xbd_sample / record.source / "labels" / f"{record.scene}_post_disaster.json"
        entries = json.loads(label.read_text(encoding="utf-8"))["features"]["xy"]
        subtypes = [entry["properties"]["subtype"] for entry in entries]
        counts = (record.no_damage, record.minor_damage, record.major_damage, record.destroyed, record.unclassified)
        order = ("no-damage", "minor-damage", "major-damage", "destroyed", "un-classified")
        assert counts == tuple(subtypes.count(name) for name in order)
        assert np.load(tmp_path / "out" / "scenes" / f"{record.scene}.npy", mmap_mode="r").shape == (1024, 1024, 7)

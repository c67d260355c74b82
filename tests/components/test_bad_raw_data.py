"""Prepare on bad raw data: each problem in a line, nothing of a bad scene written, bad scenes skipped if asked."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.prepare import main, prepare
from tests.commands import assert_one_line, exit_line, run_step
from tests.comparing import read_csv, tree
from tests.scenes import SIZE, TEST_SCENES, TRAIN_SCENES, feature, write_label, write_raw, write_scene
from tests.tiny import prepare_params, write_params
from xbd.scenes import SceneError, find_raw_scenes, read_index

BAD = TRAIN_SCENES[1]
LABEL = f"{BAD}_post_disaster.json"
SKIP = prepare_params(on_error="skip")
TRIANGLE = "POLYGON ((0 0, 1 1, 2 0, 0 0))"


def image(raw: Path, moment: str) -> Path:
    return raw / "train" / "images" / f"{BAD}_{moment}_disaster.png"


def label_path(raw: Path) -> Path:
    return raw / "train" / "labels" / LABEL


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge_png() -> bytes:
    """A PNG whose header claims 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def save(path: Path, pixels: Any) -> None:
    Image.fromarray(pixels).save(path)


def relabel(raw: Path, *features: dict[str, Any], **metadata: Any) -> None:
    write_label(label_path(raw), features, **metadata)


# What is done to the scene BAD, and what the line must name.
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing pre image": (lambda raw: image(raw, "pre").unlink(), f"{BAD}_pre_disaster.png: cannot be read"),
    "missing post image": (lambda raw: image(raw, "post").unlink(), f"{BAD}_post_disaster.png: cannot be read"),
    "missing label": (lambda raw: label_path(raw).unlink(), f"{LABEL}: cannot be read"),
    "folder instead of a label": (lambda raw: folder_instead(label_path(raw)), f"{LABEL}: is a folder"),
    "truncated image": (lambda raw: truncate(image(raw, "pre")), f"{BAD}_pre_disaster.png: cannot be decoded"),
    "empty image": (lambda raw: image(raw, "post").write_bytes(b""), f"{BAD}_post_disaster.png: cannot be decoded"),
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
    "upper-case ending": (
        lambda raw: image(raw, "pre").rename(image(raw, "pre").with_suffix(".PNG")),
        f"(No such file or directory): found .PNG, expected .png. Rename {BAD}_pre_disaster.PNG.",
    ),
    "JPEG beside no PNG": (
        lambda raw: image(raw, "post").rename(image(raw, "post").with_suffix(".jpg")),
        f"found .jpg, expected .png. Convert {BAD}_post_disaster.jpg to .png.",
    ),
    "JPEG 2000 in the name of a PNG": (
        lambda raw: image(raw, "pre").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)),
        f"{BAD}_pre_disaster.png: is JPEG 2000, which is not supported",
    ),
    "label of a larger image": (
        lambda raw: relabel(raw, feature(TRIANGLE), width=256, height=256),
        f"{LABEL}: metadata.width and height are 256x256 pixels, the images 64x64, expected one size.",
    ),
    "label of a higher image": (lambda raw: relabel(raw, width=SIZE, height=SIZE + 1), "64x65 pixels, the images 64x6"),
    "width that is no number": (lambda raw: relabel(raw, width="64"), f"{LABEL}: metadata.width is '64', expected a n"),
    "JSON with a comma too many": (
        lambda raw: label_path(raw).write_bytes(label_path(raw).read_bytes()[:-1] + b",}"),
        "Mend the file.",
    ),
    "JSON in UTF-16": (
        lambda raw: label_path(raw).write_text(label_path(raw).read_text(encoding="utf-8"), encoding="utf-16"),
        f"{LABEL}: is not JSON (it is UTF-16, expected UTF-8). Save the file as UTF-8.",
    ),
    "malformed JSON": (lambda raw: truncate(label_path(raw)), f"{LABEL}: is not JSON"),
    "JSON that is not text": (lambda raw: label_path(raw).write_bytes(b"\xff{}"), f"{LABEL}: is not JSON"),
    "malformed WKT": (lambda raw: relabel(raw, feature("POLYGON ((0 0, 1 1, 2")), f"{LABEL}: building b-1"),
    "infinite coordinate": (
        lambda raw: relabel(raw, feature("POLYGON ((0 0, 1e400 1, 2 0, 0 0))")),
        f"{LABEL}: building b-1",
    ),
    "unknown subtype": (
        lambda raw: relabel(raw, feature(TRIANGLE, "collapsed")),
        f"{LABEL}: building b-1: subtype 'collapsed'",
    ),
    "no subtype": (lambda raw: relabel(raw, feature(TRIANGLE, None)), f"{LABEL}: building b-1"),
    "name of two lines": (lambda raw: relabel(raw, feature(TRIANGLE, "x", "b-1\nb-2")), "building b-1 b-2: subtype"),
    "name that is no text": (lambda raw: relabel(raw, feature(TRIANGLE, "x", "b-\ud800")), "building b-\\ud800:"),
    "gsd that is no number": (lambda raw: relabel(raw, gsd="half a metre"), f"{LABEL}: metadata.gsd is 'half a metre'"),
    "gsd that is null": (lambda raw: relabel(raw, gsd=None), f"{LABEL}: metadata.gsd is None"),
    "gsd beyond all numbers": (lambda raw: relabel(raw, gsd=10**400), f"{LABEL}: metadata.gsd is 1000"),
    "disaster without a name": (lambda raw: relabel(raw, disaster=""), f"{LABEL}: metadata.disaster is ''"),
    "disaster that is null": (lambda raw: relabel(raw, disaster=None), f"{LABEL}: metadata.disaster is None"),
    "disaster that is no text": (lambda raw: relabel(raw, disaster="\ud800"), f"{LABEL}: metadata.disaster is '\\ud8"),
}


@pytest.mark.parametrize(("fault", "named"), FAULTS.values(), ids=FAULTS)
def test_a_bad_scene_ends_in_one_line_and_is_not_written(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: Callable[[Path], object], named: str
) -> None:
    """The good arrays wait in a hidden folder for the next run, and the output is not there."""
    fault(data)
    params = write_params(tmp_path / "params.yaml")
    before = sorted(tmp_path.iterdir())
    assert named in exit_line(main, "--params", params, "--raw", data, "--out", tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / ".out.partial"])
    kept = {path.name for path in (tmp_path / ".out.partial" / "scenes").iterdir()}
    assert kept == {f"{name}.npy" for name in set(TRAIN_SCENES + TEST_SCENES) - {BAD}}
    assert not (tmp_path / ".out.partial" / "index.csv").exists()


@pytest.mark.parametrize(("fault", "named"), FAULTS.values(), ids=FAULTS)
def test_a_bad_scene_can_be_skipped(
    data: Path, prepared: Path, tmp_path: Path, fault: Callable[[Path], object], named: str
) -> None:
    fault(data)
    prepare(data, tmp_path / "out", SKIP)
    others = set(TRAIN_SCENES + TEST_SCENES) - {BAD}
    assert {record.scene for record in read_index(tmp_path / "out")} == others
    (skipped,) = read_index(tmp_path / "out", ["skipped"])
    assert (skipped.scene, skipped.source, skipped.disaster) == (BAD, "train", "tiny-flood")
    assert named in skipped.problem
    whole = tree(prepared)
    assert {name: content for name, content in tree(tmp_path / "out").items() if name != "index.csv"} == {
        name: content for name, content in whole.items() if name not in ("index.csv", f"scenes/{BAD}.npy")
    }


def only_jpegs(raw: Path) -> None:
    shutil.rmtree(raw / "test")
    shutil.rmtree(raw / "train" / "labels")
    for path in (raw / "train" / "images").iterdir():
        path.rename(path.with_suffix(".jpg"))


LAYOUT_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "scene in two folders": (lambda raw: write_scene(raw, "tier3", BAD, []), BAD),
    "no scene at all": (shutil.rmtree, "no scene found"),
    "JPEGs alone": (only_jpegs, "_post_disaster.jpg and 13 more. Convert or rename them."),
}
PARAMETER_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown parameter": ({"prepare": {"validation_shore": 0.1}}, "prepare.validation_shore"),
    "unknown section": ({"prepair": {}}, "prepair"),
    "out of range": ({"prepare": {"validation_share": 1.0}}, "prepare.validation_share"),
    "wrong type": ({"prepare": {"validation_share": "a tenth"}}, "prepare.validation_share"),
    "number as text": ({"prepare": {"validation_share": "0.1"}}, "prepare.validation_share"),
    "unknown way with errors": ({"prepare": {"on_error": "ignore"}}, "prepare.on_error"),
    "fewer than no processes": ({"prepare": {"workers": -1}}, "prepare.workers"),
    "unknown scene in exclude": ({"prepare": {"exclude": ["no-such_00000001"]}}, "prepare.exclude: no-such_00000001"),
    "every scene in exclude": ({"prepare": {"exclude": [*TRAIN_SCENES, *TEST_SCENES]}}, "prepare.exclude: lists every"),
}


@pytest.mark.parametrize(("fault", "named"), LAYOUT_FAULTS.values(), ids=LAYOUT_FAULTS)
def test_a_bad_layout_ends_in_one_line_and_leaves_nothing_behind(
    data: Path, tmp_path: Path, fault: Callable[[Path], object], named: str
) -> None:
    fault(data)
    params = write_params(tmp_path / "params.yaml")
    before = sorted(tmp_path.iterdir())
    assert named in exit_line(main, "--params", params, "--raw", data, "--out", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("override", "named"), PARAMETER_FAULTS.values(), ids=PARAMETER_FAULTS)
def test_bad_parameters_end_in_one_line_and_leave_nothing_behind(
    raw: Path, tmp_path: Path, override: dict[str, Any], named: str
) -> None:
    params = write_params(tmp_path / "params.yaml", override)
    assert named in exit_line(main, "--params", params, "--raw", raw, "--out", tmp_path / "out")
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


def damage_three(data: Path) -> None:
    label_path(data).write_text("{", encoding="utf-8")
    (data / "train" / "images" / f"{TRAIN_SCENES[4]}_post_disaster.png").write_bytes(b"")
    (data / "test" / "images" / f"{TEST_SCENES[0]}_pre_disaster.png").unlink()


def test_all_bad_scenes_are_listed(data: Path, tmp_path: Path) -> None:
    damage_three(data)
    params = write_params(tmp_path / "params.yaml")
    result = run_step("prepare", "--params", params, "--raw", data, "--out", tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith("SceneError: 3 of 11 scenes cannot be prepared")
    assert len(lines) == 4
    for name in (TEST_SCENES[0], BAD, TRAIN_SCENES[4]):
        assert sum(name in line for line in lines[1:]) == 1
    assert not (tmp_path / "out").exists()


def test_skipped_scenes_are_warned_about_and_listed_in_the_index(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage_three(data)
    params = write_params(tmp_path / "params.yaml", {"prepare": {"on_error": "skip", "exclude": [TRAIN_SCENES[5]]}})
    main(["--params", str(params), "--raw", str(data), "--out", str(tmp_path / "out")])
    lines = [line for line in read_csv(tmp_path / "out" / "index.csv") if line["split"] == "skipped"]
    assert {line["scene"]: line["problem"].split(" ")[0] for line in lines} == {
        BAD: f"train/labels/{LABEL}:",
        TRAIN_SCENES[4]: f"train/images/{TRAIN_SCENES[4]}_post_disaster.png:",
        TEST_SCENES[0]: f"test/images/{TEST_SCENES[0]}_pre_disaster.png:",
        TRAIN_SCENES[5]: "prepare.exclude",
    }
    assert {line["array_sha256"] for line in lines} == {"none"}
    said = capfd.readouterr()
    assert said.err == ""
    (warning,) = [line for line in said.out.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: 3 scenes were skipped and are in no split (first: ")
    assert set(tree(tmp_path / "out" / "scenes")) == {
        f"{name}.npy" for name in set(TRAIN_SCENES + TEST_SCENES) - {line["scene"] for line in lines}
    }


@pytest.mark.parametrize("place", ["elsewhere/raw", "t"])
def test_the_index_does_not_depend_on_where_the_raw_data_lies(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Nor on the number of processes, nor on addresses in memory, which Pillow's errors hold."""
    damage_three(data)
    prepare(data, tmp_path / "here", SKIP)
    shutil.copytree(data, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    prepare(Path(place), tmp_path / "there", prepare_params(on_error="skip", workers=2))
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_if_every_scene_is_bad_skipping_is_an_error_too(tmp_path: Path) -> None:
    write_scene(tmp_path / "raw", "train", BAD, [])
    label_path(tmp_path / "raw").write_text("{", encoding="utf-8")
    with pytest.raises(SceneError, match=f"no scene is left: 1 cannot be prepared.*{LABEL}"):
        prepare(tmp_path / "raw", tmp_path / "out", SKIP)
    assert not (tmp_path / "out").exists()


def test_an_excluded_bad_scene_lets_the_others_pass(data: Path, tmp_path: Path) -> None:
    label_path(data).write_text("{", encoding="utf-8")
    prepare(data, tmp_path / "out", prepare_params(exclude=[BAD]))
    assert {line.scene for line in read_index(tmp_path / "out")} == set(TRAIN_SCENES + TEST_SCENES) - {BAD}
    (excluded,) = read_index(tmp_path / "out", ["skipped"])
    assert (excluded.scene, excluded.problem) == (BAD, "prepare.exclude")


def test_a_skipped_scene_comes_in_once_it_is_mended(data: Path, raw: Path, prepared: Path, tmp_path: Path) -> None:
    label_path(data).write_text("{", encoding="utf-8")
    prepare(data, tmp_path / "out", SKIP)
    shutil.copyfile(label_path(raw), label_path(data))
    prepare(data, tmp_path / "out", SKIP)
    assert tree(tmp_path / "out") == tree(prepared)


def test_an_output_folder_that_holds_something_else_is_not_wiped(raw: Path, tmp_path: Path) -> None:
    """`--out data` instead of `--out data/prepared` must not cost the user the raw data."""
    keepsake = tmp_path / "out" / "thesis.txt"
    keepsake.parent.mkdir()
    keepsake.write_text("the only copy", encoding="utf-8")
    params = write_params(tmp_path / "params.yaml")
    assert str(keepsake) in exit_line(main, "--params", params, "--raw", raw, "--out", tmp_path / "out")
    assert tree(tmp_path / "out") == {"thesis.txt": b"the only copy"}


def test_raw_scenes_are_found_sorted_and_by_any_of_their_files(tmp_path: Path) -> None:
    data = write_raw(tmp_path / "raw")
    image(data, "pre").unlink()
    image(data, "post").unlink()
    found = find_raw_scenes(data)
    assert found == sorted(found)
    assert {scene.scene for scene in found} == set(TRAIN_SCENES + TEST_SCENES)

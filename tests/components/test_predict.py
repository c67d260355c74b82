"""Predict: a pair or a folder of pairs, through the command line, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import predict as predict_step
from tests.conftest import TEST_SCENES, exit_line, pair, read_png, tree


def test_a_folder_and_its_pairs_give_the_same_files(raw: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    predict_step.main(["--model", str(model), "--images", str(raw / "test" / "images"), "--out", str(out)])
    kinds = ("localization.png", "damage.png", "picture.png")
    assert set(tree(out)) == {f"{scene}_{kind}" for scene in TEST_SCENES for kind in kinds}
    for scene in TEST_SCENES:
        predict_step.main(["--model", str(model), *pair(raw, scene), "--out", str(tmp_path / scene)])
        assert set(tree(tmp_path / scene)) == set(kinds)
        for kind in kinds:
            assert (tmp_path / scene / kind).read_bytes() == (out / f"{scene}_{kind}").read_bytes()


def test_masks_have_the_size_of_the_images_and_hold_classes(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for moment in ("pre", "post"):
        Image.fromarray(rng.integers(0, 256, (50, 77, 3), dtype=np.uint8)).save(tmp_path / f"{moment}.png")
    images = ["--pre", str(tmp_path / "pre.png"), "--post", str(tmp_path / "post.png")]
    predict_step.main(["--model", str(model), *images, "--out", str(tmp_path / "out")])
    localization, damage = (read_png(tmp_path / "out" / f"{name}.png") for name in ("localization", "damage"))
    assert localization.shape == damage.shape == (50, 77)
    assert localization.dtype == damage.dtype == np.uint8
    assert damage.max() <= 4
    np.testing.assert_array_equal(damage > 0, localization == 1)


def test_a_missing_half_is_one_line_that_names_it(raw: Path, model: Path, tmp_path: Path) -> None:
    images = shutil.copytree(raw / "test" / "images", tmp_path / "images")
    missing = images / f"{TEST_SCENES[1]}_post_disaster.png"
    missing.unlink()
    line = exit_line(predict_step.main, "--model", model, "--images", images, "--out", tmp_path / "out")
    assert f"{missing}: is missing" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pairs_is_one_line(model: Path, tmp_path: Path) -> None:
    line = exit_line(predict_step.main, "--model", model, "--images", tmp_path, "--out", tmp_path / "out")
    assert f"{tmp_path}: has no image pair" in line


@pytest.mark.parametrize(
    ("folder", "finding"),
    [("nowhere", "does not exist, expected a folder of pairs"), ("a.tif", "is a file, expected a folder of pairs"),
     (".", "has a.tif, but no image pair, expected NAME_pre_disaster.png")],
)  # fmt: skip
def test_a_folder_that_is_none_or_holds_geotiffs_is_one_line(folder: str, finding: str, tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    line = exit_line(predict_step.main, "--model", "m", "--images", tmp_path / folder, "--out", tmp_path / "out")
    assert line.startswith(f"PredictError: {tmp_path / folder}: {finding}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_an_output_that_cannot_be_is_said_before_the_work(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = exit_line(predict_step.main, "--model", "m", *pair(raw), "--out", tmp_path / "file" / "out")
    assert line.startswith(f"InputError: {tmp_path / 'file'}: is a file, expected a folder")


def test_images_of_different_size_are_one_line_that_names_both(raw: Path, model: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 96, 3), np.uint8)).save(tmp_path / "small.png")
    arguments: list[str | Path] = [*pair(raw)[:2], "--post", tmp_path / "small.png"]
    line = exit_line(predict_step.main, "--model", model, *arguments, "--out", tmp_path / "out")
    assert "small.png: is 96x32 pixels" in line
    assert "64x64" in line


@pytest.mark.parametrize("content", [b"", b"GIF89a", None])
def test_an_image_that_cannot_be_read_is_one_line(
    raw: Path, model: Path, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    arguments: list[str | Path] = [*pair(raw)[:2], "--post", tmp_path / "a.png"]
    assert "a.png" in exit_line(predict_step.main, "--model", model, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_model_is_one_line(raw: Path, tmp_path: Path) -> None:
    line = exit_line(predict_step.main, "--model", tmp_path, *pair(raw), "--out", tmp_path / "out")
    assert f"{tmp_path / 'config.json'}: cannot be read" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--pre", "a.png"],
        ["--post", "b.png"],
        ["--pre", "a.png", "--images", "c"],
        ["--images", "c", "--post", "b"],
    ],
    ids=" ".join,
)
def test_either_a_pair_or_a_folder_is_needed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        predict_step.main(["--model", "m", "--out", "o", *arguments])
    assert caught.value.code == 2
    assert "give either --pre and --post, or --images" in capsys.readouterr().err


IMAGERY_OPTIONS = (
    "--footprints a.gpkg", "--areas a.gpkg", "--cell 500", "--range 0 9", "--percentiles 2 98", "--align global",
    "--tile 1024", "--overlap 256", "--batch 1", "--workers 2", "--resample-to 0.5", "--resume",
)  # fmt: skip


@pytest.mark.parametrize("images", ["--pre a.png --post b.png", "--images c"])
@pytest.mark.parametrize("option", IMAGERY_OPTIONS)
def test_an_option_of_geotiffs_is_refused_with_plain_images(option: str, images: str) -> None:
    """Before any work: neither the model nor the images are there. Also where it is given its default."""
    line = exit_line(predict_step.main, "--model", "m", "--out", "o", *images.split(), *option.split())
    assert line.startswith(f"PredictError: {option.split()[0]}: is for GeoTIFFs alone")


@pytest.mark.parametrize(
    ("options", "unused", "by"),
    [
        ("--cell 500 --areas a.gpkg", "--cell", "--areas"),
        ("--percentiles 2 98 --range 0 9", "--percentiles", "--range"),
    ],
)
def test_an_option_that_another_makes_useless_is_refused(options: str, unused: str, by: str) -> None:
    line = exit_line(predict_step.main, "--model", "m", *"--out o --pre a.tif --post b.tif".split(), *options.split())
    assert line.startswith(f"PredictError: {unused}: is not used with {by}")

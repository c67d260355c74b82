"""Predict: a pair or a folder of pairs, through the command line, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components import predict as predict_step
from components.predict import find_pairs
from imagery.predict.arrays import predict_arrays
from model.inference import Predictor
from model.networks.pair_network import DualLogits
from tests.conftest import TEST_SCENES, exit_line, pair, read_png, tree
from tests.tiny_network import Tiny, TinySettings


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


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--bands 3,2", "argument --bands: found 3,2, expected the numbers of three bands, such as 3,2,1, or auto"),
        ("--bands 0,1,2", "argument --bands: found 0,1,2"),
        ("--nodata none", "argument --nodata: found none, expected a number, or auto"),
    ],
)
def test_bands_and_nodata_are_numbers(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        predict_step.main(["--model", "m", "--out", "o", "--pre", "a.tif", "--post", "b.tif", *option.split()])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_more_than_two_of_bands_or_nodata_are_refused() -> None:
    words = "--model m --out o --pre a.tif --post b.tif --nodata 0 auto 255".split()
    assert exit_line(predict_step.main, *words).startswith("SettingsError: --nodata: found 3 values, expected one, or")


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


def test_files_that_a_system_hides_are_passed_over(raw: Path, model: Path, tmp_path: Path) -> None:
    images = shutil.copytree(raw / "test" / "images", tmp_path / "images")
    expected = find_pairs(images)
    for name in ("._turkey_1_pre_disaster.png", ".DS_Store", f"._{TEST_SCENES[0]}_post_disaster.png"):
        (images / name).write_bytes(b"\0\5\x16\7")
    assert find_pairs(images) == expected
    predict_step.main(["--model", str(model), "--images", str(images), "--out", str(tmp_path / "out")])
    assert len(tree(tmp_path / "out")) == 3 * len(TEST_SCENES)


def test_a_name_of_any_kind_is_a_pair(tmp_path: Path) -> None:
    """As in import and prepare."""
    for name in ("turkey_quake_00000012", "şehir-depremi_00000013", "flood_7"):
        for moment in ("pre", "post"):
            (tmp_path / f"{name}_{moment}_disaster.png").touch()
    found = [prefix for prefix, *_ in find_pairs(tmp_path)]
    assert found == ["flood_7_", "turkey_quake_00000012_", "şehir-depremi_00000013_"]


def test_an_image_of_another_ending_is_named(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = shutil.copytree(raw / "test" / "images", tmp_path / "images")
    (images / "flood_7_pre_disaster.JPG").touch()
    assert len(find_pairs(images)) == len(TEST_SCENES)
    assert "passed over are flood_7_pre_disaster.JPG, expected the ending .png" in capsys.readouterr().err
    half = images / f"{TEST_SCENES[1]}_post_disaster.png"
    half.rename(half.with_suffix(".PNG"))
    line = exit_line(predict_step.main, "--model", "m", "--images", images, "--out", tmp_path / "out")
    assert f"{half}: is missing, found .PNG, expected .png. Rename {half.stem}.PNG" in line
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(half.with_suffix(".PNG"), alone)
    line = exit_line(predict_step.main, "--model", "m", "--images", alone, "--out", tmp_path / "out")
    assert f"{alone}: has {half.stem}.PNG, but no image pair" in line and "Rename" in line


@pytest.mark.parametrize("size", [(1024, 1024), (1100, 1500)])
def test_an_image_larger_than_a_window_is_predicted_in_windows(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that sees no further than a pixel of its logits, so that windows change nothing."""
    rng = np.random.default_rng(0)
    pre, post = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    torch.manual_seed(0)
    predictor = Predictor(Tiny(TinySettings()))
    largest = 0
    plainly = predictor.logits

    def logits(one: torch.Tensor, other: torch.Tensor) -> DualLogits:
        nonlocal largest
        largest = max(largest, one.shape[-1], one.shape[-2])
        return plainly(one, other)

    whole = predictor(*(torch.from_numpy(image.transpose(2, 0, 1).copy())[None] for image in (pre, post)))
    monkeypatch.setattr(predictor, "logits", logits)
    found = predict_arrays(predictor, pre, post)
    assert largest == 1024
    assert len(np.unique(found)) > 1
    assert (found != whole.damage[0].numpy()).mean() < (1e-4 if max(size) > 1024 else 1e-12)  # those that are even


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
    "--tile 1024", "--overlap 256", "--bands 3,2,1", "--nodata 0", "--batch 1", "--workers 2",
    "--resample-to 0.5", "--no-features", "--resume",
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
    assert line.startswith(f"SettingsError: {unused}: is not used with {by}")

"""Scenes in windows: the plan, the blending, and that neither windows nor an interruption change the result."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, environment
from geotiff import noise, values, write_tif
from rasterio.windows import Window

from model.dual_hrnet import DualHRNet
from model.inference import Predictor, load_model, save_model
from scene.inference import Windows, WindowsError, predict_scene
from scene.raster import Sources
from scene.windows import plan, weights
from xbd.errors import InputError


@pytest.mark.parametrize("size", [(64, 64), (65, 130), (200, 333), (256, 1001), (1, 7)])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 32), (160, 64)])
def test_windows_cover_every_pixel_and_overlap_as_asked(size: tuple[int, int], tile: int, overlap: int) -> None:
    height, width = size
    seen = np.zeros((height + 31, width + 31), int)
    windows = plan(width, height, tile, overlap)
    for window in windows:
        assert window.row_off % 32 == window.col_off % 32 == 0
        assert (window.height, window.width) == (min(tile, height), min(tile, width))
        seen[window.toslices()] += 1
    assert seen[:height, :width].min() == 1
    for axis in ("row_off", "col_off"):
        starts = sorted({getattr(window, axis) for window in windows})
        assert all(start + tile - following >= overlap for start, following in itertools.pairwise(starts))


def test_weights_fall_to_the_borders_and_are_never_nothing() -> None:
    found = weights(8, 16)
    assert found.min() > 0
    assert found.argmax() in (3 * 16 + 7, 3 * 16 + 8, 4 * 16 + 7, 4 * 16 + 8)
    np.testing.assert_array_equal(found, found[::-1, ::-1])
    assert (np.diff(found[3, :8]) > 0).all()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A network that sees buildings of all grades in noise."""
    torch.manual_seed(4)
    return Predictor(DualHRNet(**SMALL))


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    images = [smooth(200, 264, seed) for seed in (1, 2)]
    paths = [write_tif(tmp_path / f"{name}.tif", image) for name, image in zip(("pre", "post"), images, strict=True)]
    return Sources((paths[0],), (paths[1],))


def smooth(height: int, width: int, seed: int) -> Any:
    """Blobs of some pixels, as images have and noise has not."""
    coarse = noise(height // 8, width // 8, seed)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def predicted(predictor: Predictor, sources: Sources, work: Path, **settings: Any) -> Any:
    chosen = {"tile": 128, "overlap": 64, "workers": 0, **settings}
    return values(predict_scene(predictor, "m", sources, work, Windows(**chosen)))


def test_a_scene_of_one_tile_is_what_the_network_says(predictor: Predictor, sources: Sources, tmp_path: Path) -> None:
    bands = predicted(predictor, sources, tmp_path / "work", tile=512)
    images = [torch.from_numpy(values(path))[None] for path in (*sources.pre, *sources.post)]
    prediction, probabilities = predictor.probabilities(*images)
    damage, building = prediction.damage[0].numpy(), probabilities.building[0].numpy()
    np.testing.assert_array_equal(bands[0], damage)
    assert len(np.unique(damage)) > 2
    grades = probabilities.damage[0].numpy()
    chosen = np.take_along_axis(grades, np.maximum(damage, 1)[None].astype(int) - 1, axis=0)[0]
    confidence = np.where(damage > 0, building * chosen, 1 - building)
    assert np.abs(bands[1] - 255 * confidence).max() <= 0.5001
    assert np.abs(bands[2:] - 255 * grades).max() <= 0.5001


def test_blended_tiles_are_the_weighted_mean_of_their_logits(
    predictor: Predictor, sources: Sources, tmp_path: Path
) -> None:
    """Against a sum over the whole scene, which no scene of responders would fit."""
    bands = predicted(predictor, sources, tmp_path / "work")
    images = [torch.from_numpy(values(path))[None] for path in (*sources.pre, *sources.post)]
    images = [torch.nn.functional.pad(image, (0, 31, 0, 31)) for image in images]  # as far as windows may reach
    total, weight = torch.zeros(1, 6, 57, 73), torch.zeros(57, 73)
    for window in plan(264, 200, 128, 64):
        rows, columns = window.toslices()
        logits = torch.cat(list(predictor.logits(*(image[..., rows, columns] for image in images))), dim=1)
        share = torch.from_numpy(weights(32, 32))
        at = (slice(rows.start // 4, rows.stop // 4), slice(columns.start // 4, columns.stop // 4))
        total[(..., *at)] += logits * share
        weight[at] += share
    full = torch.nn.functional.interpolate(
        (total / weight)[..., :50, :66], (200, 264), mode="bilinear", align_corners=False
    )[0].numpy()
    damage = np.where(full[1] > full[0], full[2:].argmax(0) + 1, 0)
    assert (bands[0] != damage).mean() < 1e-4  # only where rounding decides


@pytest.mark.parametrize("settings", [{"batch": 2}, {"batch": 3}, {"workers": 2}], ids=str)
def test_neither_batches_nor_workers_change_a_bit(
    settings: dict[str, int], predictor: Predictor, sources: Sources, tmp_path: Path
) -> None:
    expected = predicted(predictor, sources, tmp_path / "plain")
    np.testing.assert_array_equal(predicted(predictor, sources, tmp_path / "other", **settings), expected)


def test_tiles_without_data_are_not_computed(predictor: Predictor, tmp_path: Path) -> None:
    image = smooth(200, 264, 1)
    image[:, :, 130:] = 0
    path = write_tif(tmp_path / "pre.tif", image, nodata=0)
    counted = Counted(predictor)
    bands = predicted(counted, Sources((path,), (path,)), tmp_path / "work", overlap=0)
    assert (bands[0, :, 130:] == 255).all() and (bands[1:, :, 130:] == 0).all()
    assert (bands[0, :, :130] < 255).all()
    tiles = [window for window in plan(264, 200, 128, 0) if window.col_off < 130]
    assert counted.calls == len(tiles) < len(plan(264, 200, 128, 0))


class Counted(Predictor):
    """Counts the tiles that are computed."""

    def __init__(self, predictor: Predictor) -> None:
        self.device, self.network, self.calls = predictor.device, predictor.network, 0

    def logits(self, pre: Any, post: Any) -> Any:
        self.calls += len(pre)
        return super().logits(pre, post)


KILLED = """
import sys
from pathlib import Path
from model.inference import Predictor, load_model
from scene.inference import Windows, predict_scene
from scene.raster import Sources
model, pre, post, work = map(Path, sys.argv[1:])
predict_scene(Predictor(load_model(model)), "m", Sources((pre,), (post,)), work, Windows(128, 64, 1, 0))
"""


def test_a_killed_run_goes_on_with_the_tiles_that_are_left(
    predictor: Predictor, sources: Sources, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    save_model(DualHRNet(**SMALL), tmp_path / "model")
    expected = predicted(predictor, sources, tmp_path / "plain")
    work = tmp_path / "work"
    command = [sys.executable, "-c", KILLED, tmp_path / "model", *sources.pre, *sources.post, work]
    process = subprocess.Popen([str(word) for word in command], env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(work.glob("tile_*.npz"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done, all_tiles = len(list(work.glob("tile_*.npz"))), len(plan(264, 200, 128, 64))
    assert not (work / "classes.tif").exists() or done == all_tiles
    counted = Counted(Predictor(load_model(tmp_path / "model")))
    again = predict_scene(counted, "m", sources, work, Windows(128, 64, 1, 0), resume=True)
    assert counted.calls == all_tiles - done
    np.testing.assert_array_equal(values(again), expected)


@pytest.mark.parametrize("change", ["model", "image", "overlap", "no resume"])
def test_tiles_of_something_else_are_computed_anew(
    change: str, predictor: Predictor, sources: Sources, tmp_path: Path
) -> None:
    work, windows = tmp_path / "work", Windows(128, 64, 1, 0)
    predict_scene(predictor, "m", sources, work, windows)
    if change == "image":
        write_tif(sources.post[0], smooth(200, 264, 9))
    counted = Counted(predictor)
    other = Windows(128, 32, 1, 0) if change == "overlap" else windows
    identity = "other" if change == "model" else "m"
    predict_scene(counted, identity, sources, work, other, resume=change != "no resume")
    assert counted.calls == len(plan(264, 200, 128, other.overlap))
    json.loads((work / "plan.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("settings", [{"tile": 130}, {"overlap": 600}, {"overlap": 36}, {"batch": 0}, {"workers": -1}])
def test_windows_that_cannot_be_are_one_line(settings: dict[str, int]) -> None:
    with pytest.raises(WindowsError, match=f"{next(iter(settings.values()))}.*: expected"):
        Windows(**settings)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_ends_in_one_line_wherever_it_is_read(
    workers: int, predictor: Predictor, sources: Sources, tmp_path: Path
) -> None:
    path = write_tif(tmp_path / "bad.tif", noise(200, 264), compress="deflate")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"bad\.tif: is (damaged or truncated|no raster)") as caught:
        predicted(predictor, Sources(sources.pre, (path,)), tmp_path / "work", workers=workers)
    assert "\n" not in str(caught.value)


def test_windows_are_whole_pixels() -> None:
    assert plan(10, 10, 64, 0) == [Window(0, 0, 10, 10)]

"""The features that predict keeps beside a map: those of the network itself, to the last bit however it was run."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from components import predict
from imagery import mapping
from imagery.give.names import FEATURES
from imagery.give.outputs import FILES, write_outputs
from imagery.give.writing import OutputError
from imagery.predict.inference import identity_of
from imagery.sampling.judgements_file import JUDGE
from model.buildings import separate
from model.dual_hrnet import DualHRNet
from model.inference import Predictor, load_model, normalize, save_model
from model.networks.siamese_unet import SiameseUNet, SiameseUNetSettings
from tests.conftest import SMALL, tree
from tests.imagery.geotiff import noise, values, write_tif

BUILDS: dict[str, Callable[[], Any]] = {
    "dual-hrnet": lambda: DualHRNet(**SMALL),
    "siamese-unet": lambda: SiameseUNet(SiameseUNetSettings(width=8, blocks=(1, 1, 1, 1), decoder=8)),
}
WINDOWS = ["--tile", "128", "--overlap", "32"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    blobs = [noise(20, 28, seed).repeat(8, axis=1).repeat(8, axis=2) for seed in (1, 2)]
    return [write_tif(folder / f"{name}.tif", image) for name, image in zip(("pre", "post"), blobs, strict=True)]


@pytest.fixture(scope="module", params=BUILDS)
def model(request: pytest.FixtureRequest, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes a fifth of the images for buildings."""
    folder = tmp_path_factory.mktemp("network") / "model"
    torch.manual_seed(4)
    network: Any = BUILDS[request.param]().eval()
    with torch.no_grad():
        logits = network(*(normalize(torch.from_numpy(values(path))[None]) for path in images)).localization[0]
        last = network.loc_net.last_layer[3] if request.param == "dual-hrnet" else network.localization[1]
        last.bias[1] -= torch.quantile(logits[1] - logits[0], 0.8)
    save_model(network, folder)
    return folder


@pytest.fixture(scope="module")
def windows(model: Path, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map made of windows that overlap."""
    out = tmp_path_factory.mktemp("map") / "out"
    run(model, images, out, *WINDOWS)
    return out


def run(model: Path, images: list[Path], out: Path, *options: str) -> None:
    words = ["--model", str(model), "--pre", str(images[0]), "--post", str(images[1]), "--out", str(out)]
    predict.main([*words, "--align", "off", *options])


def test_features_are_the_mean_of_the_networks_own_over_each_building(
    model: Path, images: list[Path], tmp_path: Path
) -> None:
    """In one window, by torch, with the network as it is saved."""
    run(model, images, tmp_path / "out")
    damage = values(tmp_path / "out" / "damage.tif")[0]
    labels = separate(damage)
    pre, post = (normalize(torch.from_numpy(values(path))[None]) for path in images)
    with torch.inference_mode():
        logits, maps = load_model(model).with_features(pre, post)
        quarter = [torch.nn.functional.interpolate(part, maps[0].shape[2:], mode="bilinear") for part in maps]
        full = torch.nn.functional.interpolate(logits.damage, damage.shape, mode="bilinear")
    pixels = torch.cat(quarter, 1)[0].numpy().repeat(4, axis=1).repeat(4, axis=2)
    grades = full.softmax(1)[0].numpy()
    rows = pd.read_parquet(tmp_path / "out" / FEATURES)
    assert len(rows) == labels.max() > 2
    for place in range(len(rows)):
        inside = labels == place + 1
        expected = pixels[:, inside].mean(1)
        np.testing.assert_allclose(rows["features"][place], expected, rtol=2e-3, atol=2e-3 * pixels.std())
        sums = [
            rows[f"probability_{name}"][place] for name in ("no_damage", "minor_damage", "major_damage", "destroyed")
        ]
        assert rows["pixels"][place] == inside.sum()
        np.testing.assert_allclose(sums, grades[:, inside].sum(1), atol=inside.sum() / 400)


def test_a_map_says_which_model_and_which_buildings_its_features_are_of(model: Path, windows: Path) -> None:
    facts = json.loads(pq.read_metadata(windows / FEATURES).metadata[b"dual-hrnet"])
    assert facts["model"] == identity_of(model)
    assert facts["map"]["sha256"] == hashlib.sha256((windows / "buildings.geojson").read_bytes()).hexdigest()
    channels = [part["channels"] for part in facts["features"]]
    assert channels == ([4, 8, 16, 32] if len(channels) > 1 else [16])
    features = json.loads((windows / "buildings.geojson").read_text())["features"]
    assert pd.read_parquet(windows / FEATURES)["id"].tolist() == [feature["id"] for feature in features]


@pytest.mark.parametrize("options", [["--batch", "3"], ["--workers", "3"], ["--workers", "0", "--batch", "2"]], ids=str)
def test_neither_batches_nor_workers_change_a_byte(
    options: list[str], model: Path, images: list[Path], windows: Path, tmp_path: Path
) -> None:
    run(model, images, tmp_path / "out", *WINDOWS, *options)
    assert tree(tmp_path / "out")[FEATURES] == tree(windows)[FEATURES]


def test_a_run_that_goes_on_gives_the_same_bytes_and_leaves_no_tiles(
    model: Path, images: list[Path], windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise OutputError("the disk is full")

    monkeypatch.setattr(mapping, "write_outputs", fail)
    with pytest.raises(SystemExit, match="the disk is full"):
        run(model, images, tmp_path / "out", *WINDOWS)
    tiles = sorted(tmp_path.glob(".*/tile_*.npz"))
    assert len(tiles) == 4
    tiles[2].unlink()
    computed, with_features = [], Predictor.with_features

    def count(self: Predictor, pre: torch.Tensor, post: torch.Tensor) -> Any:
        computed.append(len(pre))
        return with_features(self, pre, post)

    monkeypatch.setattr(Predictor, "with_features", count)
    monkeypatch.setattr(mapping, "write_outputs", write_outputs)
    run(model, images, tmp_path / "out", *WINDOWS, "--resume")
    assert computed == [1]
    assert tree(tmp_path / "out")[FEATURES] == tree(windows)[FEATURES]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_features_nothing_is_kept_of_them_and_the_map_is_the_same(
    model: Path, images: list[Path], windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[set[str]] = []

    def look(classes: Path, *given: Any, **more: Any) -> Any:
        held.extend(set(np.load(path)) for path in classes.parent.glob("tile_*.npz"))
        return write_outputs(classes, *given, **more)

    monkeypatch.setattr(mapping, "write_outputs", look)
    run(model, images, tmp_path / "out", *WINDOWS, "--no-features")
    assert held == [{"logits", "valid", "width"}] * 4
    made, expected = tree(tmp_path / "out"), tree(windows)
    assert set(made) == set(FILES) - {FEATURES, JUDGE}
    for name in ("damage.tif", "confidence.tif", "buildings.geojson", "summary.csv"):
        assert made[name] == expected[name]
    run(model, images, tmp_path / "out", *WINDOWS)  # over a map without
    assert tree(tmp_path / "out")[FEATURES] == expected[FEATURES]

"""A real network, its map of given buildings, and judgements of these that its features could have told."""

import json
from pathlib import Path
from typing import NamedTuple

import geopandas
import numpy as np
import pandas as pd
import shapely
import torch

from components import assess, predict
from components.tracking import registry
from imagery.find.ground import place
from imagery.sampling.judgements_file import read_draw
from model.calibration.domain import Domain, to_tensors
from model.dual_hrnet import DualHRNet
from model.inference import Origin, save_model
from tests.conftest import SMALL
from tests.imagery.assessing.maps import Made, write_judgements
from tests.imagery.geotiff import ORIGIN, UTM, noise, write_tif

NETWORK = "network-of-events"  # the registered model that the maps are made with
JUDGED = 40


class Afternoon(NamedTuple):
    """folder: with network, pre.tif, post.tif, buildings.geojson and the map; made: the map and its truth; judgements:
    the first JUDGED of its order.
    """

    folder: Path
    made: Made
    judgements: Path


def spend(folder: Path) -> Afternoon:
    """Registers the network, makes a map by it, and judges its buildings."""
    torch.manual_seed(4)
    save_model(DualHRNet(**SMALL), folder / "network", Origin("real", ("palu-tsunami",)), domain=to_tensors(_domain()))
    registry.register_files(NETWORK, folder / "network", [], {registry.CONTENT_HASH: "network"}, {})
    for seed, name in enumerate(("pre", "post"), 1):
        blobs = noise(20, 28, seed).repeat(8, axis=1).repeat(8, axis=2)
        write_tif(folder / f"{name}.tif", blobs)
    boxes = [shapely.box(x, y, x + 8, y + 8) for y in range(2, 150, 11) for x in range(2, 215, 11)]
    places = place(np.array(boxes, dtype=object), ORIGIN)
    geopandas.GeoDataFrame(geometry=places, crs=UTM).to_file(folder / "buildings.geojson")
    make_map(folder, f"models:/{NETWORK}/1", folder / "map")
    features = np.stack(pd.read_parquet(folder / "map" / "features.parquet")["features"].tolist()).astype(np.float64)
    standard = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    first = np.linalg.svd(standard, full_matrices=False)[0][:, 0]
    truth = np.select([first < np.quantile(first, 0.4), first < np.quantile(first, 0.7)], [1, 3], 4)
    made = Made(folder / "map", truth, read_draw(folder / "map" / "judge.json"))
    return Afternoon(folder, made, write_judgements(folder / "mine.geojson", made, range(JUDGED)))


def _domain() -> Domain:
    """Scenes of colours and features that no imagery has."""
    generator = np.random.default_rng(0)
    features, colours = (generator.normal(0, 1, (6, count)).astype(np.float32) for count in (15 * SMALL["width"], 12))
    return Domain(features, colours, np.full(6, 0.5, np.float32), np.full(6, np.nan, np.float32))


def make_map(folder: Path, model: str | Path, out: Path, *options: str) -> None:
    words = ["--model", str(model), "--pre", str(folder / "pre.tif"), "--post", str(folder / "post.tif")]
    more = ["--footprints", str(folder / "buildings.geojson"), "--align", "off", "--workers", "0"]
    predict.main([*words, *more, "--out", str(out), *options])


def assess_map(given: Afternoon, out: Path, *options: str | Path, judgements: Path | None = None) -> None:
    words = ["--map", given.made.folder, "--judgements", judgements or given.judgements, "--out", out, *options]
    assess.main([str(word) for word in words])


def buildings(folder: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_file(folder / "buildings.geojson")


def facts(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["scene"]
    return found

"""The compiled graph of a map, run whole on this machine by Kubeflow's own local runner."""

import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from mlflow.tracking import MlflowClient

import pipeline
from components import predict
from components.kubeflow.graphs.mapping import MapGraph
from components.kubeflow.mapping import tasks
from components.params import load_params
from imagery.give.outputs import FILES
from tests.components.conftest import network
from tests.components.kubeflow.references import Reference
from tests.conftest import environment, tree
from tests.imagery.geotiff import UTM, values
from tests.imagery.shards.long_images import long_images
from tests.paths import ROOT
from tests.stores import ready_store

__all__ = ["network"]
pytestmark = pytest.mark.endurance
READ = ["--tile", "256", "--overlap", "64", "--align", "off", "--workers", "0"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(network: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of one machine."""
    out = tmp_path_factory.mktemp("whole") / "map"
    pre, post = (sorted(map(str, (images / name).glob("*.tif"))) for name in ("pre", "post"))
    predict.main(["--model", str(network), "--out", str(out), *READ, "--pre", *pre, "--post", *post])
    return out


def asked(network: Path, images: Path, shards: int) -> list[str]:
    words = ["--model", str(network), "--pre", str(images / "pre"), "--post", str(images / "post"), *READ]
    return [*words, "--shards", str(shards), "--deliver-to", "delivered", "--params", str(ROOT / "params.yaml")]


def run_map(cwd: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """`pipeline.py run map`, whose MLflow is in the working directory."""
    ready_store(cwd)
    command = [sys.executable, str(ROOT / "pipeline.py"), "run", "map", *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=900)


def outputs(cwd: Path, task: str) -> list[dict[str, Any]]:
    """What the tasks of a name told Kubeflow, in the order of their runs."""
    found = sorted(cwd.glob(f"output/artifacts/*/**/{task}*/executor_output.json"), key=os.path.getmtime)
    return [json.loads(path.read_text()) for path in found]


def run_of(cwd: Path) -> tuple[dict[str, str], dict[str, float]]:
    client = MlflowClient(f"sqlite:///{cwd}/mlflow.db")
    [run] = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return run.data.tags, run.data.metrics


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_the_map_of_the_graph_is_that_of_one_machine(
    shards: int, network: Path, images: Path, whole: Path, tmp_path: Path
) -> None:
    result = run_map(tmp_path, asked(network, images, shards))
    assert result.returncode == 0, result.stdout + result.stderr
    made = tree(tmp_path / "delivered")
    assert set(made) == {*FILES, "stac.json"}
    same = {"damage.tif", "confidence.tif", "buildings.geojson", "features.parquet", "judge.json", "summary.csv"}
    assert {name for name in same if made[name] != (whole / name).read_bytes()} == set()
    np.testing.assert_array_equal(values(tmp_path / "delivered" / "damage.tif"), values(whole / "damage.tif"))
    [folder] = (tmp_path / "output" / "pipeline" / "maps").iterdir()
    assert (
        len(list((folder / "shards").iterdir()))
        == shards
        == len(outputs(tmp_path, "plan")[0]["parameterValues"]["Output"])
    )
    tags, metrics = run_of(tmp_path)
    assert (tags["state"], tags["shards"]) == ("complete", str(shards))
    assert metrics["buildings"] == len(json.loads(made["buildings.geojson"])["features"]) > 0
    assert outputs(tmp_path, "deliver")[0]["parameterValues"] == {"Output": "complete"}


def test_known_buildings_are_graded_as_on_one_machine(network: Path, images: Path, tmp_path: Path) -> None:
    boxes = [shapely.box(left - 9, 20, left + 9, 40) for left in range(30, 4200, 90)]  # some lie over borders of shards
    footprints = tmp_path / "footprints.geojson"
    placed = [shapely.transform(box, lambda points: points * (0.5, -0.5) + (500_000, 4_000_000)) for box in boxes]
    columns = {"osm_id": range(len(placed))}
    geopandas.GeoDataFrame(columns, geometry=placed, crs=UTM).to_crs("EPSG:4326").to_file(footprints)
    more = ["--footprints", str(footprints)]
    pre, post = (sorted(map(str, (images / name).glob("*.tif"))) for name in ("pre", "post"))
    whole = tmp_path / "whole"
    predict.main(["--model", str(network), "--out", str(whole), *READ, *more, "--pre", *pre, "--post", *post])
    result = run_map(tmp_path, [*asked(network, images, 3), *more])
    assert result.returncode == 0, result.stdout + result.stderr
    same = {"damage.tif", "buildings.geojson", "features.parquet", "judge.json", "summary.csv"}
    assert filecmp.cmpfiles(tmp_path / "delivered", whole, same, shallow=False)[1:] == ([], [])
    assert len(json.loads((whole / "buildings.geojson").read_text())["features"]) == len(boxes)


def test_a_shard_that_dies_three_times_makes_a_partial_map_and_a_later_run_the_whole_one(
    network: Path, images: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = asked(network, images, 2)
    given = MapGraph().values(load_params(ROOT / "params.yaml"), pipeline._parse(["run", *words], "map"))
    options = {"align": "off", "features": True, "views": 1, "event": None, "footprints": None}
    settings = [given.get(name, {}) for name in ("reading", "windows")]
    plan = Reference(str(tmp_path / "plan"))
    tasks.plan(
        given["model"], given["pre"], given["post"], "output/pipeline", "delivered", 2, settings[0], settings[1], "",
        options, plan,
    )  # fmt: skip
    shards = Path(plan.metadata["location"]).parent / "shards"
    shards.mkdir()
    (shards / "shard-00001").write_text("in the way")  # a file where its folder is to be
    partial = run_map(tmp_path, words)
    assert partial.returncode == 3, partial.stdout + partial.stderr
    why = f"InputError: {shards}/shard-00001: is a file, expected a folder to write to."
    assert f"attempt 3 of 3 failed: {why}" in partial.stdout + partial.stderr
    assert f"left out: shard-00001: {shards}/shard-00001: it failed 3 times: {why}" in partial.stdout
    scene = json.loads((tmp_path / "delivered" / "summary.json").read_text())["scene"]
    assert scene["state"] == "partial" and [each["what"] for each in scene["left_out"]] == ["shard-00001"]
    item = json.loads((tmp_path / "delivered" / "stac.json").read_text())
    assert item["properties"]["dual-hrnet:state"] == "partial"
    assert outputs(tmp_path, "deliver")[-1]["parameterValues"] == {"Output": "partial"}
    assert run_of(tmp_path)[0]["state"] == "partial"
    (shards / "shard-00001").unlink()
    again = run_map(tmp_path, words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "shard-00000: is there, of this plan" in again.stdout + again.stderr
    made = tree(tmp_path / "delivered")
    assert {name for name in ("damage.tif", "buildings.geojson") if made[name] != (whole / name).read_bytes()} == set()

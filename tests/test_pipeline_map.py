"""The compiled graph of a map: its steps, its parameters, what each task tells the cluster, and its command line."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from components.kubeflow.graphs.declaring import SCRATCH
from components.kubeflow.graphs.mapping import MapGraph
from components.kubeflow.mapping.steps import NEEDS
from components.params import load_params
from model.device import NEEDS_GPU
from tests.conftest import ROOT, exit_line

SIZES = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["cluster"]["steps"]
IMAGES = ("--pre", "s3://in/before", "s3://in/more/a.tif", "--post", "s3://in/after")
PLACES = ("--deliver-to", "s3://out/event", "--root", "s3://runs/maps")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The compiled graph, all of its places given, and what it says to Kubernetes."""
    out = tmp_path_factory.mktemp("graph") / "map.yaml"
    more = ["--shards", "3", "--resample-to", "0.5", "--bands", "auto", "3,2,1", "--tile", "512", "--no-features"]
    more += ["--footprints", "s3://in/buildings.gpkg"]
    pipeline.main(["compile", "map", *IMAGES, *PLACES, *more, "--out", str(out)])
    whole, platform = yaml.safe_load_all(out.read_text(encoding="utf-8"))
    return whole, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks_of(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    dags = [whole["root"]["dag"], *(part["dag"] for part in whole["components"].values() if "dag" in part)]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


def defaults(whole: dict[str, Any]) -> dict[str, Any]:
    return {name: known.get("defaultValue") for name, known in whole["root"]["inputDefinitions"]["parameters"].items()}


def test_the_steps_follow_each_other_and_shards_are_predicted_side_by_side(graph: Any) -> None:
    whole, _ = graph
    steps = tasks_of(whole)
    assert set(steps) == {*NEEDS, "for-loop-1"}
    assert set(whole["root"]["dag"]["tasks"]) == {"plan", "for-loop-1", "merge", "deliver"}
    loop = whole["root"]["dag"]["tasks"]["for-loop-1"]
    assert loop["taskInfo"]["name"] == "each-shard"
    assert loop["inputs"]["parameters"]["pipelinechannel--plan-Output"]["taskOutputParameter"]["producerTask"] == "plan"
    assert steps["merge"]["inputs"]["artifacts"]["shards"]["taskOutputArtifact"]["producerTask"] == "for-loop-1"
    assert steps["deliver"]["inputs"]["artifacts"]["merged"]["taskOutputArtifact"]["producerTask"] == "merge"


def test_what_is_given_is_the_default_of_its_field_and_start_can_be_pressed(graph: Any) -> None:
    found = defaults(graph[0])
    assert None not in found.values()
    assert found["pre"] == ["s3://in/before", "s3://in/more/a.tif"] and found["post"] == ["s3://in/after"]
    assert (found["deliver_to"], found["root"], found["shards"]) == ("s3://out/event", "s3://runs/maps", 3)
    assert found["reading"] == {"resample_to": 0.5, "bands": ["null", [3, 2, 1]]}
    assert (found["windows"], found["features"]) == ({"tile": 512}, False)
    assert found["footprints"] == "s3://in/buildings.gpkg"
    assert found["model"] == "models:/dual-hrnet@production"
    assert set(found["step_sizes"]) == set(NEEDS)


def test_every_parameter_has_a_meaning_and_the_places_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.main(["compile", "map", "--out", str(tmp_path / "map.yaml")])
    assert "to be filled in for each run: pre, post, deliver_to, root." in capsys.readouterr().out
    whole = next(yaml.safe_load_all((tmp_path / "map.yaml").read_text(encoding="utf-8")))
    found = defaults(whole)
    assert {name for name, value in found.items() if value is None} == {"pre", "post", "deliver_to", "root"}
    assert set(found) == set(MapGraph.parameters)
    for name, known in whole["root"]["inputDefinitions"]["parameters"].items():
        assert f"- {name}: {known['description']}" in whole["pipelineInfo"]["description"]


def test_each_task_has_image_size_disk_and_attempts_and_none_comes_from_the_cache(graph: Any) -> None:
    whole, platform = graph
    sizes = defaults(whole)["step_sizes"]
    for step in NEEDS:
        task = tasks_of(whole)[step]
        container = whole["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        assert container["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"
        assert container["resources"].get("accelerator", {}).get("resourceCount") == (
            "1" if step == "predict" else None
        )
        assert container.get("env", []) == ([{"name": NEEDS_GPU, "value": "1"}] if step == "predict" else [])
        for part in ("cpu", "memory"):
            selector = f'parseJson(string_value)["{step}"]["{part}"]'
            given = task["inputs"]["parameters"][f"pipelinechannel--step_sizes-{part}"]
            assert given["parameterExpressionSelector"] == selector
            assert sizes[step][part] == str(SIZES[step][part])
        assert task["retryPolicy"]["maxRetryCount"] == 4
        assert not task["cachingOptions"].get("enableCache", False)
        settings = platform[f"exec-{step}"]
        assert [(e["mountPath"], e["sizeLimit"]) for e in settings["emptyDirMounts"]] == [
            (SCRATCH, SIZES[step]["scratch"])
        ]
        assert {secret["secretName"] for secret in settings["secretAsEnv"]} == {"dual-hrnet-s3", "dual-hrnet-mlflow"}
        assert settings["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"].endswith("node_selector")
        assert settings["tolerations"][0]["tolerationJson"]["componentInputParameter"].endswith("tolerations")


def test_a_file_of_parameters_from_before_takes_the_sizes_of_params_yaml(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["cluster"]["steps"] = {step: size for step, size in SIZES.items() if step not in NEEDS}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    load_params(tmp_path / "params.yaml")
    pipeline.main(["compile", "map", "--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "map.yaml")])
    found = defaults(next(yaml.safe_load_all((tmp_path / "map.yaml").read_text(encoding="utf-8"))))
    assert found["step_sizes"]["predict"] == {"cpu": SIZES["predict"]["cpu"], "memory": SIZES["predict"]["memory"]}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--pre", "before.tif"], "KubeflowError: --pre before.tif: is no place that pods see"),
        (["--deliver-to", "map"], "KubeflowError: --deliver-to map: is no place that pods see"),
        (["--model", "output/model"], "KubeflowError: --model output/model: is no place that pods see"),
        (["--footprints", "osm.gpkg"], "KubeflowError: --footprints osm.gpkg: is no place that pods see"),
        (["--areas", "areas.gpkg"], "KubeflowError: --areas areas.gpkg: is no place that pods see"),
        (["--tile", "100"], "SettingsError: --tile, --overlap: found 100 and 256, expected multiples of 32"),
        (["--cell", "9", "--areas", "s3://in/areas.gpkg"], "SettingsError: --cell: is not used with --areas."),
        (["--range", "0", "9", "--percentiles", "1", "2"], "SettingsError: --percentiles: is not used with --range."),
    ],
)
def test_what_pods_do_not_see_or_cannot_use_is_one_line(tmp_path: Path, words: list[str], expected: str) -> None:
    line = exit_line(pipeline.main, "compile", "map", *words, "--out", str(tmp_path / "map.yaml"))
    assert line.startswith(expected)
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_a_cluster_needs_its_images(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pipeline.main(["submit", "map", "--host", "http://nobody.invalid"])
    said = capsys.readouterr().err
    assert "the following arguments are required: " in said and re.search("--pre, --post, --deliver-to", said)


def test_without_a_name_it_is_the_graph_of_a_training(tmp_path: Path) -> None:
    for words, name in (([], "dual-hrnet"), (["training"], "dual-hrnet"), (["map"], "dual-hrnet-map")):
        out = tmp_path / "graph.yaml"
        pipeline.main(["compile", *words, "--out", str(out)])
        assert next(yaml.safe_load_all(out.read_text(encoding="utf-8")))["pipelineInfo"]["name"] == name


def test_the_values_of_a_run_are_parameters_of_the_graph() -> None:
    given = argparse.Namespace(command="run", pre=["a"], post=["b"], deliver_to="c", overlap=64, nodata=[None, 0.0])
    values = MapGraph().values(load_params(ROOT / "params.yaml"), given)
    assert values == {
        "pre": ["a"], "post": ["b"], "deliver_to": "c", "reading": {"nodata": ["null", 0.0]}, "windows": {"overlap": 64}
    }  # fmt: skip
    assert set(values) <= set(MapGraph.parameters)

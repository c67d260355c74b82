"""The form of a run in Kubeflow's UI, as the compiled graph makes it: what a person sees, and need not fill in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from base.errors import InputError
from components.kubeflow.graphs.training import TrainingGraph
from components.kubeflow.sections import SECTIONS, params_of
from components.params import load_params
from tests.conftest import ROOT, exit_line

MD5 = "0123456789abcdef0123456789abcdef.dir"
PLACES = ("--root", "s3://bucket/runs", "--data-remote", "s3://bucket/xbd", "--raw-version", MD5)


def compiled(folder: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The graph, and what it says to Kubernetes."""
    pipeline.main(["compile", "--out", str(folder / "graph.yaml"), *options])
    whole, platform = yaml.safe_load_all((folder / "graph.yaml").read_text(encoding="utf-8"))
    return whole, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def fields(whole: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the graph and their defaults; None where a person has to fill one in."""
    parameters = whole["root"]["inputDefinitions"]["parameters"]
    assert all(known.get("isOptional", False) == ("defaultValue" in known) for known in parameters.values())
    return {name: known.get("defaultValue") for name, known in parameters.items()}


def test_who_uploads_the_file_presses_start_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--mlflow-uri", "http://mlflow:5000", "--mlflow-ui", "https://mlflow.example.org", "--auto-promote")
    found = fields(compiled(tmp_path, *PLACES, *more, "--s3-endpoint", "http://s3:9000")[0])
    assert None not in found.values()
    assert {name: found[name] for name in ("raw_version", "data_remote", "root", "mlflow_uri", "mlflow_ui")} == {
        "raw_version": MD5,
        "data_remote": "s3://bucket/xbd",
        "root": "s3://bucket/runs",
        "mlflow_uri": "http://mlflow:5000",
        "mlflow_ui": "https://mlflow.example.org",
    }
    assert (found["s3_endpoint"], found["auto_promote"]) == ("http://s3:9000", True)
    assert "to be filled in" not in capsys.readouterr().out


def test_what_is_not_given_stays_required_and_compile_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fields(compiled(tmp_path, *PLACES[:2])[0])
    assert [name for name, value in found.items() if value is None] == ["data_remote", "raw_version"]
    assert "to be filled in for each run: raw_version, data_remote." in capsys.readouterr().out


def test_a_parameter_is_there_once_and_none_without_a_meaning(tmp_path: Path) -> None:
    found = fields(compiled(tmp_path)[0])
    assert set(found) == set(TrainingGraph.parameters)
    twice = set(found) & {key for value in found.values() if isinstance(value, dict) for key in value}
    # The sections of a step have the step's name, and so have the sizes.
    assert twice - set(found["step_sizes"]) == set()
    assert "processes" not in found
    assert not {"steps", "node_selector", "tolerations", "image_pull_secrets"} & set(found["cluster"])


def test_no_field_shows_null_and_what_is_missing_is_null(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cluster: {device_resource: null, service_account: null}\ntrain: {class_weights: null}\n")
    found = fields(compiled(tmp_path, *PLACES, "--recipe", str(recipe))[0])
    assert not re.search("null|None", json.dumps(found))
    sections = {name: found[name] for name in SECTIONS}
    expected = load_params(ROOT / "params.yaml", recipe)
    assert params_of(sections).model_dump(exclude={"data", "sample"}) == expected.model_dump(exclude={"data", "sample"})
    written = {**sections["cluster"], "device_resource": "null"}
    assert params_of({"cluster": written}).cluster.device_resource is None


def test_a_key_that_may_not_be_null_is_missed(tmp_path: Path) -> None:
    section = fields(compiled(tmp_path)[0])["promote"]
    del section["minimum_score"]
    with pytest.raises(InputError, match=r"promote\.minimum_score: found None"):
        params_of({"promote": section})


def test_groups_and_parameters_have_names_that_say_what_they_are(tmp_path: Path) -> None:
    whole, _ = compiled(tmp_path)
    dags = [whole["root"]["dag"], *(part["dag"] for part in whole["components"].values() if "dag" in part)]
    shown = {task["taskInfo"]["name"] for dag in dags for task in dag["tasks"].values()}
    assert not [name for name in shown if re.search(r"-\d+$", name)]
    assert {"steps", "each-source", "if-auto-promote"} <= shown
    text = whole["pipelineInfo"]["description"]
    for name, known in whole["root"]["inputDefinitions"]["parameters"].items():
        assert f"- {name}: {known['description']}" in text
    assert "params.yaml" in text


def test_the_small_recipe_fits_small_nodes(tmp_path: Path) -> None:
    whole, platform = compiled(tmp_path, "--recipe", str(ROOT / "recipes" / "small.yaml"))
    for step, size in fields(whole)["step_sizes"].items():
        assert float(size["cpu"].replace("m", "e-3")) <= 1, step
        assert int(size["memory"].replace("Gi", "000").removesuffix("Mi")) <= 4000, step
        assert int(platform[f"exec-{step}"]["emptyDirMounts"][0]["sizeLimit"].removesuffix("Gi")) <= 20
        assert "accelerator" not in whole["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"]


def test_secrets_of_the_registry_reach_every_pod(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cluster: {image_pull_secrets: [registry, other]}\n")
    whole, platform = compiled(tmp_path, "--recipe", str(recipe))
    for step, settings in platform.items():
        assert [secret["secretName"] for secret in settings["imagePullSecret"]] == ["registry", "other"], step
    inputs = whole["components"]["comp-exit-handler-1"]["dag"]["tasks"]["train"]["inputs"]["parameters"]
    assert inputs["image_pull_secrets"] == {"runtimeValue": {"constant": ["registry", "other"]}}  # and the job's pods


def test_a_size_that_is_none_is_told_by_its_step(tmp_path: Path) -> None:
    for size, expected in {
        "cpu: 0": "found '0'",
        "cpu: 4 cores": "found '4 cores'",
        "memory: 8 GB": "found '8 GB'",
    }.items():
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"cluster: {{steps: {{fetch: {{{size}}}}}}}\n")
        line = exit_line(pipeline.main, "compile", "--recipe", recipe, "--out", tmp_path / "graph.yaml")
        assert f"cluster.steps.fetch.{size.split(':')[0]}: {expected}" in line
    found = fields(compiled(tmp_path)[0])
    for written, expected in ({"cpu": 0.0, "memory": "8Gi"}, r"fetch\.cpu: found '0'"), ("8", r"fetch: found '8'"):
        edited = {**found["cluster"], "steps": {**found["step_sizes"], "fetch": written}}
        with pytest.raises(InputError, match=rf"the parameters of the pipeline: cluster\.steps\.{expected}"):
            params_of({"cluster": edited})
    del found["step_sizes"]["finish"]
    with pytest.raises(InputError, match=r"cluster\.steps: .*finish have none"):
        params_of({"cluster": {**found["cluster"], "steps": found["step_sizes"]}})


def test_a_place_that_pods_do_not_see_is_refused(tmp_path: Path) -> None:
    line = exit_line(pipeline.main, "compile", "--root", "output/pipeline", "--out", tmp_path / "graph.yaml")
    assert line.startswith("KubeflowError: --root output/pipeline: is no place that pods see")
    assert not (tmp_path / "graph.yaml").exists()


@pytest.mark.parametrize("command", ["compile", "submit", "schedule"])
def test_what_no_cluster_can_train_is_refused_before_there_are_pods(tmp_path: Path, command: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cluster: {devices_per_node: 2}\ntrain: {global_batch_size: 8, device_batch_size: 8}\n")
    where = {"compile": ["--out", str(tmp_path / "graph.yaml")]}.get(command, ["--host", "http://nobody.invalid"])
    more = ["--cron", "0 3 * * 1"] if command == "schedule" else []
    line = exit_line(pipeline.main, command, "--recipe", recipe, *PLACES, *where, *more)
    assert "train.global_batch_size: 8 is not a multiple of train.device_batch_size 8 x 2 processes" in line
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]

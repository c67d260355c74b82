"""The compiled graph: its parameters are those of DVC, and each task has what a cluster needs to know."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from components.kubeflow.graphs.declaring import SCRATCH
from components.kubeflow.sections import SECTIONS, params_of
from components.kubeflow.steps import NEEDS
from components.params import load_params
from model.device import NEEDS_GPU
from tests.conftest import ROOT, environment, exit_line

STEPS = tuple(NEEDS)
DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The compiled graph of the paper's recipe, and what it says to Kubernetes."""
    out = tmp_path_factory.mktemp("graph") / "pipeline.yaml"
    recipe = ROOT / "recipes" / "paper.yaml"
    pipeline.main(["compile", "--recipe", str(recipe), "--image", "example.org/damage@sha256:1", "--out", str(out)])
    whole, platform = yaml.safe_load_all(out.read_text(encoding="utf-8"))
    return whole, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def all_tasks(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task, of whatever group, by name."""
    dags = [whole["root"]["dag"]] + [part["dag"] for part in whole["components"].values() if "dag" in part]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


def upstream(whole: dict[str, Any], step: str) -> set[str]:
    """Steps from which a task takes outputs, also where these come through the loop that ran them."""
    found = set()
    inputs = all_tasks(whole)[step].get("inputs", {})
    for value in [*inputs.get("artifacts", {}).values(), *inputs.get("parameters", {}).values()]:
        origin = value.get("taskOutputArtifact", value.get("taskOutputParameter"))
        if origin is not None:
            found.add("prepare" if origin["producerTask"].startswith("for-loop") else origin["producerTask"])
    return found


def test_the_graph_has_the_steps_and_every_section_as_a_parameter(graph: Any) -> None:
    whole, _ = graph
    assert set(STEPS) <= set(all_tasks(whole))
    parameters = whole["root"]["inputDefinitions"]["parameters"]
    assert {name for name in SECTIONS if parameters[name]["parameterType"] == "STRUCT"} == set(SECTIONS)


def test_its_defaults_are_the_recipe(graph: Any) -> None:
    whole, _ = graph
    parameters = whole["root"]["inputDefinitions"]["parameters"]
    given = {name: parameters[name]["defaultValue"] for name in SECTIONS}
    recipe = load_params(ROOT / "params.yaml", ROOT / "recipes" / "paper.yaml")
    found = params_of(given).model_dump(include=set(SECTIONS) | {"register_"})
    assert found == recipe.model_dump(include=set(SECTIONS) | {"register_"})
    assert (found["cluster"]["nodes"], found["cluster"]["devices_per_node"]) == (2, 8)


def test_steps_follow_each_other_as_in_dvc(graph: Any) -> None:
    whole, _ = graph
    outputs = {}
    for stage, content in DVC.items():
        for path in [*content.get("outs", []), *content.get("metrics", [])]:
            outputs[path if isinstance(path, str) else next(iter(path))] = stage
    for stage in ("train", "evaluate", "register"):
        local = {outputs[path] for path in DVC[stage]["deps"] if path in outputs}
        # Kubeflow has what belongs to the model, its run.json, with the model itself.
        # What a run begins with is looked at there first, and is no stage of DVC.
        assert upstream(whole, stage) - {"check"} == local, stage
    version = all_tasks(whole)["promote"]["inputs"]["parameters"]["version"]
    assert version == {"componentInputParameter": "pipelinechannel--register-Output"}


def test_a_step_gets_the_sections_that_dvc_watches_for_it(graph: Any) -> None:
    whole, _ = graph
    for stage in ("prepare", "train", "evaluate", "register"):
        taken = set(all_tasks(whole)[stage]["inputs"]["parameters"]) & set(SECTIONS)
        watched = set(DVC[stage]["params"])
        # Training logs how its data were prepared, and only a cluster has a section cluster.
        assert taken - watched <= ({"prepare", "cluster"} if stage == "train" else set())
        assert watched <= taken


def taken(whole: dict[str, Any], step: str, placeholder: str) -> Any:
    """What a placeholder of a task's container is with the defaults of the form, its expression followed by hand."""
    name = placeholder.removeprefix("{{$.inputs.parameters['").removesuffix("']}}")
    source = all_tasks(whole)[step]["inputs"]["parameters"][name]
    assert whole["components"][f"comp-{step}"]["inputDefinitions"]["parameters"][name] == {"parameterType": "STRING"}
    parameter = source["componentInputParameter"].removeprefix("pipelinechannel--")
    value = whole["root"]["inputDefinitions"]["parameters"][parameter]["defaultValue"]
    expression = source["parameterExpressionSelector"]
    assert re.fullmatch(r'parseJson\(string_value\)(\["\w+"\])+', expression)
    for key in re.findall(r'\["(\w+)"\]', expression):
        value = value[key]
    return value


def test_each_task_has_image_size_retries_and_caching(graph: Any) -> None:
    whole, _ = graph
    sizes = DEFAULTS["cluster"]["steps"]
    assert set(sizes) > set(STEPS)
    for step in STEPS:
        task = all_tasks(whole)[step]
        container = whole["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        assert container["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"
        assert "pip install" not in str(container["command"])
        resources = container["resources"]
        for end in ("Request", "Limit"):
            assert taken(whole, step, resources[f"resourceCpu{end}"]) == str(sizes[step]["cpu"])
            assert taken(whole, step, resources[f"resourceMemory{end}"]) == sizes[step]["memory"]
        assert resources.get("accelerator", {}).get("resourceCount") == (
            "1" if step in ("evaluate", "promote") else None
        )
        # Who has a GPU knows it, so that it does not compute on the CPU in silence.
        given = [{"name": NEEDS_GPU, "value": "1"}] if "accelerator" in resources else []
        assert container.get("env", []) == given
        assert task.get("retryPolicy", {}).get("maxRetryCount") == (None if step == "finish" else 4)
        # It counts from the start of the first attempt, and ends a later one: longer than any step.
        month = 30 * 24 * 3600
        assert step == "finish" or int(task["retryPolicy"]["backoffMaxDuration"].removesuffix("s")) > month
        assert task["cachingOptions"].get("enableCache", False) == (step not in ("check", "promote", "finish"))


def test_another_registry_or_server_is_no_hit_of_the_cache(graph: Any) -> None:
    """Kubeflow takes a task from its cache where all of its inputs are the same."""
    whole, _ = graph
    register = all_tasks(whole)["register"]
    assert register["cachingOptions"] == {"enableCache": True}
    assert {"register", "mlflow_uri", "root", "evaluation"} <= set(register["inputs"]["parameters"])


def test_each_task_has_disk_credentials_and_placement(graph: Any) -> None:
    _, platform = graph
    sizes = DEFAULTS["cluster"]["steps"]
    for step in STEPS:
        settings = platform[f"exec-{step}"]
        assert [(e["mountPath"], e["sizeLimit"]) for e in settings["emptyDirMounts"]] == [
            (SCRATCH, sizes[step]["scratch"])
        ]
        secrets = {
            secret["secretName"]: [key["envVar"] for key in secret["keyToEnv"]] for secret in settings["secretAsEnv"]
        }
        assert secrets == {
            "dual-hrnet-s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            "dual-hrnet-mlflow": [
                "MLFLOW_TRACKING_USERNAME",
                "MLFLOW_TRACKING_PASSWORD",
                "MLFLOW_TRACKING_TOKEN",
                "MLFLOW_WORKSPACE",
            ],
        }
        assert settings["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"].endswith("node_selector")
        assert settings["tolerations"][0]["tolerationJson"]["componentInputParameter"].endswith("tolerations")
        assert settings["securityContext"] == {"runAsNonRoot": True}
        assert "imagePullSecret" not in settings


def test_of_two_recipes_the_later_one_wins_no_gpu_is_asked_for_and_certificates_are_in_each_pod(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("cluster: {device_resource: gpu, certificates: ca}\ntrain: {device_batch_size: 4}")
    second.write_text("cluster: {device_resource: null, devices_per_node: 2}")
    recipes = ["--recipe", str(first), "--recipe", str(second)]
    pipeline.main(["compile", *recipes, "--out", str(tmp_path / "graph.yaml")])
    assert "name of the version: first-second" in capsys.readouterr().out
    text = (tmp_path / "graph.yaml").read_text(encoding="utf-8")
    assert "accelerator" not in text and NEEDS_GPU not in text
    whole, platform = yaml.safe_load_all(text)
    assert all_tasks(whole)["train"]["inputs"]["parameters"]["certificates"]["runtimeValue"] == {"constant": "ca"}
    for step in STEPS:
        settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
        (volume,) = settings["configMapAsVolume"]
        assert (volume["configMapName"], volume["mountPath"]) == ("ca", "/etc/dual-hrnet")
        given = whole["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["env"]
        assert {entry["name"]: entry["value"] for entry in given} == {
            "AWS_CA_BUNDLE": "/etc/dual-hrnet/ca.crt",
            "MLFLOW_TRACKING_SERVER_CERT_PATH": "/etc/dual-hrnet/ca.crt",
        }


def test_no_credential_stands_in_the_graph(graph: Any) -> None:
    assert "SECRET_ACCESS_KEY=" not in str(graph)
    containers = [executor["container"] for executor in graph[0]["deploymentSpec"]["executors"].values()]
    assert {entry["name"] for container in containers for entry in container.get("env", [])} == {NEEDS_GPU}


def test_the_graph_is_the_same_in_each_process(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        command = [sys.executable, "pipeline.py", "compile", "--out", str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    line = exit_line(pipeline.main, "compile", "--out", tmp_path / "graph.json")
    assert line.startswith(f"PipelineError: {tmp_path}/graph.json: ends in .json, but Kubeflow takes graphs from files")
    line = exit_line(pipeline.main, "compile", "--out", tmp_path)
    assert line.startswith(f"PipelineError: {tmp_path}: is a folder, but Kubeflow takes graphs from files")
    assert line.endswith(f"Give {tmp_path}/pipeline.yaml.")
    bad = tmp_path / "bad.yaml"
    bad.write_text("train: {epochs: many}")
    line = exit_line(pipeline.main, "compile", "--recipe", bad, "--out", tmp_path / "graph.yaml")
    assert "train.epochs: found 'many'" in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_parameter_that_was_edited_in_the_run_form_is_validated() -> None:
    with pytest.raises(ValueError, match=r"the parameters of the pipeline: tracking\.experiment: found 3"):
        params_of({"tracking": {"experiment": 3.0}})

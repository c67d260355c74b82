"""The compiled graph, run whole on this machine by Kubeflow's own local runner."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.commands import succeed, succeed_here
from tests.conftest import (
    commit,
    copy_repository,
    dvc,
    environment,
    write_params,
    write_raw,
    write_scene,
)
from tests.stores import ready_store
from tests.workers.forked_training import trained

pytestmark = pytest.mark.endurance


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the tiny raw data added to DVC, and tiny parameters."""
    folder = copy_repository(tmp_path_factory.mktemp("clone"))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    write_raw(folder / "data" / "raw")
    write_params(
        folder / "params.yaml",
        {"data": {"root": "data/raw"}, "train": {"epochs": 1, "validate_every": 1, "device_batch_size": 2}},
    )
    dvc(folder, "add", "--quiet", "data/raw")
    commit(folder)
    ready_store(folder)
    return folder


def run_graph(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "pipeline.py", "run", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def ran(repository: Path) -> Path:
    """The repository after a run of the graph on the latest data, with two training processes, and promotion."""
    succeed("publish", "--dvc-file", "data/raw.dvc", "--remote", ".dvc/cache", cwd=repository)
    result = run_graph(repository, "--raw-version", "latest", "--processes", "2", "--auto-promote")
    assert result.returncode == 0, result.stdout + result.stderr
    return repository


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def outputs(ran: Path, task: str) -> dict[str, Any]:
    """What a task told Kubeflow."""
    content: dict[str, Any] = json.loads(only(ran, f"output/artifacts/*/{task}/executor_output.json").read_text())
    return content


def test_the_graph_trains_the_model_that_the_steps_train(ran: Path, tmp_path: Path) -> None:
    params: list[str | Path] = ["--params", ran / "params.yaml"]
    succeed_here("prepare", *params, "--raw", ran / "data" / "raw", "--out", tmp_path / "prepared")
    arguments = (*params, "--data", tmp_path / "prepared", "--out", tmp_path / "train")
    assert trained(2, (tmp_path / "log", *arguments), cwd=tmp_path) == [[0, 0]], (tmp_path / "log").read_text()
    model = only(ran, "output/pipeline/train/*/model/model.safetensors")
    assert model.read_bytes() == (tmp_path / "train" / "model" / "model.safetensors").read_bytes()
    evaluate: list[str | Path] = [
        "--data",
        tmp_path / "prepared",
        "--model",
        tmp_path / "train" / "model",
        "--out",
        tmp_path / "evaluate",
    ]
    succeed_here("evaluate", *params, *evaluate)
    paths = (only(ran, "output/pipeline/evaluate/*/metrics.json"), tmp_path / "evaluate" / "metrics.json")
    ours, steps = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    # The graph prepares each source by itself: the version of the whole is that of its parts.
    assert ours.pop("prepared_version") != steps.pop("prepared_version")
    assert ours == steps


def test_kubeflow_is_told_the_score_the_confusion_matrix_and_the_report(ran: Path) -> None:
    metrics = json.loads(only(ran, "output/pipeline/evaluate/*/metrics.json").read_text())
    artifacts = outputs(ran, "evaluate")["artifacts"]
    shown = artifacts["metrics"]["artifacts"][0]["metadata"]
    assert shown == {name: value for name, value in metrics.items() if isinstance(value, float)}
    matrix = artifacts["confusion"]["artifacts"][0]["metadata"]["confusionMatrix"]
    assert len(matrix["annotationSpecs"]) == 5
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 3 * 64 * 64  # the pixels of the test scenes
    page = only(ran, "output/artifacts/*/evaluate/report").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.count('class="curve"') == 2


def test_large_data_go_by_reference(ran: Path) -> None:
    location = only(ran, "output/pipeline/train/*/model").relative_to(ran)
    model = outputs(ran, "train")["artifacts"]["model"]["artifacts"][0]
    assert model["metadata"]["location"] == str(location)
    assert only(ran, "output/artifacts/*/train/model").read_text() == f"{location}\n"


def test_the_latest_version_is_asked_for_and_told(ran: Path) -> None:
    record = yaml.safe_load((ran / "data" / "raw.dvc").read_text(encoding="utf-8"))
    version = record["outs"][0]["md5"]
    assert outputs(ran, "check")["parameterValues"] == {"raw_version": version, "news": "new here", "start_from": ""}
    assert outputs(ran, "fetch")["artifacts"]["raw"]["artifacts"][0]["metadata"]["version"] == version
    config = only(ran, "output/pipeline/train/*/model/config.json").read_text(encoding="utf-8")
    assert json.loads(config)["trained_on"]["raw_version"] == version


def test_the_model_is_registered_and_promoted(ran: Path) -> None:
    assert outputs(ran, "register")["parameterValues"]["Output"] == "models:/tiny/1"
    page = only(ran, "output/artifacts/*/register/links").read_text(encoding="utf-8")
    assert "| version | tiny version 1 |" in page
    metadata = outputs(ran, "register")["artifacts"]["links"]["artifacts"][0]["metadata"]
    assert metadata["uri"] == "models:/tiny/1" and metadata["run"] in page
    assert "tiny version 1 is production now" in outputs(ran, "promote")["parameterValues"]["Output"]


def test_a_second_run_of_the_same_finds_the_trained_model(ran: Path) -> None:
    model = only(ran, "output/pipeline/train/*/model/model.safetensors")
    before = model.read_bytes(), (model.parents[1] / "history.csv").read_text()
    result = run_graph(ran, "--processes", "2", "--root", "output/pipeline")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (model.read_bytes(), (model.parents[1] / "history.csv").read_text()) == before
    assert "tiny version 1 is this model with these scores: nothing new is registered" in result.stdout + result.stderr
    assert ": nothing new: what an earlier run made of it comes from the cache" in result.stdout + result.stderr


def test_a_task_that_fails_ends_the_run_with_its_line_and_makes_nothing_up_in_mlflow(
    repository: Path, tmp_path: Path
) -> None:
    folder = copy_repository(tmp_path / "clone")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    write_scene(folder / "data" / "raw", "train", "tiny-flood_00000000", [])
    (folder / "data" / "raw" / "train" / "images" / "tiny-flood_00000000_post_disaster.png").write_bytes(b"no image")
    write_params(folder / "params.yaml", {"data": {"root": "data/raw"}})
    dvc(folder, "add", "--quiet", "data/raw")
    ready_store(folder)
    result = run_graph(folder)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("PipelineError: ")
    assert "tiny-flood_00000000_post_disaster.png" in result.stdout + result.stderr
    assert "the run failed." in result.stdout + result.stderr  # finish, which ran all the same
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert client.search_runs(experiments) == []  # nothing was trained


def test_a_version_that_is_not_on_the_remote_is_one_line_without_the_log_of_kubeflow(
    repository: Path, tmp_path: Path
) -> None:
    before = set(repository.iterdir())
    version = f"{'0' * 32}.dir"
    for remote, said in ((tmp_path, f"raw version {version} is not on"), (tmp_path / "nowhere", "is no folder here")):
        arguments = ["--raw-version", version, "--data-remote", str(remote), "--root", str(tmp_path / "root")]
        result = run_graph(repository, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("FetchError: ") and said in result.stderr
    assert list(tmp_path.iterdir()) == [] and set(repository.iterdir()) == before


def test_data_that_dvc_does_not_know_is_one_line(repository: Path, tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", {"data": {"root": "data/other"}})
    result = run_graph(repository, "--params", str(tmp_path / "params.yaml"))
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("FetchError: data/other: is tracked by neither data/other.dvc nor dvc.lock here")

"""What a training job gets from the task that launches it."""

from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from components.cluster.job import RUN_LABEL, Owner, TrainingJob
from components.cluster.pods import environment
from components.cluster.surroundings import Surroundings
from components.kubeflow.tasks import task
from components.kubeflow.training import train_in_cluster
from components.params import load_params
from components.tracking import runs
from components.tracking.lineage import PIPELINE_RUN, with_run
from tests.paths import ROOT


def launched(run: str, monkeypatch: pytest.MonkeyPatch, **cluster: Any) -> TrainingJob:
    """The job that a train task of that pipeline run asks for."""
    jobs: list[TrainingJob] = []
    monkeypatch.setattr("components.cluster.launcher.launch", lambda job, on_runs: jobs.append(job))
    # Those of a step's pod, which are asked for by the Kubernetes API.
    here = Surroundings(Owner("argoproj.io/v1alpha1", "Workflow", f"dual-hrnet-{run}", "0a"))
    monkeypatch.setattr("components.cluster.surroundings.read_surroundings", lambda api, pod: here)
    monkeypatch.setattr("components.cluster.api.Api", lambda namespace, patience: None)
    for name, value in {"POD_NAME": f"pod-{run}", "POD_UID": "0a", "POD_NAMESPACE": "runs", "RUN_ID": run}.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "DUAL_HRNET_PATIENCE"):
        monkeypatch.setenv(name, "")  # the task sets it for good
        monkeypatch.delenv(name)
    with task("http://mlflow:5000", "http://s3:9000"):
        params = load_params(ROOT / "params.yaml")
        params = params.model_copy(update={"cluster": params.cluster.model_copy(update=cluster)})
        train_in_cluster("train-1", "image", params, ["s3://b/data"], "s3://b/out")
    [job] = jobs
    return job


def test_the_pods_of_a_job_know_their_pipeline_run_and_another_run_wants_the_same_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = launched("run-1", monkeypatch), launched("run-2", monkeypatch)
    assert (first.labels, second.labels) == ({RUN_LABEL: "run-1"}, {RUN_LABEL: "run-2"})
    [known] = first.references
    assert known == {"name": "RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{RUN_LABEL}']"}}}
    assert (first.environment, first.references, first.arguments) == (
        second.environment,
        second.references,
        second.arguments,
    )


def test_a_job_uses_the_servers_of_its_task_and_has_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched("run-1", monkeypatch).environment == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "AWS_ENDPOINT_URL": "http://s3:9000",
        "DUAL_HRNET_PATIENCE": "600",
    }


def test_a_patience_of_the_section_is_that_of_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    job = launched("run-1", monkeypatch, environment={"DUAL_HRNET_PATIENCE": "3600"})
    values = [entry["value"] for entry in environment(job) if entry["name"] == "DUAL_HRNET_PATIENCE"]
    assert values == ["3600"]


def test_the_run_of_a_shared_training_names_the_first_pipeline_run_and_the_newest(mlflow_store: str) -> None:
    ids = [f"{number:036}" for number in range(120)]
    named: list[str] = []
    for each in ids:
        named = with_run(named, each)
    assert named == [ids[0], *ids[-99:]]
    mlflow = MlflowClient()
    run = mlflow.create_run("0", tags={PIPELINE_RUN: " ".join(named)}).info.run_id
    runs.join_runs([ids[0]], "f" * 36)
    tag = mlflow.get_run(run).data.tags[PIPELINE_RUN]
    assert tag.split() == [ids[0], *ids[-98:], "f" * 36]
    assert len(tag) < 5000  # of which MLflow takes no more

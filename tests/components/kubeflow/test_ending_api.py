"""The exit hook against a real Kubernetes API server that keeps a recorded Workflow, with the rights of deploy/."""

import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from components.cluster.api import Api, JobPatience
from components.cluster.job import JobError
from components.cluster.workflow import read_workflow
from components.kubeflow import ending
from tests.components.cluster.test_pytorchjob_launch import RULES
from tests.servers.argo_server import RULE
from tests.servers.kube_api import KubeApi, of_any_content
from tests.servers.mlflow_server import using

RECORDED = Path(__file__).parent / "recorded"
PLACE = {"group": "argoproj.io", "version": "v1alpha1", "plural": "workflows"}


@pytest.fixture(scope="module")
def kube(kube_server: KubeApi) -> KubeApi:
    kube_server.install(of_any_content(**PLACE, kind="Workflow"))  # as Argo's own: it knows nothing of what is inside
    return kube_server


def created(kube: KubeApi, recording: str) -> tuple[str, dict[str, Any]]:
    """A namespace with the recorded Workflow, and the Workflow."""
    namespace = kube.new_namespace()
    content = json.loads((RECORDED / recording / "workflow.json").read_text(encoding="utf-8"))
    client.CustomObjectsApi(kube.client()).create_namespaced_custom_object(**PLACE, namespace=namespace, body=content)
    return namespace, content


def finish(
    kube: KubeApi, namespace: str, workflow: dict[str, Any], state: str, patch: pytest.MonkeyPatch, store: str
) -> None:
    for module in (config, config.kube_config):  # what the library made of $KUBECONFIG when it was imported
        patch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(kube.kubeconfig("launcher")))
    patch.setenv("RUN_ID", workflow["metadata"]["labels"]["pipeline/runid"])
    patch.setenv("POD_NAMESPACE", namespace)
    with using(store):
        ending.finish(state, workflow["metadata"]["name"], "")


@pytest.mark.parametrize(
    ("recording", "state", "said"),
    [
        ("good", "COMPLETE", "succeeded, with fetch, prepare from the cache"),
        ("cancelled-in-train", "RUNNING", "was cancelled"),
        # There is no kubelet to ask for the log.
        ("bad-parameter", "FAILED", "train failed with exit code 1: main: Error (exit code 1)"),
    ],
)
def test_the_rights_of_deploy_are_enough_to_tell_how_a_run_ended(
    kube: KubeApi,
    recording: str,
    state: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    mlflow_store: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    namespace, workflow = created(kube, recording)
    kube.bind("launcher", namespace, [*RULES, RULE])
    finish(kube, namespace, workflow, state, monkeypatch, mlflow_store)
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"run {workflow['metadata']['labels']['pipeline/runid']} {said}."
    assert "warning" not in err


def test_without_the_right_to_read_workflows_the_line_says_so(
    kube: KubeApi, monkeypatch: pytest.MonkeyPatch, mlflow_store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace, workflow = created(kube, "good")
    kube.bind("launcher", namespace, [rule for rule in RULES if rule != RULE])
    finish(kube, namespace, workflow, "COMPLETE", monkeypatch, mlflow_store)
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith(" succeeded.")
    [line] = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert "(HTTP 403). Give the launcher's service account a role with this verb." in line
    assert line.endswith("Kubeflow's own word is COMPLETE.")


def test_a_workflow_that_is_gone_is_named(kube: KubeApi) -> None:
    namespace = kube.new_namespace()
    with pytest.raises(JobError, match=f"^Workflow {namespace}/dual-hrnet-0: is not there"):
        read_workflow(Api(namespace, JobPatience(), kube.kubeconfig()), "dual-hrnet-0")

"""The manifests of deploy/ against a real Kubernetes API server: what it takes, and what the launcher may do."""

import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from components.cluster.readiness.findings import RIGHTS
from tests.deploy.test_manifests import DEPLOY, KUBECTL, NAMESPACE, job, render
from tests.servers.kube_api import PYTORCHJOBS, KubeApi, definition

# Who launches, with the namespace of the runs: ours, or without profiles that of Kubeflow Pipelines.
LAUNCHERS = [("launcher", NAMESPACE), ("default-editor", NAMESPACE), ("pipeline-runner", "kubeflow")]

# Those on TrainJobs are granted by deploy/trainer.


@pytest.fixture(scope="module")
def kube(kube_server: KubeApi) -> KubeApi:
    """A server with the namespaces, in which the base and the rights without profiles are applied."""
    kube_server.install(definition(PYTORCHJOBS))
    for name in (NAMESPACE, "kubeflow"):
        done(kube_server, "create", "namespace", name)
    for folder in ("base", "standalone"):
        done(kube_server, "apply", "--server-side", "--kustomize", DEPLOY / folder)
    return kube_server


def ask(kube: KubeApi, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [KUBECTL, "--kubeconfig", kube.kubeconfig(), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def done(kube: KubeApi, *arguments: str | Path) -> str:
    result = ask(kube, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def write(folder: Path, content: object) -> Path:
    path = folder / "object.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("folder", ["base", "overlays/small"])
def test_every_object_is_taken(kube: KubeApi, folder: str) -> None:
    options = ("--server-side", "--force-conflicts", "--dry-run=server")
    said = done(kube, "apply", *options, "--kustomize", DEPLOY / folder).splitlines()
    assert len(said) == len(render(DEPLOY / folder))


@pytest.mark.parametrize("name", ["secret.example.yaml", "training-operator/init-container.yaml"])
def test_what_is_applied_by_hand_is_taken(kube: KubeApi, name: str) -> None:
    done(kube, "apply", "--server-side", "--dry-run=server", "--filename", DEPLOY / name)


def test_the_patch_of_the_operator_keeps_what_the_operator_has(kube: KubeApi) -> None:
    own = {"name": "certificate", "mountPath": "/tmp/serving"}
    container = {"name": "training-operator", "image": "operator:1", "volumeMounts": [own]}
    labels = {"app": "training-operator"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "training-operator", "namespace": "kubeflow"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": [{"name": "certificate", "emptyDir": {}}]},
            },
        },
    }
    done(kube, "create", "--filename", write(kube.folder, deployment))
    patch = ("--patch-file", DEPLOY / "training-operator" / "deployment-patch.yaml")
    for _ in range(2):  # a second time changes nothing
        patched = ("--namespace", "kubeflow", "patch", "deployment", "training-operator", *patch, "--output", "yaml")
        pod = yaml.safe_load(done(kube, *patched))["spec"]["template"]["spec"]
        assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {"/tmp/serving", "/etc/config"}
        assert sorted(volume["name"] for volume in pod["volumes"]) == ["certificate", "pytorch-init-container"]


@pytest.mark.parametrize(("account", "namespace"), LAUNCHERS)
def test_the_launcher_may_run_jobs(kube: KubeApi, account: str, namespace: str) -> None:
    user = ("--as", f"system:serviceaccount:{namespace}:{account}", "--namespace", namespace)
    content = job("paper.yaml")
    content["metadata"]["namespace"] = namespace
    done(kube, *user, "create", "--filename", write(kube.folder, content))
    assert "train" in done(kube, *user, "get", "pytorchjobs")
    done(kube, *user, "get", "pods")
    logs = f"/api/v1/namespaces/{namespace}/pods/train-master-0/log"
    assert "(NotFound)" in ask(kube, *user, "get", "--raw", logs).stderr  # allowed, but there is no pod
    done(kube, *user, "delete", "--wait=false", "pytorchjobs", "train")
    # Of Argo, which is not here: as the exit hook of a run, it reads how the run ended, and no more.
    workflows = f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
    assert "(NotFound)" in ask(kube, *user, "get", "--raw", f"{workflows}/dual-hrnet-0").stderr
    for refused in (("get", "--raw", workflows), ("delete", "--raw", f"{workflows}/dual-hrnet-0")):
        assert "(Forbidden)" in ask(kube, *user, *refused).stderr


@pytest.mark.parametrize(("account", "namespace"), LAUNCHERS)
def test_the_steps_may_do_all_that_the_code_asks_for(kube: KubeApi, account: str, namespace: str) -> None:
    reviews = client.AuthorizationV1Api(kube.client())
    user = f"system:serviceaccount:{namespace}:{account}"
    refused = []
    for right in RIGHTS:
        resource, _, subresource = right.resource.partition("/")
        for verb in right.verbs:
            asked = {"namespace": namespace, "group": right.group, "verb": verb, "resource": resource}
            spec = {"user": user, "resourceAttributes": {**asked, "subresource": subresource}}
            if not reviews.create_subject_access_review({"spec": spec}).status.allowed:
                refused.append((verb, right.resource))
    assert refused == []


def test_the_role_grants_what_the_code_asks_for_and_nothing_else() -> None:
    granted = {
        (group, resource, verb)
        for one in render(DEPLOY / "launcher")
        if one["kind"] == "Role"
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {(right.group, right.resource, verb) for right in RIGHTS for verb in right.verbs}


@pytest.mark.parametrize(("account", "namespace"), LAUNCHERS)
@pytest.mark.parametrize(
    "refused",
    [
        "get secrets",
        "get secret dual-hrnet-s3",
        "get configmaps",
        "delete pods train-master-0",
        "delete deployment mlflow",
        "create role more --verb=get --resource=secrets",
        "create deployment any --image=any",
        "run any --image=any",
        "get pytorchjobs --all-namespaces",
        "get pytorchjobs --namespace default",
        "get pods --namespace default",
        "get secrets --namespace default",
        "get namespaces",
        "get nodes",
    ],
)
def test_the_launcher_may_do_nothing_else(kube: KubeApi, account: str, namespace: str, refused: str) -> None:
    user = ("--as", f"system:serviceaccount:{namespace}:{account}", "--namespace", namespace)
    result = ask(kube, *user, *refused.split())
    assert result.returncode != 0
    assert " is forbidden: User " in result.stderr


def test_the_launcher_of_one_namespace_has_no_rights_in_the_other(kube: KubeApi) -> None:
    for account, home in LAUNCHERS:
        (other,) = {NAMESPACE, "kubeflow"} - {home}
        user = ("--as", f"system:serviceaccount:{home}:{account}", "--namespace", other)
        for verb in ("get", "create", "delete", "patch"):
            assert ask(kube, *user, "auth", "can-i", verb, "pytorchjobs.kubeflow.org").stdout == "no\n"


def test_the_pods_of_training_have_no_rights(kube: KubeApi) -> None:
    default = ("--as", f"system:serviceaccount:{NAMESPACE}:default", "--namespace", NAMESPACE)
    for name in ("pytorchjobs", "pods", "secrets", "configmaps"):
        assert "(Forbidden)" in ask(kube, *default, "get", name).stderr

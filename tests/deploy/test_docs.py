"""The commands of docs/cluster.md, run as they stand there against a real Kubernetes API server."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from components.cluster.api import Api, JobPatience
from components.cluster.readiness.findings import look
from components.params import load_params
from tests.deploy.test_manifests import DEPLOY, KUBECTL, NAMESPACE, render
from tests.paths import ROOT
from tests.servers.kube_api import PYTORCHJOBS, KubeApi, definition, running

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
VALUES = {
    "REGISTRY": "r.example.org",
    "REVISION": "0a1b2c3d4e5f",
    "BUCKET": "maps",
    "NAMESPACE": "kubeflow",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
OPERATOR = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "training-operator", "namespace": "kubeflow"},
    "spec": {
        "selector": {"matchLabels": {"app": "operator"}},
        "template": {
            "metadata": {"labels": {"app": "operator"}},
            "spec": {"containers": [{"name": "training-operator", "image": "operator:1"}]},
        },
    },
}


def blocks(heading: str) -> list[str]:
    """The blocks of commands in a section of the page that ask Kubernetes."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", PAGE, re.S | re.M)
    found = re.findall(r"^```\n(.*?)^```$", section, re.S | re.M)
    return [block for block in found if "kubectl " in block and not block.startswith("✓")]  # what a command printed


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """A cluster with Kubeflow Pipelines and the training operator, as far as the page needs them."""
    with running(tmp_path_factory.mktemp("kube")) as server:  # of its own: test_api.py has the same namespaces
        server.install(definition(PYTORCHJOBS))
        core = client.CoreV1Api(server.client())
        core.create_namespace({"metadata": {"name": "kubeflow"}})
        core.create_namespaced_service_account("kubeflow", {"metadata": {"name": "pipeline-runner"}})
        client.AppsV1Api(server.client()).create_namespaced_deployment("kubeflow", OPERATOR)
        yield server


def api_of(kube: KubeApi, namespace: str) -> Api:
    return Api(namespace, JobPatience(away=0), kube.kubeconfig())


def walk(kube: KubeApi, folder: Path, commands: str) -> None:
    """Runs commands in a copy of deploy/; there is nothing here that could be rolled out, or forwarded to."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "kubectl"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *"rollout status"*|*port-forward*) exit 0;; esac\n'
        f'exec "{KUBECTL}" --kubeconfig "{kube.kubeconfig()}" "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    environment = {**os.environ, **VALUES, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-e", "-u", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_after_the_commands_of_the_page_nothing_is_missing_but_what_kubeflow_brings(
    kube: KubeApi, tmp_path: Path
) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    commands = blocks("2. What every namespace needs, once")
    assert "".join(commands).count("kubectl ") >= 9
    for block in commands:
        walk(kube, tmp_path, block)
    cluster = load_params(ROOT / "params.yaml").cluster
    for namespace in ("kubeflow", NAMESPACE):
        api = api_of(kube, namespace)
        account = "pipeline-runner" if namespace == "kubeflow" else "launcher"
        missing = [finding.what for finding in look(api, cluster, account) if not finding.holds]
        assert missing == ["Workflow (argoproj.io/v1alpha1)"]  # of Kubeflow Pipelines
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (block,) = blocks("Certificates of your own")
    walk(kube, tmp_path, block)
    findings = look(api_of(kube, "kubeflow"), cluster.model_copy(update={"certificates": "ca"}), "pipeline-runner")
    assert ("config map ca", True) in [(finding.what, finding.holds) for finding in findings]
    pod = client.AppsV1Api(kube.client()).read_namespaced_deployment("training-operator", "kubeflow").spec.template
    assert [mount.mount_path for mount in pod.spec.containers[0].volume_mounts] == ["/etc/config"]
    (container,) = (
        client.AppsV1Api(kube.client()).read_namespaced_deployment("mlflow", NAMESPACE).spec.template.spec.containers
    )
    assert container.image == "r.example.org/dual-hrnet:0a1b2c3d4e5f"


def test_in_the_namespace_of_a_profile_the_level_lets_kubeflows_own_pod_in(kube: KubeApi, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (written,) = re.findall(r"`(components: \[.*profile.*\])`", PAGE)
    (overlay,) = re.findall(r"^cat > deploy/overlays/own/.*?^END$", PAGE, re.S | re.M)
    assert "components: [../../components/volume]" in overlay
    overlay = overlay.replace("components: [../../components/volume]", written)
    walk(kube, tmp_path, f"mkdir -p deploy/overlays/own\n{overlay}\nkubectl apply -k deploy/overlays/own")
    labels = client.CoreV1Api(kube.client()).read_namespace(NAMESPACE).metadata.labels
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"
    objects = render(tmp_path / "deploy" / "overlays" / "own")
    (policy,) = [one for one in objects if one["metadata"]["name"] == "ui-artifact"]
    (rule,) = policy["spec"]["ingress"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app": "ml-pipeline-ui-artifact"}}
    assert rule["ports"] == [{"port": 3000, "protocol": "TCP"}]  # of its container, by the source that the page names


def test_the_profile_of_the_page_is_the_namespace_of_the_manifests() -> None:
    (profile,) = re.findall(r"^kubectl apply -f - <<END\n(.*?)^END$", PAGE, re.S | re.M)
    content = yaml.safe_load(profile)
    assert (content["kind"], content["metadata"]["name"]) == ("Profile", NAMESPACE)


@pytest.mark.parametrize("name", ["cluster.md", "cluster-troubles.md", "serving.md"])
def test_what_the_pages_point_to_is_there(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = ROOT / "docs" / (file or name)
        assert target.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs
    for path in re.findall(r"`(deploy/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path

"""Argo Workflows in the test's API server: runs, their steps' pods, and the launcher as a process of such a pod."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from kubernetes import client

from components.cluster.job import Owner
from tests.commands import environment
from tests.paths import ROOT
from tests.servers.kube_api import KubeApi, eventually
from tests.servers.training_operator import Operator

WORKFLOWS = {"group": "argoproj.io", "version": "v1alpha1", "plural": "workflows"}
WORKER = ROOT / "tests" / "workers" / "cluster_launcher.py"


def serve(kube: KubeApi, group: str, version: str, plural: str, kind: str) -> None:
    """Has a kind of objects served with any content, for what is not ours and little read."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = {"name": version, "served": True, "storage": True, "schema": schema}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    definition = {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }
    extensions = client.ApiextensionsV1Api(kube.client())
    extensions.create_custom_resource_definition(definition)
    objects = client.CustomObjectsApi(extensions.api_client)

    def is_served() -> bool:
        with suppress(client.ApiException):
            return bool(objects.list_cluster_custom_object(group, version, plural))
        return False

    eventually(is_served, f"{plural} are not served")


class Run:
    """A run of the graph: its Workflow, and launchers in pods of its step `train`.

    url: of a proxy in front of the API server.
    """

    def __init__(self, operator: Operator, name: str, url: str | None = None, **cluster: Any) -> None:
        self.operator, self.name, self.cluster = operator, name, cluster
        self.place = {**WORKFLOWS, "namespace": operator.namespace}
        content = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name},
            "spec": {"entrypoint": "entrypoint"},
            "status": {"phase": "Running"},
        }
        made = operator.jobs.create_namespaced_custom_object(**self.place, body=content)
        self.owner = Owner("argoproj.io/v1alpha1", "Workflow", name, made["metadata"]["uid"])
        self.config = operator.kube.kubeconfig("launcher", url)
        self.pods = 0

    def start(self) -> subprocess.Popen[str]:
        """A launcher in a new pod."""
        self.pods += 1
        pod = f"{self.name}-train-{self.pods}"
        owner = {**self.owner.reference(), "controller": True, "blockOwnerDeletion": True}
        content = {
            "metadata": {"name": pod, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "main", "image": "i"}], "nodeName": "node-1"},
        }
        self.operator.core.create_namespaced_pod(self.operator.namespace, content)
        variables = {"KUBECONFIG": str(self.config), "POD_NAMESPACE": self.operator.namespace, "POD_NAME": pod}
        return subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(self.cluster)],
            env=environment(**variables, RUN_ID=f"id-of-{self.name}", PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cancel(self) -> None:
        """What Kubeflow does to the Workflow when a person ends the run; the launcher's SIGTERM comes after it."""
        body = {"spec": {"activeDeadlineSeconds": 0}}
        self.operator.jobs.patch_namespaced_custom_object(**self.place, name=self.name, body=body)


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code of a launcher, and what it said."""
    try:
        _, said = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the launcher does not end:\n{process.communicate()[1]}") from None
    return process.returncode, said


def until(process: subprocess.Popen[str], line: str) -> None:
    """Reads what a launcher says until that line."""
    assert process.stderr is not None
    read = []
    end = time.monotonic() + 60
    while time.monotonic() < end and (said := process.stderr.readline()):
        read.append(said)
        if line in said:
            return
    raise AssertionError(f"the launcher never said {line!r}:\n{''.join(read)}")

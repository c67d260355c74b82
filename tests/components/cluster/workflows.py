"""Argo Workflows in the test's API server: runs, their steps' pods, and launchers as processes of such pods."""

import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from components.cluster.job import Owner
from components.kubeflow import ending
from tests.commands import environment
from tests.components.cluster.kinds import Kind, Training
from tests.servers.kube_proxy import KubeProxy
from tests.servers.mlflow_server import using
from tests.workers.cluster_launcher import start

WAITS, CREATED = "is there already, and is waited for", ": created"  # what a launcher says of its job
WORKFLOWS = {"group": "argoproj.io", "version": "v1alpha1", "plural": "workflows"}


class Launcher:
    """A launcher in a pod, as a process. said: the file with what it says."""

    def __init__(self, process: ForkServerProcess, said: Path) -> None:
        self.process, self.said = process, said

    def until(self, line: str) -> None:
        """Waits until it says that line."""
        end = time.monotonic() + 60
        while line not in self._text():
            assert self.process.is_alive() and time.monotonic() < end, f"it never said {line!r}:\n{self._text()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """At once, and without a word."""
        self.process.kill()
        self.process.join()

    def ask_to_stop(self) -> None:
        """Kubernetes sends SIGTERM."""
        self.process.terminate()

    def end(self) -> tuple[int | None, str]:
        """Its exit code, and what it said."""
        self.process.join(90)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"the launcher does not end:\n{self._text()}")
        return self.process.exitcode, self._text()

    def _text(self) -> str:
        return self.said.read_text() if self.said.exists() else ""


class Run:
    """A run of the graph: its Workflow, and launchers in pods of its step `train`.

    store: of MLflow. folder: of this test. url: of a proxy in front of the API server.
    """

    def __init__(self, kind: Kind, name: str, store: str, folder: Path, url: str | None = None, **cluster: Any) -> None:
        self.kind, self.name, self.store, self.folder = kind, name, store, folder
        self.cluster = {"kind": kind.name, **cluster}
        self.id = f"{kind.namespace}-{name}"
        self.place = {**WORKFLOWS, "namespace": kind.namespace}
        self.core = client.CoreV1Api(kind.kube.client())
        self.objects = client.CustomObjectsApi(self.core.api_client)
        content = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name},
            "spec": {"entrypoint": "entrypoint"},
            "status": {"phase": "Running"},
        }
        made = self.objects.create_namespaced_custom_object(**self.place, body=content)
        self.owner = Owner("argoproj.io/v1alpha1", "Workflow", name, made["metadata"]["uid"])
        self.config = kind.kube.kubeconfig("launcher", url)
        self.pods = 0

    def start(self) -> Launcher:
        """A launcher in a new pod."""
        self.pods += 1
        pod = f"{self.name}-train-{self.pods}"
        owner = {**self.owner.reference(), "controller": True, "blockOwnerDeletion": True}
        content = {
            "metadata": {"name": pod, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "main", "image": "i"}], "nodeName": "node-1"},
        }
        self.core.create_namespaced_pod(self.kind.namespace, content)
        variables = {"KUBECONFIG": str(self.config), "POD_NAMESPACE": self.kind.namespace, "POD_NAME": pod}
        variables |= {"RUN_ID": self.id, "MLFLOW_TRACKING_URI": self.store, "DUAL_HRNET_PATIENCE": "5"}
        said = self.folder / f"{pod}.txt"
        return Launcher(start(said, environment(**variables), self.cluster), said)

    def cancel(self) -> None:
        """What Kubeflow does to the Workflow when a person ends the run; the launcher's SIGTERM comes after it."""
        self._change({"spec": {"activeDeadlineSeconds": 0}})

    def is_over(self, is_good: bool) -> None:
        """Argo writes down how the step ended, before the exit hook."""
        name = f"{self.name}.root.train(0).executor(0)"
        node: dict[str, Any] = {
            "id": f"{self.name}-1",
            "name": name,
            "type": "Pod",
            "templateName": "system-container-impl",
        }
        node |= {"phase": "Succeeded"} if is_good else {"phase": "Failed", "outputs": {"exitCode": "1"}}
        self._change({"status": {"nodes": {f"{self.name}-1": node}}})

    def owns(self) -> bool:
        """Whether it is one of those who wait for the job."""
        return self.name in [owner["name"] for owner in self.kind.wait()["metadata"]["ownerReferences"]]

    def _change(self, body: dict[str, Any]) -> None:
        self.objects.patch_namespaced_custom_object(**self.place, name=self.name, body=body)


class Stage:
    """One row of the matrix: runs a and b, which want the same training, and what becomes of it."""

    def __init__(self, kind: Kind, proxy: KubeProxy, store: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.kind, self.proxy, self.store, self.folder, self.patch = kind, proxy, store, folder, patch
        self.training = Training(kind, store)
        self.runs: list[Run] = []

    def run(self, through_proxy: bool = False, **cluster: Any) -> Run:
        """A further run."""
        name = f"run-{'ab'[len(self.runs)]}"
        url = self.proxy.url if through_proxy else None
        self.runs.append(Run(self.kind, name, self.store, self.folder, url, **cluster))
        return self.runs[-1]

    def begun(self, **cluster: Any) -> tuple[Run, Launcher]:
        """A run whose training is under way."""
        run = self.run(**cluster)
        launcher = run.start()
        launcher.until(CREATED)
        self.training.begin()
        return run, launcher

    def joined(self) -> tuple[Run, Launcher]:
        """A second run, which waits for the job of the first."""
        run = self.run()
        launcher = run.start()
        launcher.until(WAITS)
        assert all(each.owns() for each in self.runs)
        return run, launcher

    def finish(self, run: Run, is_good: bool) -> None:
        """The run's exit hook."""
        run.is_over(is_good)
        for module in (config, config.kube_config):  # what the library made of $KUBECONFIG when it was imported
            self.patch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", str(self.kind.kube.kubeconfig("launcher")))
        self.patch.setenv("RUN_ID", run.id)
        self.patch.setenv("POD_NAMESPACE", self.kind.namespace)
        with using(self.store):
            ending.finish("", run.name, "")

"""Training jobs without Kubernetes: the command of each pod as processes of this machine, with the variables that an
operator injects; two nodes of two processes on gloo, data and model in S3.
"""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from components.cluster.job import TrainingJob
from components.cluster.launcher import train_arguments
from components.params import load_params
from components.storage.locations import local_input, local_output
from tests.commands import environment
from tests.comparing import tree
from tests.servers.ports import free_port
from tests.servers.s3_server import S3Server
from tests.stores import ready_store
from tests.tiny import FEW_LAYERS, write_params

SETTINGS: dict[str, Any] = {
    "network": FEW_LAYERS,
    "epochs": 1,
    "crops_per_scene": 3,
    "device_batch_size": 1,
    "checkpoint_every": 2,
}
CLUSTER = {"nodes": 2, "devices_per_node": 2, "device_resource": None, "environment": {"OMP_NUM_THREADS": "1"}}


@dataclass(frozen=True)
class Node:
    """What one pod of a job runs. injected: variables that the operator adds to those of its container."""

    container: Mapping[str, Any]
    injected: Mapping[str, str]


class Operator(Protocol):
    """What an operator makes of a job. restarts: how often it starts the job's pods again."""

    restarts: int

    def nodes(self, port: int) -> list[Node]:
        """The job's pods, by rank; port: of the first one."""

    def starts_again(self, code: int) -> bool:
        """Whether a pod that ended with this code is started again."""

    def stops_others(self) -> bool:
        """Whether the other pods are asked to stop when one has failed."""


class Pod:
    """A pod of a job, started as its container would be; `folder` takes the place of its volumes."""

    def __init__(self, node: Node, folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = {variable["name"]: self._local(variable["value"], folder) for variable in node.container["env"]}
        self.log = folder / "log"
        # What tini starts cannot be forked, and would import torch anew; tests/deploy/test_first_process.py has it.
        assert node.container["command"][:2] == ["tini", "--"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*node.container["command"][2:], *node.container["args"]],
                cwd=folder,
                env=environment(**variables) | own | dict(node.injected),
                stdout=log,
                stderr=log,
            )

    def _local(self, value: str, folder: Path) -> str:
        return value.replace("/scratch", str(folder), 1) if value.startswith("/scratch") else value

    def kill(self) -> None:
        """As when its node is lost: all its processes at once."""
        agent = psutil.Process(self.process.pid)
        for process in [*agent.children(recursive=True), agent]:
            process.kill()

    def exit_code(self) -> int | None:
        """As Kubernetes reports it: 137 for what SIGKILL ended; None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code


class Played:
    """The job of the tiny data set, in a prefix of its own, and the operator that runs its pods to the end."""

    def __init__(self, s3: S3Server, prepared: Path, folder: Path, operator: Callable[[TrainingJob], Operator]) -> None:
        self.s3, self.folder, self.root = s3, folder, f"s3://data/{folder.name}"
        params = load_params(write_params(folder / "params.yaml", {"train": SETTINGS, "cluster": CLUSTER}))
        with local_output(f"{self.root}/prepared") as data:
            data.mkdir(parents=True)
            for name, content in tree(prepared).items():
                (data / name).parent.mkdir(exist_ok=True)
                (data / name).write_bytes(content)
        self.out = f"{self.root}/train"
        self.operator = operator(
            TrainingJob(
                name="played",
                namespace="damage",
                image="example.org/damage@sha256:1",
                arguments=train_arguments(params, [f"{self.root}/prepared"], self.out),
                output=self.out,
                cluster=params.cluster,
                environment={
                    "AWS_ENDPOINT_URL": s3.endpoint,
                    "MLFLOW_TRACKING_URI": ready_store(folder),
                },
            )
        )
        self.restarts = 0

    def start(self) -> list[Pod]:
        nodes = self.operator.nodes(free_port())
        return [Pod(node, self.folder / f"pod-{rank}", self.s3.environment) for rank, node in enumerate(nodes)]

    def run(self, disturb: Callable[[list[Pod]], None] | None = None) -> None:
        """Until all pods have succeeded; those that may are started again, all of them when one is."""
        pods = self.start()
        if disturb is not None:
            disturb(pods)
        deadline = time.monotonic() + 400
        while (codes := self._wait(pods, deadline)) != [0] * len(pods):
            logs = "\n".join(pod.log.read_text() for pod in pods)
            assert all(self.operator.starts_again(code) for code in codes if code), (codes, logs)
            self.restarts += 1
            assert self.restarts <= self.operator.restarts, logs
            pods = self.start()

    def output(self) -> dict[str, bytes]:
        with local_input(self.out) as folder:
            return tree(folder)

    def lose_the_worker(self, pods: list[Pod]) -> None:
        """Kills the second node when the first has written a checkpoint."""
        deadline = time.monotonic() + 120
        while not list((self.folder / "pod-0" / "cache").rglob("checkpoint.json")):
            assert time.monotonic() < deadline and pods[0].process.poll() is None, pods[0].log.read_text()
            time.sleep(0.02)
        pods[1].kill()

    def _wait(self, pods: list[Pod], deadline: float) -> list[int]:
        """The exit codes, when all have ended."""
        asked = False
        while None in (codes := [pod.exit_code() for pod in pods]):
            assert time.monotonic() < deadline, "\n".join(pod.log.read_text() for pod in pods)
            if any(codes) and not asked and self.operator.stops_others():
                asked = True
                for pod, code in zip(pods, codes, strict=True):
                    if code is None:
                        pod.process.terminate()
            time.sleep(0.05)
        return [code for code in codes if code is not None]

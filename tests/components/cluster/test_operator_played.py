"""Our PyTorchJob without Kubernetes: each pod's own command as processes of this machine, with the variables that the
training operator injects (https://github.com/kubeflow/trainer/blob/v1.9.4/pkg/controller.v1/pytorch/envvar.go), two
nodes of two processes on gloo, data and model in S3.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.cluster.job import TrainJob
from components.cluster.pytorchjob.launcher import manifest, train_arguments
from components.params import load_params
from components.storage.locations import local_input
from tests.commands import environment
from tests.comparing import tree
from tests.servers.ports import free_port
from tests.servers.s3_server import S3Server
from tests.stores import ready_store
from tests.tiny import write_params
from tests.workers.forked_training import trained

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 1, "crops_per_scene": 4, "device_batch_size": 1, "checkpoint_every": 2}
CLUSTER = {"nodes": 2, "devices_per_node": 2, "device_resource": None, "environment": {"OMP_NUM_THREADS": "1"}}


class Pod:
    """One replica of a job, started as its container would be; `folder` takes the place of its volumes."""

    def __init__(
        self, job: Mapping[str, Any], index: int, port: int, folder: Path, variables: Mapping[str, str]
    ) -> None:
        replicas = job["spec"]["pytorchReplicaSpecs"]
        container = replicas["Worker" if index else "Master"]["template"]["spec"]["containers"][0]
        nodes = sum(replica["replicas"] for replica in replicas.values())
        processes = job["spec"]["nprocPerNode"]
        injected = {
            "PYTHONUNBUFFERED": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(nodes * int(processes)),
            "RANK": str(index),
            "PET_NNODES": str(nodes),
            "PET_NPROC_PER_NODE": processes,
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        folder.mkdir(parents=True, exist_ok=True)
        own = {variable["name"]: self._local(variable["value"], folder) for variable in container["env"]}
        self.replica, self.log = replicas["Worker" if index else "Master"], folder / "log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=folder,
                env=environment(**variables) | own | injected,
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

    def starts_again(self, code: int) -> bool:
        """Whether the operator starts a pod again that ended with this code."""
        assert self.replica["restartPolicy"] == "ExitCode"
        return code >= 128


def exit_code(pod: Pod, deadline: float) -> int:
    """As Kubernetes reports it: 137 for what SIGKILL ended."""
    code = pod.process.wait(deadline - time.monotonic())
    return code if code >= 0 else 128 - code


class Played:
    """The job of the tiny data set, in a prefix of its own, and the operator that runs its pods to the end."""

    def __init__(self, s3: S3Server, prepared: Path, folder: Path) -> None:
        self.s3, self.folder, self.root = s3, folder, f"s3://data/{folder.name}"
        params = load_params(write_params(folder / "params.yaml", {"train": SETTINGS, "cluster": CLUSTER}))
        from components.storage.locations import local_output

        with local_output(f"{self.root}/prepared") as data:
            data.mkdir(parents=True)
            for name, content in tree(prepared).items():
                (data / name).parent.mkdir(exist_ok=True)
                (data / name).write_bytes(content)
        self.out = f"{self.root}/train"
        self.job = manifest(
            TrainJob(
                name="played",
                namespace="damage",
                image="example.org/damage@sha256:1",
                arguments=train_arguments(params, [f"{self.root}/prepared"], self.out),
                cluster=params.cluster,
                environment={
                    "AWS_ENDPOINT_URL": s3.endpoint,
                    "MLFLOW_TRACKING_URI": ready_store(folder),
                },
            )
        )
        self.restarts = 0

    def start(self) -> list[Pod]:
        port = free_port()
        return [Pod(self.job, index, port, self.folder / f"pod-{index}", self.s3.environment) for index in range(2)]

    def run(self, disturb: Any = None) -> None:
        """Until the master has succeeded; pods that may are started again, all of them when one is."""
        pods = self.start()
        if disturb is not None:
            disturb(pods)
        deadline = time.monotonic() + 240
        while (codes := [exit_code(pod, deadline) for pod in pods]) != [0, 0]:
            logs = "\n".join(pod.log.read_text() for pod in pods)
            assert all(pod.starts_again(code) for pod, code in zip(pods, codes, strict=True) if code), (codes, logs)
            self.restarts += 1
            assert self.restarts <= self.job["spec"]["runPolicy"]["backoffLimit"], logs
            pods = self.start()

    def output(self) -> dict[str, bytes]:
        with local_input(self.out) as folder:
            return tree(folder)


@pytest.fixture(scope="module")
def reachable(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 server, for this process too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (s3.environment | {"DUAL_HRNET_CACHE": str(tmp_path_factory.mktemp("cache"))}).items():
            patch.setenv(name, value)
        yield s3


@pytest.fixture(scope="module")
def undisturbed(reachable: S3Server, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    played = Played(reachable, prepared, tmp_path_factory.mktemp("undisturbed"))
    played.run()
    assert played.restarts == 0
    return played.output()


def test_two_pods_train_a_model_and_leave_it_in_s3_with_its_checkpoints(undisturbed: dict[str, bytes]) -> None:
    names = set(undisturbed)
    assert {"model/model.safetensors", "model/config.json", "history.csv", "run.json"} <= names
    assert any(name.startswith("checkpoints/") and name.endswith("checkpoint.json") for name in names)
    assert len(undisturbed["history.csv"].splitlines()) == 1 + SETTINGS["epochs"]


def test_two_nodes_of_two_train_what_four_processes_of_one_node_train(
    undisturbed: dict[str, bytes], prepared: Path, tmp_path: Path
) -> None:
    params = write_params(tmp_path / "params.yaml", {"train": SETTINGS})
    arguments = ("--params", params, "--data", prepared, "--out", tmp_path / "out")
    assert trained(4, (tmp_path / "log", *arguments), cwd=tmp_path) == [[0] * 4], (tmp_path / "log").read_text()
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == undisturbed["model/model.safetensors"]


def test_a_lost_node_comes_back_and_the_weights_are_those_of_the_undisturbed_run(
    undisturbed: dict[str, bytes], reachable: S3Server, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    played = Played(reachable, prepared, tmp_path_factory.mktemp("lost"))

    def lose_the_worker(pods: list[Pod]) -> None:
        written = "pod-0/cache"
        deadline = time.monotonic() + 120
        while not list((played.folder / written).rglob("checkpoint.json")):
            assert time.monotonic() < deadline and pods[0].process.poll() is None, pods[0].log.read_text()
            time.sleep(0.02)
        pods[1].kill()

    played.run(lose_the_worker)
    assert played.restarts == 1
    assert played.output()["model/model.safetensors"] == undisturbed["model/model.safetensors"]

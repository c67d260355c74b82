"""Our PyTorchJob without Kubernetes: each pod's own command as processes of this machine, with the variables that the
training operator injects (https://github.com/kubeflow/trainer/blob/v1.9.4/pkg/controller.v1/pytorch/envvar.go).
"""

from pathlib import Path

import pytest

from components.cluster.job import TrainingJob
from components.cluster.pytorchjob.manifest import manifest
from tests.servers.pods import SETTINGS, Node, Played
from tests.servers.s3_server import S3Server
from tests.tiny import write_params
from tests.workers.forked_training import trained

pytestmark = pytest.mark.endurance


class TrainingOperator:
    """The training operator 1.9."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = manifest(job)
        self.replicas = self.job["spec"]["pytorchReplicaSpecs"]
        self.restarts = self.job["spec"]["runPolicy"]["backoffLimit"]

    def nodes(self, port: int) -> list[Node]:
        nodes = sum(replica["replicas"] for replica in self.replicas.values())
        processes = self.job["spec"]["nprocPerNode"]
        shared = {
            "PYTHONUNBUFFERED": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(nodes * int(processes)),
            "PET_NNODES": str(nodes),
            "PET_NPROC_PER_NODE": processes,
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        return [
            Node(self._container(rank), {**shared, "RANK": str(rank), "PET_NODE_RANK": str(rank)})
            for rank in range(nodes)
        ]

    def _container(self, rank: int) -> dict[str, object]:
        (container,) = self.replicas["Worker" if rank else "Master"]["template"]["spec"]["containers"]
        return dict(container)

    def starts_again(self, code: int) -> bool:
        assert {replica["restartPolicy"] for replica in self.replicas.values()} == {"ExitCode"}
        return code >= 128

    def stops_others(self) -> bool:
        return False


@pytest.fixture(scope="module")
def undisturbed(reachable: S3Server, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    played = Played(reachable, prepared, tmp_path_factory.mktemp("undisturbed"), TrainingOperator)
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
    played = Played(reachable, prepared, tmp_path_factory.mktemp("lost"), TrainingOperator)
    played.run(played.lose_the_worker)
    assert played.restarts == 1
    assert played.output()["model/model.safetensors"] == undisturbed["model/model.safetensors"]

"""Our TrainJob without Kubernetes: each pod's own command as processes of this machine, with the variables that
Kubeflow Trainer 2.3 injects, which sets neither MASTER_ADDR nor RANK (recorded: v2-ok).
"""

from pathlib import Path
from typing import Any

import pytest

from components.cluster.job import TrainingJob
from components.cluster.trainjob.backend import TrainJobs
from tests.servers.pods import Node, Played
from tests.servers.s3_server import S3Server
from tests.servers.trainer_operator import node_job

pytestmark = pytest.mark.endurance
LOCAL = "127.0.0.1"


class Trainer:
    """Kubeflow Trainer 2.3 with JobSet 0.12."""

    def __init__(self, job: TrainingJob) -> None:
        runtime, trainjob = TrainJobs().manifests(job)
        self.job = node_job(runtime, trainjob)
        self.restarts = runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"]

    def nodes(self, port: int) -> list[Node]:
        (container,) = self.job["spec"]["template"]["spec"]["containers"]
        env = container["env"]
        added = {entry["name"]: entry.get("value", "") for entry in env if entry["name"].startswith("PET_")}
        own = {**container, "env": [entry for entry in env if entry["name"] not in added]}
        here = {"PET_MASTER_ADDR": LOCAL, "PET_MASTER_PORT": str(port)}
        return [
            Node(own, {**added, **here, "PET_NODE_RANK": str(rank), "JOB_COMPLETION_INDEX": str(rank)})
            for rank in range(self.job["spec"]["completions"])
        ]

    def starts_again(self, code: int) -> bool:
        rules: list[dict[str, Any]] = self.job["spec"]["podFailurePolicy"]["rules"]
        codes = rules[1]["onExitCodes"]
        assert (rules[1]["action"], codes["operator"]) == ("FailJob", "NotIn")
        return code in codes["values"]

    def stops_others(self) -> bool:
        """The Job has failed with its first pod, and JobSet makes another."""
        return True


def test_two_pods_train_and_a_lost_node_changes_no_weight(
    reachable: S3Server, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = Played(reachable, prepared, tmp_path_factory.mktemp("trainjob"), Trainer)
    undisturbed.run()
    assert undisturbed.restarts == 0
    weights = undisturbed.output()["model/model.safetensors"]
    disturbed = Played(reachable, prepared, tmp_path_factory.mktemp("trainjob-lost"), Trainer)
    disturbed.run(disturbed.lose_the_worker)
    assert disturbed.restarts == 1
    assert disturbed.output()["model/model.safetensors"] == weights

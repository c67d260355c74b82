"""The operators of both kinds of jobs as a launcher sees them, by the same words, and the training in their pods."""

from typing import Any, Protocol

from mlflow.tracking import MlflowClient

from components.cluster.job import RUN_LABEL
from tests.servers.kube_api import KubeApi
from tests.servers.trainer_operator import JOBSETS, TrainerOperator
from tests.servers.training_operator import NOW, Operator, is_deleted

NAME = "train-1"
STANDS = {"name": "node", "active": 0, "ready": 0, "failed": 0, "succeeded": 0, "suspended": 0}


class Kind(Protocol):
    """An operator in a namespace, with one job. told: what a launcher says of its first restart."""

    name: str
    told: str
    kube: KubeApi
    namespace: str

    def wait(self) -> dict[str, Any]:
        """The job, as soon as it is there."""

    def left(self) -> list[str]:
        """Jobs that nobody deletes."""

    def run_of_pods(self) -> str:
        """The pipeline run whose id the job's pods carry."""

    def run(self) -> None:
        """The pods run."""

    def restart(self) -> None:
        """A node is gone, and the operator starts again what was on it."""

    def exhaust(self) -> None:
        """The operator ends a job that was restarted too often, if it does that."""

    def succeed(self) -> None:
        """The job has succeeded."""

    def fail(self) -> None:
        """The job has failed."""

    def delete(self) -> None:
        """Somebody deletes the job."""


class PyTorchKind:
    """The training operator."""

    name, told = "pytorchjob", "was started again, 1 of "

    def __init__(self, kube: KubeApi) -> None:
        self.operator = Operator(kube)
        self.kube, self.namespace = kube, self.operator.namespace

    def wait(self) -> dict[str, Any]:
        return self.operator.wait(NAME)

    def left(self) -> list[str]:
        return [name for name in self.operator.names() if not is_deleted(self.operator.get(name))]

    def run_of_pods(self) -> str:
        template = self.wait()["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        return str(template["metadata"]["labels"][RUN_LABEL])

    def run(self) -> None:
        self.operator.report(NAME, "Created", "Running")

    def restart(self) -> None:
        self.operator.lose_pod(NAME)

    def exhaust(self) -> None:
        """With exit codes it never does: it goes on."""

    def succeed(self) -> None:
        self.operator.report(NAME, "Created", "Running", "Succeeded")

    def fail(self) -> None:
        self.operator.report(NAME, "Created", "Running", "Failed", message="Master replica(s) failed.")

    def delete(self) -> None:
        self.operator.delete(NAME, "Background")


class TrainKind:
    """Kubeflow Trainer and JobSet."""

    name, told = "trainjob", "restart 1: "

    def __init__(self, kube: KubeApi) -> None:
        self.trainer = TrainerOperator(kube)
        self.kube, self.namespace, self.restarts = kube, self.trainer.namespace, 0

    def wait(self) -> dict[str, Any]:
        return self.trainer.wait(NAME)

    def left(self) -> list[str]:
        return self.trainer.names()

    def run_of_pods(self) -> str:
        self.wait()
        (node,) = self.trainer.get(NAME, "trainingruntimes")["spec"]["template"]["spec"]["replicatedJobs"]
        return str(node["template"]["spec"]["template"]["metadata"]["labels"][RUN_LABEL])

    def run(self) -> None:
        place = {**JOBSETS, "namespace": self.namespace}
        body = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": NAME}, "spec": {}}
        self.trainer.objects.create_namespaced_custom_object(**place, body=body)
        self._report({"jobsStatus": [{**STANDS, "active": 1, "ready": 1}]})

    def restart(self) -> None:
        self.restarts += 1
        place = {**JOBSETS, "namespace": self.namespace, "name": NAME}
        condition = {
            "type": "RestartingJobSet",
            "status": "True",
            "reason": "JobSetRestarted",
            "message": "it restarts",
        }
        condition["lastTransitionTime"] = NOW
        body = {"status": {"restarts": self.restarts, "conditions": [condition]}}
        self.trainer.objects.patch_namespaced_custom_object_status(**place, body=body)

    def exhaust(self) -> None:
        self._end("Failed", "ReachedMaxRestarts", "jobset failed due to reaching max number of restarts")

    def succeed(self) -> None:
        self._end("Complete", "AllJobsCompleted", "jobset completed successfully")

    def fail(self) -> None:
        self._end("Failed", "FailJobSetFailurePolicyAction", "failure policy rule fatal matched")

    def delete(self) -> None:
        self.trainer.delete(NAME)

    def _end(self, kind: str, reason: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": NOW}
        self._report({"conditions": [condition]})

    def _report(self, status: dict[str, Any]) -> None:
        place = {**self.trainer.place(), "name": NAME}
        self.trainer.objects.patch_namespaced_custom_object_status(**place, body={"status": status})


class Training:
    """The training in the pods of a job, as MLflow sees it."""

    def __init__(self, kind: Kind, store: str) -> None:
        self.kind, self.mlflow, self.id = kind, MlflowClient(store), ""

    def begin(self) -> None:
        """The pods run, and the training has begun its run, which knows the pipeline run of the pods."""
        pipeline_run = self.kind.run_of_pods()
        self.kind.run()
        self.id = self.mlflow.create_run("0", tags={"pipeline_run": pipeline_run}).info.run_id

    def end(self, status: str) -> None:
        """The training says how it ended: FINISHED, FAILED or, where its pods are asked to stop, KILLED."""
        self.mlflow.set_terminated(self.id, status)
        if status == "FINISHED":
            self.kind.succeed()
        elif status == "FAILED":
            self.kind.fail()

    def stands(self) -> tuple[str, str] | None:
        """Its status in MLflow and how that says the pipeline ended; None where nothing was trained."""
        if not self.id:
            return None
        run = self.mlflow.get_run(self.id)
        return run.info.status, run.data.tags.get("pipeline_status", "")

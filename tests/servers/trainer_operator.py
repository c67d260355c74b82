"""Kubeflow Trainer 2.3, JobSet, the kubelet and the garbage collector in one namespace, as far as a launcher of
TrainJobs sees them: they do again, on a real Kubernetes API server, what they did in a recording.
"""

import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from kubernetes import client, watch

from tests.paths import ROOT
from tests.servers.kube_api import WAIT_SECONDS, KubeApi, definition

DEFINITIONS = (
    "trainer.kubeflow.org_trainjobs_v2.3.0.yaml",
    "trainer.kubeflow.org_trainingruntimes_v2.3.0.yaml",
    "jobset.x-k8s.io_jobsets_v0.12.0.yaml",
)
# What a launcher of TrainJobs needs beside what one of PyTorchJobs does.
RULES = [
    {
        "apiGroups": ["trainer.kubeflow.org"],
        "resources": ["trainjobs"],
        "verbs": ["create", "delete", "get", "list", "patch", "watch"],
    },
    {
        "apiGroups": ["trainer.kubeflow.org"],
        "resources": ["trainingruntimes"],
        "verbs": ["create", "get", "patch"],
    },
    {"apiGroups": ["jobset.x-k8s.io"], "resources": ["jobsets"], "verbs": ["get", "list", "watch"]},
]
RECORDED = ROOT / "tests" / "components" / "cluster" / "recorded" / "trainjob"
TRAINER = {"group": "trainer.kubeflow.org", "version": "v1alpha1"}
JOBSETS = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "plural": "jobsets"}
Object = dict[str, Any]


@cache
def recording(name: str) -> list[Object]:
    """What a cluster had at each change of a TrainJob's status, see recorded/README.md."""
    lines = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def node_job(runtime: Object, trainjob: Object) -> Object:
    """The Job whose pods are the nodes, as Trainer and JobSet make it (recorded: the Job of v2-ok)."""
    name, trainer = trainjob["metadata"]["name"], trainjob["spec"]["trainer"]
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    job: Object = json.loads(json.dumps(replicated["template"]))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container |= {key: trainer[key] for key in ("image", "command", "args")}
    for kind, sizes in trainer["resourcesPerNode"].items():
        container.setdefault("resources", {}).setdefault(kind, {}).update(sizes)
    rank = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    container["env"] = [
        *trainer["env"],
        {"name": "PET_NNODES", "value": str(trainer["numNodes"])},
        {"name": "PET_NPROC_PER_NODE", "value": str(trainer["numProcPerNode"])},
        {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": rank}}},
        {"name": "PET_MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
        {"name": "PET_MASTER_PORT", "value": "29500"},
    ]
    nodes = trainer["numNodes"]
    job["spec"] |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    return {"apiVersion": "batch/v1", "kind": "Job", **job, "metadata": {**job["metadata"], "name": f"{name}-node-0"}}


class TrainerOperator:
    """The operators of one namespace, which replay recordings."""

    def __init__(self, kube: KubeApi) -> None:
        kube.install(*map(definition, DEFINITIONS))
        self.kube, self.namespace = kube, kube.new_namespace()
        self.objects = client.CustomObjectsApi(kube.client())
        self.core = client.CoreV1Api(self.objects.api_client)
        self.pods: dict[str, str] = {}  # recorded uid: name here
        self.jobset = ""  # recorded uid of the one that is here
        self.events = 0

    def place(self, plural: str = "trainjobs") -> Object:
        """Arguments that say where the objects of a kind are."""
        return {**TRAINER, "namespace": self.namespace, "plural": plural}

    def wait(self, name: str, condition: Callable[[Object], object] = bool) -> Object:
        """The TrainJob, as soon as it is there and the condition holds."""
        place = {**self.place(), "field_selector": f"metadata.name={name}", "timeout_seconds": WAIT_SECONDS}
        for event in watch.Watch().stream(self.objects.list_namespaced_custom_object, **place):
            if condition(event["object"]):
                return dict(event["object"])
        raise AssertionError(f"{self.namespace}/{name} never came to what the test waits for")

    def get(self, name: str, plural: str = "trainjobs") -> Object:
        return dict(self.objects.get_namespaced_custom_object(**self.place(plural), name=name))

    def names(self, plural: str = "trainjobs") -> list[str]:
        items = self.objects.list_namespaced_custom_object(**self.place(plural))["items"]
        return [one["metadata"]["name"] for one in items]

    def replay(self, name: str, scenario: str, first: int = 0, last: int | None = None, pause: float = 0.1) -> None:
        """What happened from that row of a recording to that one, to the TrainJob of this name."""
        for row in recording(scenario)[first:last]:
            self.show(name, row)
            time.sleep(pause)

    def show(self, name: str, row: Object) -> None:
        """Brings about what a row of a recording has; the status of the TrainJob comes last."""
        job = row["trainjob"]
        recorded = job["metadata"]["name"]
        for event in row.get("events", []):
            self._event(name, event)
        self._show_jobset(name, row.get("jobsets", []))
        seen = {pod["metadata"]["uid"]: pod for pod in row.get("pods", [])}
        for uid in [uid for uid in self.pods if uid not in seen]:
            self._delete_pod(self.pods.pop(uid))
        for pod in seen.values():
            self._show_pod(name, recorded, pod)
        place = {**self.place(), "name": name}
        self.objects.patch_namespaced_custom_object(**place, body={"spec": {"suspend": job["spec"]["suspend"]}})
        if "status" in job:
            text = json.dumps(job["status"]).replace(f"{recorded}-node", f"{name}-node")
            self.objects.patch_namespaced_custom_object_status(**place, body={"status": json.loads(text)})

    def collect(self, name: str) -> None:
        """The garbage collector: what belonged to a TrainJob that is gone."""
        for pod in self.pods.values():
            self._delete_pod(pod)
        self.pods.clear()
        self._show_jobset(name, [])
        if name in self.names("trainingruntimes"):
            self.delete(name, "trainingruntimes")

    def delete(self, name: str, plural: str = "trainjobs") -> None:
        """Somebody deletes an object."""
        body = {"propagationPolicy": "Background"}
        self.objects.delete_namespaced_custom_object(**self.place(plural), name=name, body=body)

    def _show_jobset(self, name: str, recorded: list[Object]) -> None:
        place = {**JOBSETS, "namespace": self.namespace}
        uid = recorded[0]["metadata"]["uid"] if recorded else ""
        if self.jobset not in ("", uid):
            self.objects.delete_namespaced_custom_object(**place, name=name)
        if uid and uid != self.jobset:
            body = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": name}, "spec": {}}
            self.objects.create_namespaced_custom_object(**place, body=body)
        self.jobset = uid
        if recorded:
            body = {"status": recorded[0]["status"]}
            self.objects.patch_namespaced_custom_object_status(**place, name=name, body=body)

    def _show_pod(self, job: str, recorded: str, pod: Object) -> None:
        metadata = pod["metadata"]
        if metadata["uid"] not in self.pods:
            here = metadata["name"].replace(recorded, job, 1)
            labels = metadata["labels"] | {"jobset.sigs.k8s.io/jobset-name": job}
            # On a node that is not there: its logs cannot be read.
            spec = {"containers": [{"name": "node", "image": "i"}], "nodeName": "node-1", "restartPolicy": "Never"}
            self.core.create_namespaced_pod(
                self.namespace, {"metadata": {"name": here, "labels": labels}, "spec": spec}
            )
            self.pods[metadata["uid"]] = here
        here = self.pods[metadata["uid"]]
        self.core.patch_namespaced_pod_status(here, self.namespace, {"status": pod["status"]})
        if "deletionTimestamp" in metadata and pod["status"]["phase"] not in ("Failed", "Succeeded"):
            self.core.delete_namespaced_pod(here, self.namespace)  # of one that has ended nothing would be left

    def _delete_pod(self, name: str) -> None:
        """As the kubelet does when its containers have ended."""
        self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)

    def _event(self, name: str, event: Object) -> None:
        self.events += 1
        body = {
            **event,
            "metadata": {"name": f"{name}.{self.events}"},
            "involvedObject": {**event["involvedObject"], "name": name, "namespace": self.namespace},
        }
        self.core.create_namespaced_event(self.namespace, body)

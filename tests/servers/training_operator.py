"""What happens around a launcher of PyTorchJobs, played by the tests: operator, kubelet and garbage collector."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from kubernetes import client, watch

from components.cluster.api import Api, JobPatience
from components.cluster.backend import Backend
from components.cluster.job import Finished, TrainingJob
from components.cluster.launcher import run
from components.cluster.pytorchjob.backend import PyTorchJobs
from components.cluster.pytorchjob.manifest import manifest
from components.cluster.watching.record import RECORD_ANNOTATION
from components.params import load_params
from tests.paths import ROOT
from tests.servers.kube_api import PLACE, WAIT_SECONDS, KubeApi, eventually

RECORDED = ROOT / "tests" / "components" / "cluster" / "recorded" / "pytorchjob"
WORKLOADS = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "workloads"}
PYTORCHJOBS = PyTorchJobs()
NOW = "2026-01-02T03:04:05Z"
CLUSTER = load_params(ROOT / "params.yaml").cluster.model_copy(update={"deadline_seconds": 20})
QUICK = JobPatience(first_pause=0.05, longest_pause=0.1, away=1, watch=5, look=0.1, logs=0.05, unclaimed=60, drain=5)


class Played(Protocol):
    """An operator of one namespace that a test plays."""

    kube: KubeApi
    namespace: str


class Operator:
    """The training operator, the kubelet and the garbage collector in one namespace, as far as a launcher sees them."""

    def __init__(self, kube: KubeApi) -> None:
        self.kube, self.namespace = kube, kube.new_namespace()
        self.jobs = client.CustomObjectsApi(kube.client())
        self.core = client.CoreV1Api(self.jobs.api_client)
        self.place = {**PLACE, "namespace": self.namespace}

    def wait(self, name: str, condition: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
        """The job, as soon as it is there and the condition holds."""
        for event in watch.Watch().stream(
            self.jobs.list_namespaced_custom_object,
            **self.place,
            field_selector=f"metadata.name={name}",
            timeout_seconds=WAIT_SECONDS,
        ):
            if condition(event["object"]):
                return dict(event["object"])
        raise AssertionError(f"{self.namespace}/{name} never came to what the test waits for")

    def get(self, name: str) -> dict[str, Any]:
        return dict(self.jobs.get_namespaced_custom_object(**self.place, name=name))

    def create(self, job: TrainingJob) -> str:
        """Creates a job as a launcher does; returns its uid."""
        made = self.jobs.create_namespaced_custom_object(**self.place, body=manifest(job))
        return str(made["metadata"]["uid"])

    def names(self) -> list[str]:
        return [job["metadata"]["name"] for job in self.jobs.list_namespaced_custom_object(**self.place)["items"]]

    def report(self, name: str, *conditions: str, message: str = "") -> None:
        """Sets the status as the operator does: all conditions that came about, those that are over as False."""
        over = {"Running"} if {"Succeeded", "Failed"} & set(conditions) else set()
        listed = [
            {
                "type": kind,
                "status": "False" if kind in over else "True",
                "reason": f"PyTorchJob{kind}",
                "message": message if message and kind == conditions[-1] else f"PyTorchJob {name} is {kind.lower()}.",
                "lastTransitionTime": NOW,
                "lastUpdateTime": NOW,
            }
            for kind in conditions
        ]
        status: dict[str, Any] = {"conditions": listed, "startTime": NOW, "replicaStatuses": {}}
        if over:
            status["completionTime"] = NOW
        self.jobs.patch_namespaced_custom_object_status(**self.place, name=name, body={"status": status})

    def replace(self, name: str, uid: str, *conditions: str) -> None:
        """The job of that uid is deleted and its successor is taken up."""
        self.wait(name, lambda job: is_deleted(job) or job["metadata"]["uid"] != uid)
        self.collect(name)
        self.wait(name, lambda job: job["metadata"]["uid"] != uid)
        self.report(name, *conditions)

    def start_pod(self, name: str, role: str = "master", index: int = 0, **status: Any) -> str:
        """Creates a pod of the job with the operator's labels and a status; returns its name."""
        job = self.get(name)
        labels = {"job-name": name, "replica-type": role, "replica-index": str(index)}
        template = job["spec"]["pytorchReplicaSpecs"][role.capitalize()]["template"]
        owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": name, "uid": job["metadata"]["uid"]}
        pod = {
            "metadata": {
                "name": f"{name}-{role}-{index}",
                "labels": {f"training.kubeflow.org/{key}": value for key, value in labels.items()},
                "ownerReferences": [owner],
            },
            # On a node that is not there: its logs cannot be read.
            "spec": {**template["spec"], "restartPolicy": "Never", "nodeName": "node-1"},
        }
        self.core.create_namespaced_pod(self.namespace, pod)
        self.core.patch_namespaced_pod_status(pod["metadata"]["name"], self.namespace, {"status": status})
        return str(pod["metadata"]["name"])

    def replay(self, name: str, moments: Iterable[Mapping[str, Any]], pause: float = 0.15) -> None:
        """Does to the job of that name what a real cluster did, moment by moment, until somebody deletes it."""
        self.wait(name)
        pods: dict[str, str] = {}  # recorded uid of each that is there
        said: list[Mapping[str, Any]] = []
        for moment in moments:
            if moment["pytorchjob"] is None:
                self.delete(name, "Background")
                return
            if is_deleted(self.get(name)):
                return
            there = {pod["metadata"]["uid"] for pod in moment.get("pods", [])}
            for end in moment.get("ended", []):
                uid = pods.get(end["pod"], "")
                if uid.startswith(end["uid"]) and uid not in there:  # else its own status tells more
                    self._patch_pod(end["pod"], ended(end["exitCode"], reason=end["reason"]))
            self._replay_pods(name, moment.get("pods", []), pods)
            for event in moment.get("events", []):
                if event not in said:
                    self._say(name, event)
                    said.append(event)
            for workload in moment.get("workloads", []):
                self._suspend_in_queue(name, workload)
            suspend = {
                "spec": {"runPolicy": {"suspend": bool(moment["pytorchjob"]["spec"]["runPolicy"].get("suspend"))}}
            }
            self.jobs.patch_namespaced_custom_object(**self.place, name=name, body=suspend)
            if status := moment["pytorchjob"].get("status"):
                body = {"status": {"replicaStatuses": {}, **status}}
                self.jobs.patch_namespaced_custom_object_status(**self.place, name=name, body=body)
            time.sleep(pause)

    def _replay_pods(self, name: str, recorded: Iterable[Mapping[str, Any]], pods: dict[str, str]) -> None:
        there = {pod["metadata"]["name"]: pod for pod in recorded}
        for pod, uid in list(pods.items()):
            if pod not in there or there[pod]["metadata"]["uid"] != uid:
                self.core.delete_namespaced_pod(pod, self.namespace, grace_period_seconds=0)
                del pods[pod]
        for pod, content in there.items():
            if pod in pods:
                self._patch_pod(pod, content["status"])
                continue
            labels = content["metadata"]["labels"]
            role, index = (labels[f"training.kubeflow.org/replica-{key}"] for key in ("type", "index"))
            self.start_pod(name, role, int(index), **whole(content["status"]))
            pods[pod] = content["metadata"]["uid"]

    def _patch_pod(self, pod: str, status: Mapping[str, Any]) -> None:
        self.core.patch_namespaced_pod_status(pod, self.namespace, {"status": whole(status)})

    def _say(self, name: str, event: Mapping[str, Any]) -> None:
        job = self.get(name)
        about = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": job["metadata"]["uid"]}
        metadata = {"generateName": f"{name}.", "namespace": self.namespace}
        about["namespace"] = self.namespace
        self.core.create_namespaced_event(self.namespace, {**event, "metadata": metadata, "involvedObject": about})

    def _suspend_in_queue(self, name: str, workload: Mapping[str, Any]) -> None:
        """Kueue's own object for the job, as it stands."""
        place = {**WORKLOADS, "namespace": self.namespace}
        labels = {"kueue.x-k8s.io/job-uid": self.get(name)["metadata"]["uid"]}
        content = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {"name": workload["metadata"]["name"], "labels": labels},
            "status": workload["status"],
        }
        try:
            self.jobs.create_namespaced_custom_object(**place, body=content)
        except client.ApiException as error:
            assert error.status == 409, error
            self.jobs.patch_namespaced_custom_object(**place, name=content["metadata"]["name"], body=content)

    def delete(self, name: str, how: str = "Foreground") -> None:
        """Somebody deletes the job."""
        self.jobs.delete_namespaced_custom_object(**self.place, name=name, body={"propagationPolicy": how})

    def lose_pod(self, name: str, role: str = "master") -> None:
        """The node of a pod is gone, and the operator creates the pod again."""
        pod = f"{name}-{role}-0"
        if pod not in [one.metadata.name for one in self.core.list_namespaced_pod(self.namespace).items]:
            self.start_pod(name, role, phase="Running")
            eventually(lambda: pod in self.record(name), "the launcher has not seen the pod")
        self.core.delete_namespaced_pod(pod, self.namespace, grace_period_seconds=0)
        self.start_pod(name, role, phase="Running")

    def record(self, name: str) -> str:
        """What a launcher has written down on the job."""
        return str(self.get(name)["metadata"]["annotations"].get(RECORD_ANNOTATION))

    def collect(self, name: str) -> None:
        """The garbage collector has deleted all pods of a job that is being deleted."""
        patch: dict[str, Any] = {"metadata": {"finalizers": []}}
        self.jobs.patch_namespaced_custom_object(**self.place, name=name, body=patch)


def whole(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a recorded pod, with what the API server wants to have and the recording leaves out."""
    containers = [
        {"image": "i", "imageID": "", "ready": False, **container} for container in status.get("containerStatuses", [])
    ]
    return {**status, "containerStatuses": containers} if containers else dict(status)


def recording(name: str) -> list[dict[str, Any]]:
    """What a real cluster had, moment by moment; see tests/components/cluster/recorded/README.md."""
    text = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def ended(code: int, at: str = NOW, reason: str = "Error") -> dict[str, Any]:
    """The status of a pod whose container ended."""
    end = {"exitCode": code, "finishedAt": at, "reason": reason}
    container = {"name": "pytorch", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {"phase": "Failed", "containerStatuses": [{**container, "state": {"terminated": end}}]}


def job_in(operator: Played, nodes: int = 1, **changes: Any) -> TrainingJob:
    cluster = CLUSTER.model_copy(update={"nodes": nodes, **changes.pop("cluster", {})})
    usual = TrainingJob("train-1", operator.namespace, "image@sha256:1", ["--out", "s3://b/o"], "s3://b/o", cluster)
    return replace(usual, **changes)


def launch(
    job: TrainingJob,
    operator: Played,
    play: Callable[[], None],
    patience: JobPatience = QUICK,
    user: str = "admin",
    url: str | None = None,
    backend: Backend = PYTORCHJOBS,
) -> Finished:
    """Runs the launcher here while the operator plays beside it; url: of a proxy."""
    with ThreadPoolExecutor(1) as pool:
        played = pool.submit(play)
        try:
            return run(job, Api(job.namespace, patience, operator.kube.kubeconfig(user, url)), backend)
        finally:
            played.result()


def report_when_there(operator: Operator, *conditions: str, name: str = "train-1") -> Callable[[], None]:
    def play() -> None:
        operator.wait(name)
        operator.report(name, *conditions)

    return play


def is_deleted(job: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in job["metadata"]

"""Looking at a job: everything that happens to it and to its pods, in the order in which the API tells it."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

from components.cluster.api import EVENTS, PODS, Api, Resource
from components.cluster.backend import Backend, Object, Seen
from components.cluster.job import JobError


class Observer:
    """Keeps what the API tells of a job by a thread for each kind of objects, from `__enter__` on."""

    def __init__(self, api: Api, backend: Backend, name: str) -> None:
        self._api, self._backend, self._name = api, backend, name
        self._changes: queue.SimpleQueue[tuple[Resource, str, list[dict[str, Any]]] | Exception] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._objects: dict[Resource, dict[str, dict[str, Any]]] = {}  # by uid
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> "Observer":
        self._keep(self._backend.resource, fields={"metadata.name": self._name})
        self._keep(PODS, labels=self._backend.pods(self._name))
        for resource, name in self._backend.others(self._name):
            self._keep(resource, fields={"metadata.name": name})
        return self

    def __exit__(self, *details: object) -> None:
        self._ended.set()

    def looks(self, uid: str) -> Iterator[Seen | None]:
        """The job of that uid after each change, and at least every `patience.look` seconds; None when it is gone.

        Raises JobError where the API refuses.
        """
        while True:
            try:
                change = self._changes.get(timeout=self._api.patience.look)
            except queue.Empty:
                change = None
            if isinstance(change, Exception):
                raise change
            if change is not None:
                self._apply(*change)
            if self._backend.resource in self._objects:
                yield self._seen(uid)

    def read_events(self) -> None:
        """Puts what happened to the job, and not to its pods, into what is seen from now on. Raises JobError."""
        self._events = self._api.find(EVENTS, fields={"involvedObject.name": self._name})[0]

    def _keep(self, resource: Resource, **selection: dict[str, str]) -> None:
        threading.Thread(target=self._watch, args=(resource, selection), daemon=True).start()

    def _watch(self, resource: Resource, selection: dict[str, dict[str, str]]) -> None:
        try:
            while not self._ended.is_set():
                objects, version = self._api.find(resource, **selection)
                self._changes.put((resource, "LISTED", objects))
                for event, changed in self._api.watch(resource, version, self._api.patience.watch, **selection):
                    self._changes.put((resource, event, [changed]))
        except Exception as error:  # of any kind: it is the caller's
            self._changes.put(error)

    def _apply(self, resource: Resource, event: str, objects: list[dict[str, Any]]) -> None:
        found = {each["metadata"]["uid"]: each for each in objects}
        if event == "LISTED":
            self._objects[resource] = found
        elif event == "DELETED":
            for uid in found:
                self._objects[resource].pop(uid, None)
        else:
            self._objects[resource].update(found)

    def _seen(self, uid: str) -> Seen | None:
        jobs = self._objects[self._backend.resource]
        if uid not in jobs:
            return None
        others = [
            each
            for resource, kept in self._objects.items()
            if resource not in (self._backend.resource, PODS)
            for each in kept.values()
        ]
        pods = sorted(self._objects.get(PODS, {}).values(), key=lambda pod: str(pod["metadata"]["name"]))
        return Seen(jobs[uid], pods, others, self._events)


def words_of_queue(api: Api, job: Object) -> str:
    """Why Kueue has not let a job in yet, in its own words; empty where it does not say, or may not be asked."""
    try:
        version = api.version_of("kueue.x-k8s.io")
        if version is None:
            return ""
        workloads, _ = api.find(Resource(version, "Workload"), {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]})
    except JobError:
        return ""
    for workload in workloads:
        for condition in workload.get("status", {}).get("conditions") or []:
            if condition["type"] == "QuotaReserved" and condition["status"] == "False":
                return str(condition.get("message") or "")
    return ""

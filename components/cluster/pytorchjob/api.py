"""The one door to the Kubernetes API: the few questions that a launcher asks, asked again where that may help.

Requests that fail for a while (429 with its Retry-After, 5xx, no network) are repeated with growing waits; what stays
the same however often it is asked (401, 403, 422 and the like) is a JobError in one line, with the API's own words.
"""

import contextlib
import io
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.patience import News, Patience
from components.cluster.job import JobError
from components.cluster.pytorchjob.manifest import API_VERSION, CONTAINER

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "pytorchjobs"
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
LOG_SILENCE_SECONDS = 300  # after which a stream of logs is opened anew: its connection may be dead
REMEDIES = {
    401: "Renew the credentials of the kubeconfig or of the pod's service account.",
    403: "Give the launcher's service account a role with this verb.",
    404: "Is the namespace right, and is the training operator with its PyTorchJob installed?",
    422: "Correct the section cluster of the parameters, or the job's name.",
}


@dataclass(frozen=True)
class JobPatience(Patience):
    """Times in seconds; those of `Patience` are for the API server.

    watch: how long one watch lasts before the job and its pods are looked at anew. logs: between two attempts to read
    logs. unclaimed: after which a job that no operator has taken is reported. overdue: beyond the job's own deadline,
    which the operator holds. drain: for the last logs of a job that has ended. gone: for a job that is deleted to make
    room for its successor.
    """

    away: float = 300
    watch: int = 30
    logs: float = 5
    unclaimed: float = 60
    overdue: float = 120
    drain: float = 15
    gone: float = 150  # the pods have 120 to end


class JobApi:
    """PyTorchJobs and their pods in one namespace.

    kubeconfig: a file; by default the library's own choice, which is $KUBECONFIG, ~/.kube/config or the pod's service
    account. Raises JobError where there is none of them.
    """

    def __init__(self, namespace: str, patience: JobPatience, kubeconfig: Path | None = None) -> None:
        from kubernetes import client, config

        self.namespace, self.patience = namespace, patience
        settings = client.Configuration()
        settings.retries = False  # urllib3's own would come before ours, and print
        place: dict[str, Any] = {} if kubeconfig is None else {"config_file": str(kubeconfig)}
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # its remark about a kubeconfig that a pod does not need
                config.load_config(client_configuration=settings, **place)
        except config.ConfigException as error:
            raise JobError(
                f"no Kubernetes cluster: {_line(str(error))}. Set KUBECONFIG, or run in a pod with a service account."
            ) from error
        self._host = settings.host
        self._jobs = client.CustomObjectsApi(client.ApiClient(settings))
        self._pods = client.CoreV1Api(self._jobs.api_client)
        self._place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}

    def create(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """Creates a job; None where its name is taken."""
        # Strict: an unknown field is an error instead of being dropped.
        place = {**self._place, "body": content, "field_validation": "Strict"}
        job: dict[str, Any] | None = self._ask(self._jobs.create_namespaced_custom_object, place, none_on={409})
        return job

    def look(self, name: str) -> tuple[dict[str, Any] | None, str]:
        """The job, or None, and the version of this answer, from which `watch` goes on."""
        answer = self._ask(self._jobs.list_namespaced_custom_object, {**self._place, **_named(name)})
        return next(iter(answer["items"]), None), answer["metadata"]["resourceVersion"]

    def watch(self, name: str, version: str, seconds: int) -> Iterator[dict[str, Any] | None]:
        """Each state of the job from that version on, None when it is deleted.

        Ends after so many seconds, or when the connection or the version is lost: look again then.
        """
        from kubernetes import watch

        place = {**self._place, **_named(name), "resource_version": version, "timeout_seconds": seconds}
        # A server that is there ends the watch itself.
        timeout = (CONNECT_SECONDS, seconds + CONNECT_SECONDS)
        events = watch.Watch().stream(self._jobs.list_namespaced_custom_object, **place, _request_timeout=timeout)
        try:
            for event in events:
                yield None if event["type"] == "DELETED" else event["object"]
        except _failures() as error:
            if _status(error) == 410:
                return
            if not _may_pass(error):
                raise self._refused(error) from error
            time.sleep(max(self.patience.first_pause, _retry_after(error)))
        except json.JSONDecodeError:  # of a line that a proxy broke off
            time.sleep(self.patience.first_pause)

    def delete(self, name: str, uid: str) -> None:
        """Deletes the job of that uid, if it is there; its name becomes free when its pods are gone."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        self._ask(
            self._jobs.delete_namespaced_custom_object, {**self._place, "name": name, "body": body}, none_on={404, 409}
        )

    def take_over(self, name: str, labels: Mapping[str, str], owners: list[dict[str, Any]]) -> None:
        """Sets labels and replaces the ownerReferences of a job."""
        patch = {"metadata": {"labels": labels, "ownerReferences": owners}}
        self._ask(self._jobs.patch_namespaced_custom_object, {**self._place, "name": name, "body": patch})

    def labelled(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """All jobs with these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        answer = self._ask(self._jobs.list_namespaced_custom_object, {**self._place, "label_selector": selector})
        return list(answer["items"])

    def pods(self, name: str, role: str | None = None) -> list[Any]:
        """The pods of a job (V1Pod), by name; role: of its "master" only."""
        selector = f"training.kubeflow.org/job-name={name}"
        if role is not None:
            selector += f",training.kubeflow.org/replica-type={role}"
        answer = self._ask(self._pods.list_namespaced_pod, {"namespace": self.namespace, "label_selector": selector})
        return sorted(answer.items, key=lambda pod: str(pod.metadata.name))

    def last_lines(self, pod: str, lines: int) -> list[str]:
        """The end of a pod's logs. Raises LogError."""
        with self._reading(pod):
            text = self._pods.read_namespaced_pod_log(
                pod, self.namespace, container=CONTAINER, tail_lines=lines, _request_timeout=ANSWER_SECONDS
            )
        return str(text).splitlines()

    def follow(self, pod: str, since_seconds: int | None) -> Iterator[str]:
        """Lines of a pod's logs, each behind its time, until the container ends.

        since_seconds: leaves out what is older. Raises LogError, also where the connection is lost.
        """
        from kubernetes import watch

        with self._reading(pod):
            yield from watch.Watch().stream(
                self._pods.read_namespaced_pod_log,
                name=pod,
                namespace=self.namespace,
                container=CONTAINER,
                timestamps=True,
                since_seconds=since_seconds,
                _request_timeout=(CONNECT_SECONDS, LOG_SILENCE_SECONDS),
            )

    def _ask(self, call: Callable[..., Any], arguments: Mapping[str, Any], none_on: Collection[int] = ()) -> Any:
        """The answer, or None for these HTTP statuses. Raises JobError."""
        news = News()
        try:
            return self.patience.ask(
                lambda: call(**arguments, _request_timeout=(CONNECT_SECONDS, ANSWER_SECONDS)),
                lambda error: isinstance(error, _failures()) and _status(error) not in none_on and _may_pass(error),
                pause_asked=_retry_after,
                on_failure=lambda error, pause: news.say(
                    "API", f"away {pause}", f"Kubernetes: {_reason(error)}. Asking again in {pause:g} s."
                ),
                on_return=lambda: news.say("API", "there", "Kubernetes: answers again."),
            )
        except _failures() as error:
            if _status(error) in none_on:
                return None
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> JobError:
        remedy = REMEDIES.get(_status(error), "Is the API server well?" if _may_pass(error) else "")
        return JobError(f"Kubernetes at {self._host}, namespace {self.namespace}: {_reason(error)}. {remedy}".rstrip())

    @contextlib.contextmanager
    def _reading(self, pod: str) -> Iterator[None]:
        try:
            yield
        except _failures() as error:
            raise LogError(f"the logs of {pod} cannot be read: {_reason(error)}") from error


class LogError(Exception):
    """Logs that are not there, not yet, or not any more: nothing that a training depends on."""


def _failures() -> tuple[type[Exception], ...]:
    """What requests raise: an answer of the API that is an error, or none."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    return ApiException, HTTPError


def _named(name: str) -> dict[str, str]:
    return {"field_selector": f"metadata.name={name}"}


def _status(error: Exception) -> int:
    """The HTTP status; 0 without an answer."""
    return int(getattr(error, "status", None) or 0)


def _may_pass(error: Exception) -> bool:
    if not _status(error):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return _status(error) == 429 or _status(error) >= 500


def _retry_after(error: Exception) -> float:
    """Seconds that the server asked to wait; 0 if it did not."""
    value = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _reason(error: Exception) -> str:
    """The API's own words where it answered, else the network's."""
    if not _status(error):
        return _line(str(error))
    try:
        message = json.loads(getattr(error, "body", None) or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = getattr(error, "reason", "")
    return f"{_line(str(message))} (HTTP {_status(error)})"


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")

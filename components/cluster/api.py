"""The one door to the Kubernetes API: objects of any kind in one namespace, as JSON; asked again where that may help.

Requests that fail for a while (429 with its Retry-After, 5xx, no network) are repeated with growing waits; what stays
the same however often it is asked (401, 403, 422 and the like) is a JobError in one line, with the API's own words.
"""

import contextlib
import io
import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from base.patience import News, Patience
from components.cluster.answers import failures, http_status, may_pass, one_line, retry_after, words
from components.cluster.job import JobError

LOG_SILENCE_SECONDS = 300  # after which a stream of logs is opened anew: its connection may be dead
REMEDIES = {
    401: "Renew the credentials of the kubeconfig or of the pod's service account.",
    403: "Give the launcher's service account a role with this verb.",
    404: "Is the namespace right, and is the operator installed?",
    422: "Correct the section cluster of the parameters, or the job's name.",
}
DENIED = "denied the request"  # by an admission webhook, which answers 403 as a missing right does
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


class Resource(NamedTuple):
    """A kind of objects that lie in namespaces."""

    api_version: str
    kind: str

    @property
    def plural(self) -> str:
        """What its objects are called in paths and rights, by the rule that every kind used here follows."""
        return f"{self.kind.lower()}s"

    def path(self, namespace: str, name: str = "") -> str:
        """Of its objects in the API, or of one of them."""
        root = "apis" if "/" in self.api_version else "api"
        return f"/{root}/{self.api_version}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Resource":
        """That an object is of."""
        return cls(content["apiVersion"], content["kind"])


PODS = Resource("v1", "Pod")
EVENTS = Resource("v1", "Event")


@dataclass(frozen=True)
class JobPatience(Patience):
    """Times in seconds; those of `Patience` are for the API server.

    connect, answer: that one request may take. watch: how long one watch lasts before objects are looked at anew. look:
    between two looks at the time, and at what no watch tells. logs: between two attempts to read logs. unclaimed: after
    which a job that no operator has taken is reported; abandoned: after which it is given up. drain: for the last logs
    of a job that has ended. gone: for a job that is deleted to make room for its successor. farewell: as `away`, where
    the launcher itself is about to be killed.
    """

    away: float = 300
    connect: float = 10
    answer: float = 60
    watch: int = 30
    look: float = 10
    logs: float = 5
    unclaimed: float = 40  # within a minute, as looks are 10 s apart
    abandoned: float = 1800  # an operator that is installed anew, or moves to another node, takes minutes
    drain: float = 15
    gone: float = 150  # the pods have 120 to end
    farewell: float = 10  # of the 30 that a pod has


class Api:
    """Objects in one namespace.

    kubeconfig: a file; by default the library's own choice, which is $KUBECONFIG, ~/.kube/config or the pod's service
    account. Raises JobError where there is none of them. host: where the API is.
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
        except (config.ConfigException, yaml.YAMLError, OSError, UnicodeError) as error:
            raise JobError(
                f"no Kubernetes cluster: {one_line(str(error))}. Set KUBECONFIG, or run in a pod with a service "
                "account."
            ) from error
        self.host = settings.host
        self._client = client.ApiClient(settings)
        self._news = News()

    def create(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """Creates an object; None where its name is taken."""
        # Strict: an unknown field is an error instead of being dropped.
        query = {"fieldValidation": "Strict"}
        path = Resource.of(content).path(self.namespace)
        made: dict[str, Any] | None = self._ask("POST", path, query, content, none_on={409})
        return made

    def apply(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Creates an object, or makes it what this says."""
        path = Resource.of(content).path(self.namespace, content["metadata"]["name"])
        query = {"fieldManager": "dual-hrnet", "force": True, "fieldValidation": "Strict"}
        applied: dict[str, Any] = self._ask("PATCH", path, query, content, content_type=APPLY)
        return applied

    def get(self, resource: Resource, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        found: dict[str, Any] | None = self._ask("GET", resource.path(self.namespace, name), none_on={404})
        return found

    def find(
        self, resource: Resource, labels: Mapping[str, str] | None = None, fields: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], str]:
        """Objects with these labels and fields, and the version of this answer, from which `watch` goes on."""
        answer = self._ask("GET", resource.path(self.namespace), _selection(labels, fields))
        # The items of a list do not say what they are.
        items = [{"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in answer["items"]]
        return items, answer["metadata"]["resourceVersion"]

    def watch(
        self,
        resource: Resource,
        version: str,
        seconds: int,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[Literal["ADDED", "MODIFIED", "DELETED"], dict[str, Any]]]:
        """What happens to these objects from that version on, each time with the whole object.

        Ends after so many seconds, or when the connection or the version is lost: list them again then.
        """
        query = {"watch": True, "resourceVersion": version, "timeoutSeconds": seconds, **_selection(labels, fields)}
        # A server that is there ends the watch itself.
        timeout = (self.patience.connect, seconds + self.patience.connect)
        try:
            for line in self._lines(resource.path(self.namespace), query, timeout):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    if status.get("code") == 410:
                        return
                    raise JobError(f"Kubernetes at {self.host}: {one_line(str(status.get('message')))}.")
                yield event["type"], event["object"]
        except failures() as error:
            if http_status(error) == 410:
                return
            if not may_pass(error):
                raise self._refused(error) from error
            time.sleep(max(self.patience.first_pause, retry_after(error)))
        except json.JSONDecodeError:  # of a line that a proxy broke off
            time.sleep(self.patience.first_pause)

    def delete(self, resource: Resource, name: str, propagation: str, uid: str, version: str | None = None) -> bool:
        """Deletes the object of that uid, and of that version where one is given; whether it was there as such."""
        preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        body = {"propagationPolicy": propagation, "preconditions": preconditions}
        answer = self._ask("DELETE", resource.path(self.namespace, name), body=body, none_on={404, 409})
        return answer is not None

    def patch(self, resource: Resource, name: str, change: Mapping[str, Any], status: bool = False) -> bool:
        """Changes fields of an object; False where it is gone, or is not of the version that the change names any more.

        status: of its subresource instead.
        """
        path = resource.path(self.namespace, name) + ("/status" if status else "")
        answer = self._ask("PATCH", path, body=change, content_type=MERGE, none_on={404, 409})
        return answer is not None

    def read(self, path: str) -> Any:
        """What the API has at a path; None where it has nothing."""
        return self._ask("GET", path, none_on={404})

    def version_of(self, group: str) -> str | None:
        """The version of an API group that the cluster prefers, such as kubeflow.org/v1; None where it lacks it."""
        answer = self._ask("GET", f"/apis/{group}", none_on={404})
        return None if answer is None else str(answer["preferredVersion"]["groupVersion"])

    def serves(self, resource: Resource) -> bool:
        """Whether the cluster has this kind of objects."""
        answer = self._ask("GET", f"/apis/{resource.api_version}", none_on={404})
        return answer is not None and any(each["kind"] == resource.kind for each in answer["resources"])

    def may(self, verb: str, resource: Resource) -> bool:
        """Whether whoever asks has this right on such objects in the namespace."""
        group, _, _ = resource.api_version.rpartition("/")
        right = {"verb": verb, "group": group, "resource": resource.plural, "namespace": self.namespace}
        body = {"spec": {"resourceAttributes": right}}
        answer = self._ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
        return bool(answer["status"]["allowed"])

    def last_lines(self, pod: str, container: str, lines: int) -> list[str]:
        """The end of a container's logs. Raises LogError."""
        query = {"container": container, "tailLines": lines}
        with self._reading(pod):
            return [str(line) for line in self._lines(f"{PODS.path(self.namespace, pod)}/log", query)]

    def follow(self, pod: str, container: str, since_seconds: int | None) -> Iterator[str]:
        """Lines of a container's logs, each behind its time, until the container ends.

        since_seconds: leaves out what is older. Ends as well where nothing came for LOG_SILENCE_SECONDS. Raises
        LogError, also where the connection is lost.
        """
        from urllib3.exceptions import ReadTimeoutError

        query: dict[str, Any] = {"container": container, "follow": True, "timestamps": True}
        if since_seconds is not None:
            query["sinceSeconds"] = since_seconds
        timeout = (self.patience.connect, LOG_SILENCE_SECONDS)
        with self._reading(pod):
            with contextlib.suppress(ReadTimeoutError):
                yield from self._lines(f"{PODS.path(self.namespace, pod)}/log", query, timeout)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        none_on: Collection[int] = (),
    ) -> Any:
        """The answer, or None for these HTTP statuses. Raises JobError."""
        try:
            return self.patience.ask(
                lambda: self._call(method, path, query, body, content_type, response_type="object"),
                lambda error: isinstance(error, failures()) and http_status(error) not in none_on and may_pass(error),
                pause_asked=retry_after,
                on_failure=lambda error, pause: self._news.say(
                    "API", f"away {pause}", f"Kubernetes: {words(error)}. Asking again in {pause:g} s."
                ),
                on_return=lambda: self._news.say("API", "there", "Kubernetes: answers again."),
            )
        except failures() as error:
            if http_status(error) in none_on:
                return None
            raise self._refused(error) from error

    def _lines(self, path: str, query: Mapping[str, Any], timeout: Any = None) -> Iterator[str]:
        """The lines of an answer, as they come."""
        from kubernetes.watch.watch import iter_resp_lines

        answer = self._call("GET", path, query, timeout=timeout, _preload_content=False)
        try:
            yield from (line for line in iter_resp_lines(answer))
        finally:
            answer.close()
            answer.release_conn()

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: Any = None,
        **options: Any,
    ) -> Any:
        return self._client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=timeout or (self.patience.connect, self.patience.answer),
            **options,
        )

    def _refused(self, error: Exception) -> JobError:
        if DENIED in words(error):
            return DeniedError(f"Kubernetes at {self.host}, namespace {self.namespace}: {words(error)}.")
        remedy = REMEDIES.get(http_status(error), "Is the API server well?" if may_pass(error) else "")
        return JobError(f"Kubernetes at {self.host}, namespace {self.namespace}: {words(error)}. {remedy}".rstrip())

    @contextlib.contextmanager
    def _reading(self, pod: str) -> Iterator[None]:
        try:
            yield
        except failures() as error:
            raise LogError(f"the logs of {pod} cannot be read: {words(error)}") from error


class DeniedError(JobError):
    """What an admission webhook refuses, as that of an operator: no right is missing."""


class LogError(Exception):
    """Logs that are not there, not yet, or not any more: nothing that a training depends on."""


def _selection(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> dict[str, str]:
    chosen = {"labelSelector": labels, "fieldSelector": fields}
    return {
        name: ",".join(f"{key}={value}" for key, value in wanted.items()) for name, wanted in chosen.items() if wanted
    }

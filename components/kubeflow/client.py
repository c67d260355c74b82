"""The client of Kubeflow Pipelines: a compiled graph becomes a version of a pipeline, a run of it, or a schedule.

All requests go through `kfp.Client`, but waiting: its own has no end for a run that is cancelled, and no reasons.
"""

import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from base.errors import InputError
from components.cluster.job import RUN_PAGE
from components.kubeflow import login

TIMEOUT = (10, 60)  # seconds: to connect, to answer
SCHEDULES_LISTED = 100  # of one name: more than there ever are
REMEDIES = {
    401: "Give --token, or renew it.",
    403: "Ask for a role in this namespace that may do this.",
    404: "Give as --host the address of Kubeflow Pipelines, up to what stands before /#/ in its UI.",
}


class KubeflowError(InputError):
    """Kubeflow Pipelines cannot be reached, refuses, or has not brought a run to success.

    may_pass: whether the same question may be answered later.
    """

    def __init__(self, message: str, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class Version(NamedTuple):
    """IDs of a pipeline and of one of its versions; name: of the pipeline."""

    pipeline: str
    version: str
    name: str


def s3_location(option: str, location: str | None) -> str:
    """The location that an option gives, which pods must be able to see; raises KubeflowError where they are not."""
    if location is None:
        raise KubeflowError(f"{option}: is missing. Give s3://BUCKET/PREFIX.")
    if not re.match("s3://[^/]", location):
        raise KubeflowError(f"{option} {location}: is no place that pods see, expected s3://BUCKET/PREFIX. Give one.")
    return location


class Kubeflow:
    """Kubeflow Pipelines at one address.

    token: by default the one in the file that $KF_PIPELINES_SA_TOKEN_PATH names, else the one of the pod, else none;
    a file is read again for each request. namespace: of the user's profile, where the server has several users.
    cookie: of a browser that is logged in, or a file with it. Raises KubeflowError where no such server answers.
    """

    def __init__(
        self, host: str, token: str | None = None, namespace: str | None = None, cookie: str | None = None
    ) -> None:
        if not re.match("https?://[^/]", host):
            raise KubeflowError(f"--host {host}: is no address, expected http://NAME or https://NAME. Correct it.")
        import kfp_server_api as api  # type: ignore[import-untyped]

        self.host, self._namespace = host.rstrip("/"), namespace
        settings = api.Configuration(host=self.host)
        # Those of urllib3 would print; and without them a redirection, as to a login page, is no answer.
        settings.retries = False
        _authorize(settings, token)
        self._api, self._kfp = api, _client(settings, namespace, cookie and login.read_cookie(cookie))
        self._http = self._kfp._run_api.api_client
        health = self._ask(self._kfp.healthzs.healthz_service_get_healthz)
        # The UI answers this one itself.
        if json.loads(self._http.last_response.data).get("apiServerReady") is False:
            raise KubeflowError(f"{host}: the UI answers, and the API server behind it does not. Is it running?")
        if health.multi_user and not namespace:
            raise KubeflowError(f"{host}: has several users. Give --namespace, the one of your profile.")

    def upload(self, graph: Path, label: str) -> Version:
        """The version of the pipeline with this content, a compiled graph; made where there is none yet, and then
        named by `label` and a hash of the content. Raises KubeflowError.
        """
        content = graph.read_bytes()
        about = next(yaml.safe_load_all(content))["pipelineInfo"]
        name, text = str(about["name"]), about.get("description")
        new = self._api.V2beta1Pipeline(name=name, display_name=name, namespace=self._namespace, description=text)
        pipeline = self._find_or_make(
            "pipelines",
            partial(self._kfp.list_pipelines, filter=_named(name), namespace=self._namespace),
            # Its `upload_pipeline` would make a first version, whose name says nothing about its content.
            partial(self._kfp.pipelines.pipeline_service_create_pipeline, new),
        ).pipeline_id
        known = hashlib.sha256(content).hexdigest()[:16]
        version = self._find_or_make(
            "pipeline_versions",
            partial(self._kfp.list_pipeline_versions, pipeline, filter=_named(known, "IS_SUBSTRING")),
            partial(self._kfp.upload_pipeline_version, str(graph), f"{label}-{known}", pipeline),
        ).pipeline_version_id
        return Version(pipeline, version, name)

    def run(self, name: str, experiment: str, version: Version, arguments: Mapping[str, Any]) -> str:
        """Starts a run, and returns its ID. Raises KubeflowError."""
        return str(self._ask(self._kfp.run_pipeline, **self._job(name, experiment, version, arguments)).run_id)

    def schedule(self, name: str, cron: str, experiment: str, version: Version, arguments: Mapping[str, Any]) -> str:
        """Makes a schedule in the place of all of the same name, and returns its ID; cron: with seconds.

        A run that is due while another one runs waits for it, and what was missed is not made up for.
        Raises KubeflowError.
        """
        before = self._ask(
            self._kfp.list_recurring_runs, filter=_named(name), namespace=self._namespace, page_size=SCHEDULES_LISTED
        ).recurring_runs
        job = self._job(name, experiment, version, arguments)
        made = self._ask(
            self._kfp.create_recurring_run, cron_expression=cron, max_concurrency=1, no_catchup=True, **job
        )
        # The old ones at last: whatever fails, there is one.
        for old in before or []:
            self._ask(self._kfp.delete_recurring_run, old.recurring_run_id, none_on={404})
        return str(made.recurring_run_id)

    def look(self, run: str) -> Any:
        """The run of that ID, as V2beta1Run. Raises KubeflowError."""
        return self._ask(self._kfp.get_run, run)

    def pod_log(self, run: str, pod: str) -> str:
        """The log of a pod of a run. Raises KubeflowError where it cannot be had, or not any more."""
        query = {"podname": pod, "runid": run, **({"podnamespace": self._namespace} if self._namespace else {})}
        try:
            return self._read("/k8s/pod/logs", query)  # of the UI
        except KubeflowError:
            # Of the API server itself, which --host may be, too.
            return self._read(f"/apis/v1alpha1/runs/{run}/nodes/{pod}/log", {})

    def run_link(self, run: str) -> str:
        """The run's page in the UI."""
        return run_page(self.host, run)

    def schedule_link(self, schedule: str) -> str:
        """The schedule's page in the UI."""
        return f"{self.host}/#/recurringrun/details/{schedule}"

    def _job(self, name: str, experiment: str, version: Version, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a run and a schedule have in common."""
        make = partial(self._kfp.create_experiment, experiment, namespace=self._namespace)  # or find
        found = self._ask(make, none_on={409}) or self._ask(make)
        return {
            "job_name": name,
            "experiment_id": found.experiment_id,
            "pipeline_id": version.pipeline,
            "version_id": version.version,
            "params": dict(arguments),
        }

    def _find_or_make(self, kind: str, find: Callable[[], Any], make: Callable[[], Any]) -> Any:
        """The first of the list that `find` gives of this kind; a neighbour may make it between the two questions."""

        def first() -> Any:
            return next(iter(getattr(self._ask(find), kind) or []), None)

        return first() or self._ask(make, none_on={409}) or first() or self._ask(make)

    def _ask(self, call: Callable[..., Any], *given: object, none_on: Collection[int] = (), **named: object) -> Any:
        """The answer, or None for these HTTP statuses. Raises KubeflowError."""
        try:
            with redirect_stdout(io.StringIO()):  # links to what was made
                answer = call(*given, **named)
            if not isinstance(json.loads(self._http.last_response.data), dict):
                raise json.JSONDecodeError("no object", "", 0)
            return answer
        except json.JSONDecodeError:
            if way := login.wanted(200, {}, self._http.last_response.data):
                raise KubeflowError(f"{self.host}: {way} (HTTP 200). {login.REMEDY}") from None
            text = "answers, but not as Kubeflow Pipelines does"
            raise KubeflowError(f"{self.host}: {text}. {REMEDIES[404]}", may_pass=True) from None
        except self._failures() as error:
            status, refusal = self._explain(error)
            if status in none_on:
                return None
            raise refusal from error

    def _read(self, path: str, query: Mapping[str, str]) -> str:
        """The text at a path, which is none of the API's objects. Raises KubeflowError."""
        try:
            answer = self._http.call_api(
                path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": "text/plain"},
                auth_settings=["Bearer"],
                _return_http_data_only=True,
                _preload_content=False,
            )
            text = str(answer.data.decode(errors="replace"))
        except self._failures() as error:
            raise self._explain(error)[1] from error
        if text.lstrip().lower().startswith(("<!doctype", "<html")):  # of the UI, for what it does not know
            raise KubeflowError(f"{self.host}: {path} is no text.")
        return text

    def _failures(self) -> tuple[type[Exception], ...]:
        """What requests raise."""
        from urllib3.exceptions import HTTPError

        return self._api.ApiException, HTTPError, AttributeError, UnicodeDecodeError

    def _explain(self, error: Exception) -> tuple[int, KubeflowError]:
        """The HTTP status, 0 without an answer, and the error to raise; raises what is ours to mend."""
        failure: BaseException = error
        if isinstance(error, AttributeError | UnicodeDecodeError):
            # The generated client stumbles over errors that have no text, as those of TLS, or none in UTF-8.
            if not isinstance(error.__context__, self._api.ApiException):
                raise error
            failure = error.__context__
        status = int(getattr(failure, "status", None) or 0)
        may_pass = status == 429 or status >= 500 or not (status or "CERTIFICATE" in str(failure))
        return status, KubeflowError(f"{self.host}: {_reason(failure, status)}", may_pass)


def _client(settings: Any, namespace: str | None, cookie: str | None) -> Any:
    """kfp.Client with these settings, and nothing from ~/.config/kfp, a kubeconfig, or Google's variables."""
    import kfp

    class Client(kfp.Client):  # type: ignore[misc]
        def _load_config(self, *_: object) -> Any:
            return settings

        def _load_context_setting_or_default(self) -> None:
            # With no namespace it would ask the server here already, five times, and write to ~/.config/kfp.
            self._context_setting = {"namespace": "none"}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # which says that it needs KFP 2
        client = Client(cookies=cookie)
    client._context_setting["namespace"] = namespace or ""
    http = client._run_api.api_client.rest_client
    request = http.request
    # Its methods have no timeouts.
    http.request = lambda *given, **more: request(*given, **{**more, "_request_timeout": TIMEOUT})
    return client


def _authorize(settings: Any, token: str | None) -> None:
    from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH, ServiceAccountTokenVolumeCredentials

    source = "--token"
    if token is None:
        credentials = ServiceAccountTokenVolumeCredentials()
        path = Path(credentials._token_path)
        if not path.is_file():
            if str(path) != KF_PIPELINES_SA_TOKEN_PATH:
                raise KubeflowError(f"{path}: is no file with a token. Correct ${KF_PIPELINES_SA_TOKEN_ENV}.")
            return
        settings.refresh_api_key_hook = credentials.refresh_api_key_hook
        source, token = str(path), path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch("[!-~]+", token):
        raise KubeflowError(f"{source}: is no token: it is empty, or has blanks or other characters. Copy it again.")
    settings.api_key["authorization"] = token
    settings.api_key_prefix["authorization"] = "Bearer"


def _named(name: str, operation: str = "EQUALS") -> str:
    """The filter of a list. Source: filter.proto of the API v2beta1."""
    return json.dumps({"predicates": [{"operation": operation, "key": "display_name", "stringValue": name}]})


def _reason(error: BaseException, status: int) -> str:
    """What the server says, else the network, and what to do."""
    if not status:
        return f"cannot be reached: {one_line(getattr(error, 'reason', None) or error)}. Is the address right?"
    headers = getattr(error, "headers", None) or {}
    if way := login.wanted(status, headers, getattr(error, "body", None)):
        return f"{way} (HTTP {status}). {login.REMEDY}"
    if 300 <= status < 400:
        place = headers.get("Location", "elsewhere").partition("?")[0]
        return (
            f"leads to {place} (HTTP {status}). Give that address, or log in if it is a login page: --token, --cookie."
        )
    try:
        words = json.loads(getattr(error, "body", None) or "")
        said = next(words[key] for key in ("message", "error_message", "error") if key in words)
    except (ValueError, TypeError, StopIteration):
        said = getattr(error, "reason", "")
    remedy = "Is the API server well?" if status >= 500 else REMEDIES.get(status, "")
    return f"{one_line(said)} (HTTP {status}). {remedy}".rstrip()


def run_page(host: str, run: str) -> str:
    """Where the UI shows a run."""
    return f"{host}{RUN_PAGE}{run}"


def one_line(text: object) -> str:
    """Words of others within a sentence."""
    return " ".join(str(text).split()).rstrip(".")

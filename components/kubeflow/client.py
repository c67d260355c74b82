"""The client of Kubeflow Pipelines: a compiled graph becomes a version of a pipeline, a run of it, or a schedule.

Of the SDK this uses the generated client of the REST API, and not `kfp.Client`: that one has no timeouts, prints, asks
a server that is away five times before it says so, and waits for a cancelled run for ever.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from base.errors import InputError

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
    Raises KubeflowError where no such server answers.
    """

    def __init__(self, host: str, token: str | None = None, namespace: str | None = None) -> None:
        if not re.match("https?://[^/]", host):
            raise KubeflowError(f"--host {host}: is no address, expected http://NAME or https://NAME. Correct it.")
        import kfp_server_api as api  # type: ignore[import-untyped]

        self.host, self._namespace = host.rstrip("/"), namespace
        settings = api.Configuration(host=self.host)
        # Those of urllib3 would print; and without them a redirection, as to a login page, is no answer.
        settings.retries = False
        _authorize(settings, token)
        self._api, self._client = api, api.ApiClient(settings)
        self._pipelines = api.PipelineServiceApi(self._client)
        self._runs = api.RunServiceApi(self._client)
        self._schedules = api.RecurringRunServiceApi(self._client)
        health = self._ask(api.HealthzServiceApi(self._client).healthz_service_get_healthz)
        # The UI answers this one itself.
        if json.loads(self._client.last_response.data).get("apiServerReady") is False:
            raise KubeflowError(f"{host}: the UI answers, and the API server behind it does not. Is it running?")
        if health.multi_user and not namespace:
            raise KubeflowError(f"{host}: has several users. Give --namespace, the one of your profile.")

    def upload(self, graph: Path) -> Version:
        """The version of the pipeline with this content, a compiled graph; made where there is none yet.

        Raises KubeflowError.
        """
        content = graph.read_bytes()
        name = str(next(yaml.safe_load_all(content))["pipelineInfo"]["name"])
        pipeline = self._find_or_make(
            lambda: (
                self._ask(
                    self._pipelines.pipeline_service_list_pipelines, filter=_named(name), namespace=self._namespace
                ).pipelines
            ),
            self._pipelines.pipeline_service_create_pipeline,
            pipeline=self._api.V2beta1Pipeline(name=name, display_name=name, namespace=self._namespace),
        ).pipeline_id
        version_name = f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
        version = self._find_or_make(
            lambda: (
                self._ask(
                    self._pipelines.pipeline_service_list_pipeline_versions,
                    pipeline_id=pipeline,
                    filter=_named(version_name),
                ).pipeline_versions
            ),
            self._api.PipelineUploadServiceApi(self._client).upload_pipeline_version,
            uploadfile=str(graph),
            name=version_name,
            pipelineid=pipeline,
        ).pipeline_version_id
        return Version(pipeline, version, name)

    def run(self, name: str, experiment: str, version: Version, arguments: Mapping[str, Any]) -> str:
        """Starts a run, and returns its ID. Raises KubeflowError."""
        body = self._api.V2beta1Run(**self._job(name, experiment, version, arguments))
        return str(self._ask(self._runs.run_service_create_run, run=body).run_id)

    def schedule(self, name: str, cron: str, experiment: str, version: Version, arguments: Mapping[str, Any]) -> str:
        """Makes a schedule in the place of all of the same name, and returns its ID; cron: with seconds.

        A run that is due while another one runs waits for it, and what was missed is not made up for.
        Raises KubeflowError.
        """
        before = self._ask(
            self._schedules.recurring_run_service_list_recurring_runs,
            namespace=self._namespace,
            filter=_named(name),
            page_size=SCHEDULES_LISTED,
        ).recurring_runs
        body = self._api.V2beta1RecurringRun(
            **self._job(name, experiment, version, arguments),
            trigger=self._api.V2beta1Trigger(cron_schedule=self._api.V2beta1CronSchedule(cron=cron)),
            mode=self._api.RecurringRunMode.ENABLE,
            max_concurrency="1",
            no_catchup=True,
        )
        made = self._ask(self._schedules.recurring_run_service_create_recurring_run, recurring_run=body)
        # The old ones at last: whatever fails, there is one.
        for old in before or []:
            self._ask(
                self._schedules.recurring_run_service_delete_recurring_run,
                recurring_run_id=old.recurring_run_id,
                none_on={404},
            )
        return str(made.recurring_run_id)

    def look(self, run: str) -> Any:
        """The run of that ID, as V2beta1Run. Raises KubeflowError."""
        return self._ask(self._runs.run_service_get_run, run_id=run)

    def run_link(self, run: str) -> str:
        """The run's page in the UI."""
        return f"{self.host}/#/runs/details/{run}"

    def schedule_link(self, schedule: str) -> str:
        """The schedule's page in the UI."""
        return f"{self.host}/#/recurringrun/details/{schedule}"

    def _job(self, name: str, experiment: str, version: Version, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a run and a schedule have in common."""
        experiments = self._api.ExperimentServiceApi(self._client)
        found = self._find_or_make(
            lambda: (
                self._ask(
                    experiments.experiment_service_list_experiments,
                    filter=_named(experiment),
                    namespace=self._namespace,
                ).experiments
            ),
            experiments.experiment_service_create_experiment,
            experiment=self._api.V2beta1Experiment(display_name=experiment, namespace=self._namespace),
        )
        reference = self._api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline, pipeline_version_id=version.version
        )
        return {
            "display_name": name,
            "experiment_id": found.experiment_id,
            "pipeline_version_reference": reference,
            "runtime_config": self._api.V2beta1RuntimeConfig(parameters=dict(arguments)),
        }

    def _find_or_make(self, find: Callable[[], Any], make: Callable[..., Any], **arguments: Any) -> Any:
        """The first of what there is; a neighbour may make it between the two questions."""
        found = find() or [self._ask(make, none_on={409}, **arguments)]
        if found[0] is None:
            found = find() or [self._ask(make, **arguments)]
        return found[0]

    def _ask(self, call: Callable[..., Any], none_on: Collection[int] = (), **arguments: Any) -> Any:
        """The answer, or None for these HTTP statuses. Raises KubeflowError."""
        from urllib3.exceptions import HTTPError

        # Empty ones would be sent as the word None.
        given = {key: value for key, value in arguments.items() if value is not None}
        try:
            answer = call(**given, _request_timeout=TIMEOUT)
            if not isinstance(json.loads(self._client.last_response.data), dict):
                raise json.JSONDecodeError("no object", "", 0)
            return answer
        except json.JSONDecodeError:
            text = "answers, but not as Kubeflow Pipelines does"
            raise KubeflowError(f"{self.host}: {text}. {REMEDIES[404]}", may_pass=True) from None
        except (self._api.ApiException, HTTPError) as error:
            failure: BaseException = error
        except (AttributeError, UnicodeDecodeError) as error:
            # The generated client stumbles over errors that have no text, as those of TLS, or none in UTF-8.
            if not isinstance(error.__context__, self._api.ApiException):
                raise
            failure = error.__context__
        status = int(getattr(failure, "status", None) or 0)
        if status in none_on:
            return None
        may_pass = status == 429 or status >= 500 or not (status or "CERTIFICATE" in str(failure))
        raise KubeflowError(f"{self.host}: {_reason(failure, status)}", may_pass)


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


def _named(name: str) -> str:
    """The filter of a list. Source: filter.proto of the API v2beta1."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _reason(error: BaseException, status: int) -> str:
    """What the server says, else the network, and what to do."""
    if not status:
        return f"cannot be reached: {one_line(getattr(error, 'reason', None) or error)}. Is the address right?"
    if 300 <= status < 400:
        place = (getattr(error, "headers", None) or {}).get("Location", "elsewhere").partition("?")[0]
        return f"leads to {place} (HTTP {status}). Give --token if that is a login page, else that address."
    try:
        words = json.loads(getattr(error, "body", None) or "")
        said = next(words[key] for key in ("message", "error_message", "error") if key in words)
    except (ValueError, TypeError, StopIteration):
        said = getattr(error, "reason", "")
    remedy = "Is the API server well?" if status >= 500 else REMEDIES.get(status, "")
    return f"{one_line(said)} (HTTP {status}). {remedy}".rstrip()


def one_line(text: object) -> str:
    """Words of others within a sentence."""
    return " ".join(str(text).split()).rstrip(".")

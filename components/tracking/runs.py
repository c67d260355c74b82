"""The one door to MLflow for runs: begin or continue one, log to it through an outage, finish it.

While a run trains, everything that is logged goes to an `Outbox`, so that a server which is away stops nothing; what is
logged by a later step is sent at once. Both can be sent twice without harm: after an attempt of which the answer was
lost, and after a run was resumed, which logs all its epochs again.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.environment_variables import MLFLOW_RUN_ID
from mlflow.exceptions import MlflowException

from base.files import write_file
from components.tracking.connection import (
    AwayError,
    TrackingError,
    asking,
    built_from,
    client,
    impatience,
    is_final,
    reason,
    store,
)
from components.tracking.lineage import in_todays_names
from components.tracking.outbox import PAUSE, Outbox, Refusal
from components.tracking.system_metrics import SystemMetrics

PATIENCE = 60.0  # seconds without a success after which what is left is given up: a restart of a server takes less
BATCH = 100  # parameters in a request, MLflow's limit
IDENTITY = ("run_id", "experiment", "prepared_version", "settings_hash")  # what run.json holds


@dataclass(frozen=True)
class Run:
    """Identity of a tracked run, as it stands in run.json between the steps.

    prepared_version: sha256 of the prepared data set's index. settings_hash: of the settings that trained the model.
    outbox, system_metrics: of a run that is open, from `open_run` to `finish_run`.
    """

    run_id: str
    experiment: str
    prepared_version: str
    settings_hash: str
    outbox: Outbox | None = field(default=None, compare=False, repr=False)
    system_metrics: SystemMetrics | None = field(default=None, compare=False, repr=False)


def open_run(path: Path, experiment: str, prepared_version: str, settings_hash: str) -> Run:
    """Continues a run or begins a new one, writes its identity to `path`, and starts to log the system metrics.

    Continued is the run that MLFLOW_RUN_ID names, else the run that `path` names, if it trained the same settings on
    the same data and did not finish. Raises TrackingError, and AwayError within seconds where MLflow is away.
    """
    with asking("Correct MLFLOW_TRACKING_URI or tracking.experiment."), impatience():
        run = (
            _given_run(prepared_version, settings_hash)
            or _unfinished_run(path, prepared_version, settings_hash)
            or _new_run(experiment, prepared_version, settings_hash)
        )
    _write_run_file(path, run)
    outbox = Outbox(f"MLflow at {store()}")
    return replace(
        run, outbox=outbox, system_metrics=SystemMetrics(run.run_id, partial(_log_system_metrics, outbox, run.run_id))
    )


def read_run(path: Path) -> Run:
    """Reads run.json; raises TrackingError where it is not one, or the store is away or does not know the run."""
    run = _read_run_file(path)
    try:
        with asking(), impatience():
            client().get_run(run.run_id)
    except AwayError:
        raise
    except TrackingError as error:
        raise TrackingError(
            f"{path}: run {run.run_id} cannot be found ({error}) Set MLFLOW_TRACKING_URI to the store that it was "
            "trained with, or train again."
        ) from error
    return run


def log_params(run: Run, params: Mapping[str, Any]) -> None:
    """Logs nested parameters under dotted names; a continued run keeps the values that it has."""
    values = dict(_flatten(params))

    def send() -> None:
        known = client().get_run(run.run_id).data.params
        new = [Param(name, str(value)) for name, value in values.items() if name not in known]
        for start in range(0, len(new), BATCH):
            client().log_batch(run.run_id, params=new[start : start + BATCH])

    _deliver(run, "parameters", send)


def log_metrics(run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
    """Logs metrics of one step, except those that the run has with the same value."""
    now = _now()
    points = [Metric(name, float(value), now, step) for name, value in metrics.items()]

    def send() -> None:
        new = [point for point in points if _values(run.run_id, point.key).get(step) != repr(point.value)]
        client().log_batch(run.run_id, metrics=new)
        for point in new:
            _values(run.run_id, point.key)[step] = repr(point.value)

    _deliver(run, "metrics", send)


def log_file(run: Run, path: Path) -> None:
    """Stores a file with the run, as it is now."""
    content = path.read_bytes()

    def send() -> None:
        with TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            copy.write_bytes(content)
            client().log_artifact(run.run_id, str(copy))

    _deliver(run, path.name, send)


def log_dict(run: Run, content: Mapping[str, Any], name: str) -> None:
    """Stores a mapping as a YAML or JSON file with the run, by the name's ending."""
    _deliver(run, name, lambda: client().log_dict(run.run_id, dict(content), name))


def tag_run(run: Run, tags: Mapping[str, str]) -> None:
    """Adds tags to the run."""
    entities = [RunTag(key, value) for key, value in tags.items()]
    _deliver(run, "tags", lambda: client().log_batch(run.run_id, tags=entities))


def finish_run(run: Run, *, failed: bool = False, patience: float = PATIENCE) -> None:
    """Ends the run; later steps may still add to it.

    Waits for what is not sent yet, at most until nothing could be sent for `patience` seconds; then says in one line
    what is missing. The run then keeps its status, so that the same train command continues it.
    """
    status, now = RunStatus.to_string(RunStatus.FAILED if failed else RunStatus.FINISHED), _now()

    def send() -> None:
        client().set_terminated(run.run_id, status, now)

    if run.system_metrics is not None:
        run.system_metrics.stop()
    if run.outbox is None or not run.outbox.is_open:
        _deliver(run, "status", send)
        return
    if run.outbox.drain(patience):
        _deliver(run, "status", send)
        run.outbox.drain(patience)
    run.outbox.close()
    if missing := run.outbox.missing():
        print(
            f"warning: run {run.run_id} of MLflow at {store()} lacks {missing}. history.csv holds the metrics; the "
            "same train command sends them all again.",
            file=sys.stderr,
            flush=True,
        )


def record_failure(experiment: str, tags: Mapping[str, str]) -> None:
    """Adds a failed run with these tags to the experiment, for what failed outside of a run; raises TrackingError."""
    with asking("Correct MLFLOW_TRACKING_URI or tracking.experiment."), impatience():
        client().set_terminated(_create_run(experiment, dict(tags)), RunStatus.to_string(RunStatus.FAILED))


def source_tags() -> dict[str, str]:
    """Git commit of the working directory, or of the image, and whether it has changes; empty where none is known."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return built_from()
    return {"git_commit": commit, "git_dirty": str(bool(status.strip())).lower()}


def _given_run(prepared_version: str, settings_hash: str) -> Run | None:
    """The run of MLFLOW_RUN_ID, which whoever started this process began for it: Kubeflow's MLflow plugin does."""
    run_id = MLFLOW_RUN_ID.get()  # type: ignore[no-untyped-call]
    if not run_id:
        return None
    with asking("Unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to the store that knows this run."):
        found = client().get_run(run_id)
        client().update_run(run_id, status="RUNNING")
        for key, value in _tags(prepared_version).items():
            client().set_tag(run_id, key, value)
        experiment = client().get_experiment(found.info.experiment_id).name
    return Run(run_id, experiment, prepared_version, settings_hash)


def _unfinished_run(path: Path, prepared_version: str, settings_hash: str) -> Run | None:
    """The run that `path` names, if it is to be continued."""
    if not path.exists():
        return None
    run = _read_run_file(path)
    if (run.prepared_version, run.settings_hash) != (prepared_version, settings_hash):
        return None
    try:
        info = client().get_run(run.run_id).info
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # another store: its runs are not here
    if info.status == "FINISHED" or info.lifecycle_stage != "active":
        return None
    client().update_run(run.run_id, status="RUNNING")
    return run


def _new_run(experiment: str, prepared_version: str, settings_hash: str) -> Run:
    return Run(_create_run(experiment, _tags(prepared_version)), experiment, prepared_version, settings_hash)


def _create_run(experiment: str, tags: dict[str, str]) -> str:
    found = client().get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client().create_experiment(experiment)
    return str(client().create_run(experiment_id, tags=source_tags() | tags).info.run_id)


def _tags(prepared_version: str) -> dict[str, str]:
    return source_tags() | {"prepared_version": prepared_version}


def _write_run_file(path: Path, run: Run) -> None:
    write_file(path, json.dumps({name: getattr(run, name) for name in IDENTITY}, indent=2) + "\n")


def _read_run_file(path: Path) -> Run:
    try:
        content = in_todays_names(json.loads(path.read_text(encoding="utf-8")))
        run_id, experiment, prepared, settings = (content[name] for name in IDENTITY)
        return Run(run_id, experiment, prepared, settings)
    except OSError as error:
        raise TrackingError(f"{path}: cannot be read ({error.strerror}): expected the run.json of train.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise TrackingError(f"{path}: is not the run.json of train ({error!r}). Train again.") from error


def _deliver(run: Run, what: str, send: Callable[[], object]) -> None:
    """Leaves it to the outbox of an open run; else sends it now, which raises TrackingError if it fails."""
    if run.outbox is not None and run.outbox.is_open:
        run.outbox.put(what, partial(_attempt, send))
        return
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _attempt(send)
        except (Refusal, AwayError) as error:
            if isinstance(error, Refusal) or time.monotonic() > deadline:
                raise TrackingError(
                    f"{store()}: run {run.run_id} could not be given its {what} ({error}). Run this step again when "
                    "that is mended."
                ) from error
        time.sleep(PAUSE)


def _attempt(send: Callable[[], object]) -> None:
    try:
        with impatience():
            send()
    except Exception as error:  # of MLflow, and of whatever library reaches the store of its files
        raise (Refusal if is_final(error) else AwayError)(reason(error)) from error


def _log_system_metrics(outbox: Outbox, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    now = _now()
    points = [Metric(name, value, now, step) for name, value in metrics.items()]
    outbox.put("system metrics", partial(_attempt, lambda: client().log_batch(run_id, metrics=points)))


@cache
def _values(run_id: str, key: str) -> dict[int, str]:
    """What the run has of a metric: the latest value of each step, as `repr`, by which NaN equals itself."""
    history = client().get_metric_history(run_id, key)
    return {point.step: repr(point.value) for point in sorted(history, key=lambda point: int(point.timestamp))}


def _now() -> int:
    return int(time.time() * 1000)  # milliseconds


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in params.items():
        flat += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return flat

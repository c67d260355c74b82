"""The one door to MLflow for runs: begin or continue one, log to it through an outage, finish it.

While a run trains, everything that is logged goes to an `Outbox`, so that a server which is away stops nothing; what is
logged by a later step is sent at once.
"""

import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.environment_variables import MLFLOW_RUN_ID
from mlflow.exceptions import MlflowException

from base.access import unreadable
from base.errors import shortly
from base.files import write_file
from base.patience import News, Patience, here
from components.tracking.connection import (
    AwayError,
    TrackingError,
    asking,
    client,
    is_final,
    patiently,
    reason,
    refusal,
    store,
)
from components.tracking.lineage import (
    PIPELINE_RUN,
    STARTED_FROM,
    circumstances,
    in_todays_names,
    source_tags,
    with_run,
)
from components.tracking.outbox import PAUSE, Outbox
from components.tracking.records import End, File, Record, send
from components.tracking.system_metrics import SystemMetrics
from xbd.scenes import SPLITS

PATIENCE = 60.0  # seconds without a success after which what is left is given up: a restart of a server takes less
REMEDY = "Correct MLFLOW_TRACKING_URI or tracking.experiment."
IDENTITY = ("run_id", "experiment", "prepared_version", "settings_hash")  # what run.json holds


@dataclass(frozen=True)
class Run:
    """Identity of a tracked run, as it stands in run.json between the steps.

    prepared_version: sha256 of the prepared data set's index. settings_hash: of the settings that trained the model.
    started_from: the model that training began with, None where it began with none.
    outbox, system_metrics: of a run that is open, from `open_run` to `finish_run`.
    """

    run_id: str
    experiment: str
    prepared_version: str
    settings_hash: str
    started_from: str | None = None
    outbox: Outbox | None = field(default=None, compare=False, repr=False)
    system_metrics: SystemMetrics | None = field(default=None, compare=False, repr=False)


def open_run(
    path: Path, experiment: str, prepared_version: str, settings_hash: str, started_from: str | None = None
) -> Run:
    """Continues a run or begins a new one, writes its identity to `path`, and starts to log the system metrics.

    Continued is the run that MLFLOW_RUN_ID names, else the run that `path` names, if it trained the same settings on
    the same data and did not finish. Raises TrackingError, and AwayError where MLflow is away.
    """
    run = replace(_open(path, experiment, prepared_version, settings_hash), started_from=started_from)
    _write_run_file(path, run)
    outbox = Outbox(run.run_id)
    system = SystemMetrics(run.run_id, lambda metrics, step: outbox.put("system metrics", _points(metrics, step)))
    return replace(run, outbox=outbox, system_metrics=system)


def read_run(path: Path) -> Run:
    """Reads run.json; raises TrackingError where it is not one, or the store is away or does not know the run."""
    run = _read_run_file(path)
    try:
        patiently()(client().get_run)(run.run_id)
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
    _record(run, "parameters", [Param(name, str(value)) for name, value in _flatten(params)])


def log_metrics(run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
    """Logs metrics of one step, except those that the run has with the same value."""
    _record(run, "metrics", _points(metrics, step))


def prefix_of(splits: Collection[str]) -> str:
    """How names of what an evaluation measured on these splits begin: "test", or "test_and_hold".

    On validation alone "evaluated_validation", because validation_score is the curve that a training logs.
    """
    prefix = "_and_".join(split for split in SPLITS if split in splits)
    return "evaluated_validation" if prefix == "validation" else prefix


def of_splits(splits: Collection[str], metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the content of metrics.json, under the names that they have in MLflow: test_score."""
    prefix = prefix_of(splits)
    return {f"{prefix}_{key}": value for key, value in metrics.items() if isinstance(value, float)}


def log_file(run: Run, path: Path, folder: str = "") -> None:
    """Stores a file with the run, as it is now, in a folder of the run's files."""
    _record(run, path.name, [File(path.name, path.read_bytes(), folder)])


def log_yaml(run: Run, content: Mapping[str, Any], name: str) -> None:
    """Stores a mapping as a YAML file with the run."""
    _record(run, name, [File(name, yaml.safe_dump(dict(content)).encode())])


def tag_run(run: Run, tags: Mapping[str, str]) -> None:
    """Adds tags to the run."""
    _record(run, "tags", [RunTag(key, value) for key, value in tags.items()])


def finish_run(
    run: Run, *, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", patience: float = PATIENCE
) -> None:
    """Ends a run that `open_run` opened; later steps may still add to it.

    Waits for what is not sent yet, at most until nothing could be sent for `patience` seconds; then says in one line
    what is missing. The run then keeps its status, so that the same train command continues it.
    """
    assert run.outbox is not None and run.system_metrics is not None
    end = End(status, _now())
    run.system_metrics.stop()
    if run.outbox.drain(patience):
        run.outbox.put("status", [end])
        run.outbox.drain(patience)
    if missing := run.outbox.close():
        print(
            f"warning: run {run.run_id} of MLflow at {store()} lacks {missing}. history.csv holds the metrics; the "
            "same train command sends them all again.",
            file=sys.stderr,
            flush=True,
        )


def begin_run(experiment: str, key: str, value: str, name: str) -> str:
    """The id of the run in the experiment that has this tag, by an attempt before; else of a new one with it.

    Raises what MLflow raises.
    """
    known = _experiment_id(experiment)
    found = client().search_runs([known], f"tags.{key} = '{value}'") if known else ()
    for run in found:
        return str(run.info.run_id)
    return _create_run(experiment, {key: value, "mlflow.runName": name} | circumstances())


@patiently(REMEDY)
def join_runs(began: Collection[str], pipeline_run: str) -> None:
    """Names a pipeline run in the runs of trainings that others began and it waits for, too. Raises TrackingError."""
    for run in _runs_of(began):
        named = with_run(run.data.tags[PIPELINE_RUN].split(), pipeline_run)
        client().set_tag(run.info.run_id, PIPELINE_RUN, " ".join(named))


@patiently(REMEDY)
def end_runs(pipeline_runs: Collection[str], status: str | None, tags: Mapping[str, str]) -> list[str]:
    """Tags the runs of trainings that these pipeline runs began, or went on with; ends those that have not finished.

    status: FINISHED, FAILED or KILLED; None ends none. tags: an empty one is taken away. Returns the IDs of these runs;
    none where nothing was trained.
    Raises TrackingError.
    """
    runs = _runs_of(pipeline_runs)
    for run in runs:
        for key, value in tags.items():
            if value:
                client().set_tag(run.info.run_id, key, value)
            elif key in run.data.tags:  # what an earlier attempt left
                client().delete_tag(run.info.run_id, key)
        if status is not None and run.info.status != "FINISHED":
            client().set_terminated(run.info.run_id, status)
    return [run.info.run_id for run in runs]


def _runs_of(pipeline_runs: Collection[str]) -> list[MlflowRun]:
    """Runs of trainings that name one of these pipeline runs."""
    # Also of a run that a platform began, in an experiment of its own.
    experiments = [experiment.experiment_id for experiment in client().search_experiments()]
    found: dict[str, MlflowRun] = {}
    for each in pipeline_runs if experiments else ():
        runs = client().search_runs(experiments, f"tags.{PIPELINE_RUN} LIKE '%{each}%'")
        found.update({run.info.run_id: run for run in runs})
    return list(found.values())


@patiently(REMEDY)
def _open(path: Path, experiment: str, prepared_version: str, settings_hash: str) -> Run:
    return (
        _given_run(prepared_version, settings_hash)
        or _unfinished_run(path, prepared_version, settings_hash)
        or _new_run(experiment, prepared_version, settings_hash)
    )


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
    for key, value in circumstances().items():
        client().set_tag(run.run_id, key, value)
    return run


def _new_run(experiment: str, prepared_version: str, settings_hash: str) -> Run:
    return Run(_create_run(experiment, _tags(prepared_version)), experiment, prepared_version, settings_hash)


def _create_run(experiment: str, tags: dict[str, str]) -> str:
    experiment_id = _experiment_id(experiment) or _new_experiment(experiment)
    return str(client().create_run(experiment_id, tags=source_tags() | tags).info.run_id)


def _experiment_id(name: str) -> str | None:
    found = client().get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)


def _new_experiment(name: str) -> str:
    try:
        return str(client().create_experiment(name))
    except MlflowException as error:
        made = _experiment_id(name)  # another run may have made it in this moment
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or made is None:
            raise
        return made


def _tags(prepared_version: str) -> dict[str, str]:
    return source_tags() | circumstances() | {"prepared_version": prepared_version}


def _write_run_file(path: Path, run: Run) -> None:
    content = {name: getattr(run, name) for name in (*IDENTITY, STARTED_FROM)}
    write_file(path, json.dumps({name: value for name, value in content.items() if value is not None}, indent=2) + "\n")


def _read_run_file(path: Path) -> Run:
    try:
        content = in_todays_names(json.loads(path.read_text(encoding="utf-8")))
        run_id, experiment, prepared, settings = (content[name] for name in IDENTITY)
        started_from = content.get(STARTED_FROM)
        for name in (*IDENTITY, *([] if started_from is None else [STARTED_FROM])):
            text = content[name]
            if not (isinstance(text, str) and 0 < len(text) <= 500 and text.isprintable()):
                raise ValueError(f"{name} is {text!r:.60}")
        return Run(run_id, experiment, prepared, settings, started_from)
    except OSError as error:
        raise TrackingError(f"{path}: {unreadable(path, error, ', expected the run.json of train.')}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrackingError(f"{path}: is not the run.json of train ({shortly(error)}). Train again.") from error


def _record(run: Run, kind: str, records: Sequence[Record]) -> None:
    """Leaves them to the outbox of an open run; else sends them now, which raises TrackingError if it fails."""
    if run.outbox is not None:
        run.outbox.put(kind, records)
        return
    # MLflow's errors, and those of whatever library reaches the store of its files.
    patience = here(Patience(away=PATIENCE, first_pause=PAUSE, longest_pause=PAUSE))
    try:
        patience.wait_out(
            lambda: send(run.run_id, records), lambda error: not is_final(error), f"MLflow at {store()}", reason, News()
        )
    except Exception as error:
        remedy = refusal(error) or "Run this step again when that is mended."
        raise TrackingError(
            f"{store()}: run {run.run_id} could not be given its {kind} ({reason(error)}). {remedy}"
        ) from error


def _points(metrics: Mapping[str, float], step: int) -> list[Metric]:
    now = _now()
    return [Metric(name, float(value), now, step) for name, value in metrics.items()]


def _now() -> int:
    return int(time.time() * 1000)  # milliseconds


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in params.items():
        flat += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return flat

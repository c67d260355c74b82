"""The one door to MLflow: runs, their metrics and files, the registry.

Without MLFLOW_TRACKING_URI everything goes to `sqlite:///mlflow.db` in the working directory.
"""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema

from xbd.errors import InputError

__all__ = ["ModelVersion"]  # for the annotations of the steps, which do not import mlflow themselves

LOCAL_STORE = "sqlite:///mlflow.db"
CHALLENGER, PRODUCTION = "challenger", "production"
# A new sqlite store reports its every migration, and each download draws bars of its own across ours.
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


class TrackingError(InputError):
    """MLflow has not what was asked for."""


@dataclass(frozen=True)
class Run:
    """Identity of a tracked run, as it stands in run.json between the steps.

    data_version: sha256 of the prepared data set's index. settings_hash: of the settings that trained the model.
    """

    run_id: str
    experiment: str
    data_version: str
    settings_hash: str


@dataclass(frozen=True)
class ModelPackage:
    """What a registered model consists of.

    script: file that MLflow loads as the model's code; code: packages that it imports. artifacts: files by the name
    the script knows them by. example: one row of encoded files by column; outputs: columns of the answer.
    """

    script: Path
    artifacts: Mapping[str, Path]
    code: Sequence[Path]
    example: Mapping[str, bytes]
    outputs: Sequence[str]
    requirements: Sequence[str]


@cache
def client() -> MlflowClient:
    """The client of the store that MLFLOW_TRACKING_URI names, else of the local one."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(LOCAL_STORE)
    return MlflowClient()


def open_run(path: Path, experiment: str, data_version: str, settings_hash: str) -> Run:
    """Continues the run that `path` names if it trained the same settings on the same data and did not finish,
    else begins a new one; writes `path`.
    """
    if path.exists():
        old = _read_run_file(path)
        if (old.data_version, old.settings_hash) == (data_version, settings_hash) and _is_unfinished(old):
            client().update_run(old.run_id, status="RUNNING")
            return old
    found = client().get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client().create_experiment(experiment)
    run_id = client().create_run(experiment_id, tags=source_tags() | {"data_version": data_version}).info.run_id
    run = Run(run_id, experiment, data_version, settings_hash)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return run


def read_run(path: Path) -> Run:
    """Reads run.json; raises TrackingError where it is not one, or the store does not know the run."""
    run = _read_run_file(path)
    try:
        client().get_run(run.run_id)
    except MlflowException as error:
        raise TrackingError(
            f"{path}: run {run.run_id} cannot be found in {mlflow.get_tracking_uri()} ({error.error_code}). Set "
            "MLFLOW_TRACKING_URI to the store that it was trained with, or train again."
        ) from error
    return run


def log_params(run: Run, params: Mapping[str, Any]) -> None:
    """Logs nested parameters under dotted names; those of a continued run are there already, with equal values."""
    for name, value in _flatten(params):
        client().log_param(run.run_id, name, value)


def log_metrics(run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
    """Logs metrics of one step."""
    now = int(time.time() * 1000)  # milliseconds
    client().log_batch(run.run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])


def log_file(run: Run, path: Path) -> None:
    """Stores a file with the run."""
    client().log_artifact(run.run_id, str(path))


def log_dict(run: Run, content: Mapping[str, Any], name: str) -> None:
    """Stores a mapping as a YAML or JSON file with the run, by the name's ending."""
    client().log_dict(run.run_id, dict(content), name)


def tag_run(run: Run, tags: Mapping[str, str]) -> None:
    """Adds tags to the run."""
    for key, value in tags.items():
        client().set_tag(run.run_id, key, value)


def finish_run(run: Run, *, failed: bool = False) -> None:
    """Ends the run; later steps may still add to it."""
    client().set_terminated(run.run_id, RunStatus.to_string(RunStatus.FAILED if failed else RunStatus.FINISHED))


def register_model(run: Run, name: str, package: ModelPackage, tags: Mapping[str, str]) -> ModelVersion:
    """Logs a pyfunc model with the run and makes it a version of `name`, the new challenger."""
    client()
    with mlflow.start_run(run_id=run.run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package.script),
            artifacts={key: str(path) for key, path in package.artifacts.items()},
            code_paths=[str(path) for path in package.code],
            signature=ModelSignature(_binary_columns(package.example), _binary_columns(package.outputs)),
            input_example=pd.DataFrame({key: [value] for key, value in package.example.items()}),
            pip_requirements=list(package.requirements),
        )
    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client().create_model_version(name, info.model_uri, run_id=run.run_id, tags=dict(tags))
    client().set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def find_version(name: str, *, alias: str | None = None, version: int | None = None) -> ModelVersion | None:
    """The model version of that alias or number, or None."""
    try:
        if alias is not None:
            return client().get_model_version_by_alias(name, alias)
        return client().get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def set_alias(version: ModelVersion, alias: str) -> None:
    """Moves an alias to the version."""
    client().set_registered_model_alias(version.name, alias, version.version)


def tag_version(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Adds tags to the version."""
    for key, value in tags.items():
        client().set_model_version_tag(version.name, version.version, key, value)


def download_model(uri: str) -> Path:
    """Local model directory of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""
    client()
    try:
        root = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(f"{uri}: cannot be fetched ({reason}). Register or promote a model first.") from error
    return Path(root) / "artifacts" / "model"


def source_tags() -> dict[str, str]:
    """Git commit of the working directory, and whether it has changes; empty outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(status.strip())).lower()}


def _read_run_file(path: Path) -> Run:
    try:
        return Run(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrackingError(f"{path}: cannot be read ({error.strerror}): expected the run.json of train.") from error
    except (ValueError, TypeError) as error:
        raise TrackingError(f"{path}: is not the run.json of train ({error}). Train again.") from error


def _binary_columns(names: Iterable[str]) -> Schema:
    return Schema([ColSpec(DataType.binary, name) for name in names])


def _is_unfinished(run: Run) -> bool:
    try:
        return bool(client().get_run(run.run_id).info.status != "FINISHED")
    except MlflowException:
        return False  # another store: its runs are not here


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in params.items():
        flat += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return flat

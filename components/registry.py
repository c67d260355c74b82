"""The model registry: packages a model as a version, moves aliases, tags versions, fetches them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from components.connection import TrackingError, asking, client, impatience, reach, reason

if TYPE_CHECKING:
    from components.tracking import Run

__all__ = ["ModelVersion"]  # for the annotations of the steps, which do not import mlflow themselves

CHALLENGER, PRODUCTION = "challenger", "production"


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


def register_model(run: "Run", name: str, package: ModelPackage, tags: Mapping[str, str]) -> ModelVersion:
    """Logs a pyfunc model with the run and makes it a version of `name`, the new challenger.

    Raises TrackingError; MLflow's own patience with its server goes before that, because the model may be large.
    """
    with asking("Register again when that is mended."):
        return _register_model(run, name, package, tags)


def find_version(name: str, *, alias: str | None = None, version: int | None = None) -> ModelVersion | None:
    """The model version of that alias or number, or None; raises TrackingError."""
    with asking(), impatience():
        try:
            if alias is not None:
                return client().get_model_version_by_alias(name, alias)
            return client().get_model_version(name, str(version))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def set_alias(version: ModelVersion, alias: str) -> None:
    """Moves an alias to the version; raises TrackingError."""
    with asking(), impatience():
        client().set_registered_model_alias(version.name, alias, version.version)


def tag_version(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Adds tags to the version; raises TrackingError."""
    with asking(), impatience():
        for key, value in tags.items():
            client().set_model_version_tag(version.name, version.version, key, value)


def download_model(uri: str) -> Path:
    """Local model directory of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises TrackingError where there is none, or the store or its files cannot be reached.
    """
    reach()  # MLflow's own requests, for files that may be large, would try for minutes
    try:
        root = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"{uri}: cannot be fetched ({reason(error)}). Register or promote a model first."
        ) from error
    flavour = mlflow.models.Model.load(root).flavors["python_function"]
    return Path(root, flavour["artifacts"]["model"]["path"])


def _register_model(run: "Run", name: str, package: ModelPackage, tags: Mapping[str, str]) -> ModelVersion:
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
    version = client().create_model_version(
        name, info.model_uri, run_id=run.run_id, tags=dict(tags), model_id=info.model_id
    )
    client().set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def _binary_columns(names: Iterable[str]) -> Schema:
    return Schema([ColSpec(DataType.binary, name) for name in names])

"""The one door to MLflow for models: packages one as a version, moves aliases, sets tags, fetches versions."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature

from components.tracking.connection import AwayError, TrackingError, client, patiently, reason, refusal, store
from components.tracking.runs import begin_run

if TYPE_CHECKING:
    from components.tracking.runs import Run

__all__ = ["ModelVersion"]  # for the annotations of the steps, which do not import mlflow themselves

CONTENT_HASH = "content_hash"  # the tag by which a version is found again
DIRECTORY = "artifacts/model"  # where, among the files of a version of `register_model`, its model directory is
URI = re.compile(r"models:/(?P<name>[^/@:]+)(@(?P<alias>[^/@:]+)|/(?P<version>[1-9][0-9]{0,8}))")
NAMED = 10  # models that an error names
DIGEST = 36  # characters of a prepared version that MLflow keeps as the digest of a dataset, at most


@dataclass(frozen=True)
class ModelPackage:
    """What a registered model consists of.

    script: file that MLflow loads as the model's code; code: packages that it imports. artifacts: files by the name
    the script knows them by. example: one row of encoded files by column; signature: columns of the request and of
    the answer. requirements: lines for pip, which may name a file of constraints. description: of the version, for
    people.
    """

    script: Path
    artifacts: Mapping[str, Path]
    code: Sequence[Path]
    example: Mapping[str, bytes]
    signature: ModelSignature
    requirements: Sequence[str]
    description: str


@dataclass(frozen=True)
class DataUse:
    """A version of the prepared data and what it was used for: "training" or "evaluation"."""

    prepared_version: str
    context: str


@patiently("Register again when that is mended.", is_quick=False)
def register_model(
    run: "Run",
    name: str,
    package: ModelPackage,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    data: Sequence[DataUse],
) -> ModelVersion:
    """Logs a pyfunc model with the run and makes it a version of `name`.

    metrics: of the model, measured on the last of `data`; both become part of the run and of the model in MLflow.
    Raises TrackingError; MLflow's own patience with its server goes before that, because the model may be large.
    """
    made = _find_content(name, tags[CONTENT_HASH])
    if made is not None:  # by an attempt before, whose answer was lost
        return made
    with mlflow.start_run(run_id=run.run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package.script),
            artifacts={key: str(path) for key, path in package.artifacts.items()},
            code_paths=[str(path) for path in package.code],
            signature=package.signature,
            input_example=pd.DataFrame({key: [value] for key, value in package.example.items()}),
            pip_requirements=list(package.requirements),
        )
    datasets = [_dataset(use) for use in data]
    client().log_inputs(run.run_id, datasets)
    measured, now = datasets[-1].dataset, int(time.time() * 1000)
    points = [
        Metric(key, value, now, 0, info.model_id, measured.name, measured.digest) for key, value in metrics.items()
    ]
    client().log_batch(run.run_id, metrics=points)
    _see_to_model(name)
    return client().create_model_version(
        name, info.model_uri, run_id=run.run_id, tags=dict(tags), model_id=info.model_id,
        description=f"{package.description} ([files]({_page(run.run_id, info.model_id)}))",
    )  # fmt: skip


@patiently("Run the command again when that is mended.", is_quick=False)
def register_files(
    name: str, model: Path, beside: Sequence[Path], tags: Mapping[str, str], metrics: Mapping[str, float]
) -> ModelVersion:
    """Makes a folder of files a version of `name`, in a run of the experiment of that name.

    model: the folder, which `download_model` gives back; no server of MLflow serves it. beside: files that the run
    keeps. tags: with CONTENT_HASH; what an earlier attempt at the same content has left is gone on with. metrics: of
    the run. Raises TrackingError.
    """
    made = _find_content(name, tags[CONTENT_HASH])
    if made is not None:
        return made
    run_id = begin_run(name, CONTENT_HASH, tags[CONTENT_HASH], f"{name} {tags[CONTENT_HASH][:8]}")
    client().log_artifacts(run_id, str(model), "model")
    for path in beside:
        client().log_artifact(run_id, str(path))
    now = int(time.time() * 1000)
    client().log_batch(run_id, [Metric(key, value, now, 0) for key, value in metrics.items()])
    client().set_terminated(run_id)
    _see_to_model(name)
    source = f"{client().get_run(run_id).info.artifact_uri}/model"
    return client().create_model_version(name, source, run_id=run_id, tags=dict(tags))


@patiently()
def find_content(name: str, content_hash: str) -> ModelVersion | None:
    """The oldest version of the model that carries this content hash, or None; raises TrackingError."""
    return _find_content(name, content_hash)


@patiently()
def run_tags(run: "Run") -> dict[str, str]:
    """Tags of a run; raises TrackingError."""
    return dict(client().get_run(run.run_id).data.tags)


@patiently()
def run_params(run: "Run") -> dict[str, str]:
    """Parameters of a run, by their dotted names; raises TrackingError."""
    return dict(client().get_run(run.run_id).data.params)


@patiently()
def find_version(name: str, *, alias: str | None = None, version: int | None = None) -> ModelVersion | None:
    """The model version of that alias or number, or None; raises TrackingError."""
    return _find_version(name, alias, version)


@patiently()
def require_version(name: str, *, alias: str | None = None, version: int | None = None) -> ModelVersion:
    """The model version of that alias or number; raises TrackingError, which says what there is instead."""
    found = _find_version(name, alias, version)
    if found is not None:
        return found
    try:
        aliases = ", ".join(sorted(client().get_registered_model(name).aliases)) or "none"
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        there = ", ".join(model.name for model in client().search_registered_models(max_results=NAMED)) or "none"
        raise TrackingError(
            f"model {name}: is not registered at {store()}, models there are {there}. Correct the name, or "
            "register the model first."
        ) from None
    wanted = f"alias {alias}" if alias is not None else f"version {version}"
    raise TrackingError(
        f"model {name}: has no {wanted}, its aliases are {aliases}. Choose another, or register a model first."
    )


@patiently()
def set_alias(version: ModelVersion, alias: str) -> None:
    """Moves an alias to the version; raises TrackingError."""
    client().set_registered_model_alias(version.name, alias, version.version)


@patiently()
def tag_version(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Adds tags to the version; raises TrackingError."""
    for key, value in tags.items():
        client().set_model_version_tag(version.name, version.version, key, value)


@patiently()
def untag_version(version: ModelVersion, key: str) -> None:
    """Takes a tag off the version; raises TrackingError."""
    client().delete_model_version_tag(version.name, version.version, key)


@patiently()
def model_tags(name: str) -> dict[str, str]:
    """Tags of the registered model, which all its versions share; raises TrackingError."""
    return dict(client().get_registered_model(name).tags)


@patiently()
def tag_model(name: str, key: str, value: str) -> None:
    """Sets a tag of the registered model; raises TrackingError."""
    client().set_registered_model_tag(name, key, value)


@patiently("Restore the run of the version.")
def log_texts(version: ModelVersion, texts: Mapping[str, str]) -> None:
    """Stores texts, by their paths, with the run of the version; a version without a run keeps none.

    Raises TrackingError.
    """
    if not version.run_id:
        return
    for path, text in texts.items():
        client().log_text(version.run_id, text, path)


def exact_uri(uri: str) -> str:
    """`models:/NAME/VERSION` of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`: aliases move.

    Raises TrackingError where there is none, or the store cannot be reached.
    """
    parts = URI.fullmatch(uri)
    if parts is None:
        raise TrackingError(f"{uri}: names no registered model, expected models:/NAME@ALIAS or models:/NAME/VERSION.")
    number = parts["version"]
    try:  # MLflow's own requests, for files that may be large, would try for minutes
        found = require_version(parts["name"], alias=parts["alias"], version=int(number) if number else None)
    except AwayError:
        raise
    except TrackingError as error:
        raise TrackingError(f"{uri}: {error}") from None
    return f"models:/{found.name}/{found.version}"


def download_model(uri: str, to: Path | None = None) -> Path:
    """Local model directory of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    to: folder for what is fetched; else MLflow chooses one that stays.
    Raises TrackingError where there is none, or the store or its files cannot be reached.
    """
    uri = exact_uri(uri)
    try:
        root = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=None if to is None else str(to))
    except (MlflowException, OSError) as error:
        refused = refusal(error)
        raise TrackingError(
            f"{uri}: {refused}"
            if refused
            else f"{uri}: its files cannot be fetched ({reason(error)}). Start the "
            "store that has them, or register the model again."
        ) from error
    if not (Path(root) / "MLmodel").is_file():  # of `register_files`
        return Path(root)
    flavour = mlflow.models.Model.load(root).flavors["python_function"]
    return Path(root, flavour["artifacts"]["model"]["path"])


def _page(run_id: str, model_id: str) -> str:
    """Where MLflow's UI shows the files of a logged model, from its root."""
    return f"#/experiments/{client().get_run(run_id).info.experiment_id}/models/{model_id}/artifacts"


def _see_to_model(name: str) -> None:
    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(name: str, alias: str | None, version: int | None) -> ModelVersion | None:
    try:
        if alias is not None:
            return client().get_model_version_by_alias(name, alias)
        return client().get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _find_content(name: str, content_hash: str) -> ModelVersion | None:
    query = f"name = '{name}' and tags.{CONTENT_HASH} = '{content_hash}'"
    found = client().search_model_versions(query)
    return min(found, key=lambda version: int(version.version), default=None)


def _dataset(use: DataUse) -> DatasetInput:
    source = CodeDatasetSource(tags={"prepared_version": use.prepared_version})
    dataset = MetaDataset(source, name="prepared", digest=use.prepared_version[:DIGEST])  # type: ignore[abstract]
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", use.context)])

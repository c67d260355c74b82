"""The schema of params.yaml and its recipes: one section a step, unknown keys and wrong types refused.

`python -m components.params --recipe recipes/cpu.yaml` runs the local graph by a recipe, as an experiment of DVC.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from base.errors import InputError, errors_in_one_line
from model.settings import TrainSettings

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
INLINE = "--params"  # what errors call parameters that are given as JSON
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
# Of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ what sizes are written in.
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*([KMGT]i?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ParamsError(InputError):
    """A parameter that is missing, unknown, of the wrong type or out of range."""


class Section(BaseModel):
    """Base of the sections: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataParams(Section):
    """What the DVC graph starts from."""

    root: str  # the raw data set that `prepare` reads


class SampleParams(Section):
    """The synthetic sample."""

    train: Count  # scenes
    test: Count  # scenes
    size: int = Field(ge=64)  # pixels of a side
    seed: int = Field(ge=0)


class PrepareParams(Section):
    """How raw scenes are prepared."""

    validation_share: float = Field(ge=0, lt=1)  # of the train and tier3 scenes
    holdout_disasters: list[str]  # events kept out of training and validation
    exclude: list[str]  # names of scenes that are left out
    on_error: Literal["fail", "skip"]  # whether a bad scene ends the step or is left out
    workers: int = Field(ge=0)  # processes; 0 for as many as there are cores


class EvaluateParams(Section):
    """What is scored, and how."""

    splits: list[Literal["train", "validation", "out_of_event", "test", "hold"]] = Field(min_length=1)
    unclassified_as: Annotated[int, Field(ge=0, le=4)] | Literal["ignore"]  # target class of un-classified buildings
    # Whether all pixels of a predicted building get the grade that its probabilities vote for. YAML reads a bare `off`
    # as false.
    per_building: Annotated[Literal["off", "vote"], BeforeValidator(lambda value: "off" if value is False else value)]
    pictures: Count  # scenes of each kind shown in the report: best, median, worst


class RegisterParams(Section):
    """Where models are registered."""

    name: str = Field(min_length=1)  # of the registered model


class PromoteParams(Section):
    """The gate in front of production."""

    minimum_score: Share
    tolerance: Share  # how much worse than production a version may be, over all
    grade_tolerance: Share | None = None  # in a grade; None: as over all
    disaster_tolerance: Share | None = None  # in a disaster; None: as over all


class TrackingParams(Section):
    """Where runs are recorded."""

    experiment: str = Field(min_length=1)  # name in MLflow


class Toleration(Section):
    """A taint of nodes that the pods put up with, as Kubernetes spells it."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ClusterParams(Section):
    """A training job in Kubernetes. Each node of it is a pod with these resources, all of its own."""

    # The operator's kind of job: of the training operator, or of Kubeflow Trainer 2; auto takes what the cluster has.
    kind: Literal["auto", "pytorchjob", "trainjob"] = "auto"
    queue: Name | None = None  # of Kueue, in which the job waits for quota; None starts it at once
    priority: Name | None = None  # Kueue's WorkloadPriorityClass of the job
    topology: str | None = Field(None, min_length=1)  # label of nodes, by which Kueue puts all pods together if it can
    nodes: Count
    devices_per_node: int = Field(ge=0)  # GPUs, each with a process of its own; 0 trains on CPUs, in one process
    # Name of the GPUs in Kubernetes; None trains on CPUs, in `devices_per_node` processes.
    device_resource: str | None = Field(min_length=1)
    cpu: Count  # cores
    memory: Size
    shared_memory: Size  # /dev/shm, which NCCL and the readers of crops use, and which counts as memory
    scratch: Size  # the node's own disk, for the copy of the data
    node_selector: dict[str, str]
    tolerations: list[Toleration]
    image_pull_secrets: list[Name] = []  # of the registry that has the image
    service_account: Name | None  # of the pods
    environment: dict[Variable, str]  # of the processes
    secrets: list[Name]  # Kubernetes secrets whose keys become variables
    restarts: int = Field(ge=0)  # how often a pod that was preempted or killed is started again
    ttl_seconds: int = Field(ge=0)  # how long an ended job is kept
    deadline_seconds: Count  # time from the start after which the job fails
    gang_scheduling: bool  # start no pod before there is room for all
    elastic_min_nodes: Count | None  # go on with as few nodes when some are lost; None needs them all

    @field_validator("elastic_min_nodes")
    @classmethod
    def _can_shrink(cls, least: int | None, info: ValidationInfo) -> int | None:
        nodes = info.data.get("nodes", 0)
        if least is not None and not 2 <= nodes >= least:
            raise ValueError(f"expected null, or at least two nodes and no more than there are ({nodes})")
        return least

    @property
    def processes_per_node(self) -> int:
        """Processes of the training on each node."""
        return max(1, self.devices_per_node)


class Params(Section):
    """All of params.yaml."""

    data: DataParams
    sample: SampleParams
    prepare: PrepareParams
    train: TrainSettings
    evaluate: EvaluateParams
    register_: RegisterParams = Field(alias="register")
    promote: PromoteParams
    tracking: TrackingParams
    cluster: ClusterParams


def load_params(path: str | Path, recipe: Path | None = None) -> Params:
    """Reads params.yaml, lays the recipe's overrides over it, validates the whole.

    path: a file, or the content itself as a JSON object, which is how a pod without files gets its parameters.
    Raises ParamsError naming the file, the parameter, what was found and what was expected.
    """
    merged = _read_yaml(path)
    if recipe is not None:
        merged = _merge(merged, _read_yaml(recipe))
    name = INLINE if _is_inline(path) else f"{path}"
    return validate(merged, name if recipe is None else f"{name} with {recipe}")


def validate(sections: Mapping[str, Any], source: str) -> Params:
    """The parameters in these sections; raises ParamsError, naming `source`."""
    try:
        # Through JSON, because strict validation of Python values would refuse a mapping for a settings class.
        return Params.model_validate_json(json.dumps(sections, default=str))
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        raise ParamsError(f"{source}: {problems}.") from None


def overrides(recipe: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A recipe as `name=value` lines in the syntax of `dvc exp run --set-param`."""
    lines = []
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            lines += overrides(value, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
            lines.append(f"{prefix}{key}={text.splitlines()[0]}")
    return lines


def recipe_of(params: Params) -> str:
    """Name of the recipe that training follows: that whose section `train` changes nothing any more; else "none"."""
    given = params.model_dump(mode="json", by_alias=True)["train"]
    for path in sorted(RECIPES.glob("*.yaml")):
        if _merge(given, _read_yaml(path).get("train", {})) == given:
            return path.stem
    return "none"


def _is_inline(path: str | Path) -> bool:
    return str(path).lstrip().startswith("{")


def _read_yaml(path: str | Path) -> dict[str, Any]:
    text, path = (str(path), INLINE) if _is_inline(path) else (None, path)
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}). Give the path of a parameter file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: is not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: holds {type(content).__name__}, expected a mapping of sections.")
    return content


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "network" and isinstance(value, Mapping) and "name" in value:
            old = None  # another network has other fields
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _describe(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name}: is not a parameter. Remove it or correct its spelling"
    if problem["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{name}: is missing. Add it"
    return f"{name}: found {problem['input']!r}: {message}"


def main(argv: Sequence[str] | None = None) -> None:
    """Starts `dvc exp run` with the values of a recipe, which DVC writes into params.yaml, after validating them.

    Whatever else is given goes to `dvc exp run`. Ends with its exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m components.params", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE", help="such as recipes/cpu.yaml")
    arguments, more = parser.parse_known_args(argv)
    with errors_in_one_line():
        load_params("params.yaml", arguments.recipe)
        settings = [f"--set-param={line}" for line in overrides(_read_yaml(arguments.recipe))]
    # The DVC of this Python, also where its folder is not on the path.
    sys.exit(subprocess.call([sys.executable, "-m", "dvc", "exp", "run", *settings, *more]))


if __name__ == "__main__":
    main()

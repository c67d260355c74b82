"""The schema of params.yaml and its recipes: one section a step, unknown keys and wrong types refused.

`python -m components.params --recipe recipes/cpu.yaml` runs the local graph by a recipe, or by several of which the
last ones win, as an experiment of DVC.
DVC takes the values from params.yaml itself: its `--set-param` knows only keys that stand there, and gives quotes,
commas, `$` and braces a meaning of their own.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from base.access import unreadable
from base.errors import InputError, errors_in_one_line, printable
from base.files import write_file
from base.problems import describe
from base.yaml_file import YamlError, parse_yaml, rewrite_yaml
from model.settings import TrainSettings

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
INLINE = "--params"  # what errors call parameters that are given as JSON
# Options of `dvc exp run` with which the experiment is not run in the working tree.
ELSEWHERE = ("--queue", "--temp", "--dry", "--run-all")
NOT_STARTED = (253, 254)  # exit statuses of DVC: there is no repository here, the command line is not understood
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
# Of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ what sizes are written in.
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*([KMGT]i?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# Of a step: whole ones, parts as 0.5, or thousandths as 500m. Written as a number or as text.
Cores = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
    Field(pattern=r"^([1-9][0-9]*(m|\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)$"),
]
Split = Literal["train", "validation", "out_of_event", "test", "hold"]
StepName = Literal[
    "check", "fetch", "prepare", "train", "evaluate", "register", "promote", "finish",
    "plan", "predict", "merge", "deliver",
]  # fmt: skip
# Of the graph of a map, which came later: where they have no size, it is that of params.yaml.
LATER_STEPS = ("plan", "predict", "merge", "deliver")


class ParamsError(InputError):
    """A parameter that is missing, unknown, of the wrong type or out of range."""


class Section(BaseModel):
    """Base of the sections: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataParams(Section):
    """What the DVC graph starts from."""

    root: str = Field(min_length=1)  # the raw data set that `prepare` reads


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

    splits: list[Split] = Field(min_length=1)
    unclassified_as: Annotated[int, Field(ge=0, le=4)] | Literal["ignore"]  # target class of un-classified buildings
    # Whether all pixels of a predicted building get the grade that its probabilities vote for. YAML reads a bare `off`
    # as false.
    per_building: Annotated[Literal["off", "vote"], BeforeValidator(lambda value: "off" if value is False else value)]
    pictures: Count  # scenes of each kind shown in the report: best, median, worst
    views: Literal[1, 4, 8] = 1  # of each pair, whose mean is scored: as it is, with its flips, with quarter turns, too


class RegisterParams(Section):
    """Where models are registered."""

    name: str = Field(pattern=r"^[^/:]+$")  # of the registered model, which MLflow keeps "/" and ":" out of


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


class StepSize(Section):
    """What the pod of a pipeline's step asks of its node."""

    cpu: Cores
    memory: Size
    scratch: Size  # the node's own disk, for copies of S3 locations


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
    certificates: Name | None = None  # config map with ca.crt: who vouches for MLflow's and S3's own certificates
    service_account: Name | None  # of the pods
    environment: dict[Variable, str]  # of the processes
    secrets: list[Name]  # Kubernetes secrets whose keys become variables
    restarts: int = Field(ge=0)  # how often a pod that was preempted or killed is started again
    ttl_seconds: int = Field(ge=0)  # how long an ended job is kept
    deadline_seconds: Count  # time from the start after which the job fails
    gang_scheduling: bool  # start no pod before there is room for all
    elastic_min_nodes: Count | None  # go on with as few nodes when some are lost; None needs them all
    steps: dict[StepName, StepSize] | None = None  # of the graphs; None, as in earlier files: those of params.yaml

    @field_validator("elastic_min_nodes")
    @classmethod
    def _can_shrink(cls, least: int | None, info: ValidationInfo) -> int | None:
        nodes = info.data.get("nodes", 0)
        if least is not None and not 2 <= nodes >= least:
            raise ValueError(f"expected null, or at least two nodes and no more than there are ({nodes})")
        return least

    @field_validator("steps")
    @classmethod
    def _is_whole(cls, steps: dict[str, StepSize] | None) -> dict[str, StepSize] | None:
        needed = [name for name in get_args(StepName) if name not in LATER_STEPS]
        missing = [] if steps is None else [name for name in needed if name not in steps]
        if missing:
            raise ValueError(f"expected a size for each step; {', '.join(missing)} have none")
        return steps

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


def load_params(path: str | Path, *recipes: Path) -> Params:
    """Reads params.yaml, lays the overrides of the recipes over it, one after the other, validates the whole.

    path: a file, or the content itself as a JSON object, which is how a pod without files gets its parameters.
    Raises ParamsError naming the file, the parameter, what was found and what was expected.
    """
    merged, source = _read(path, recipes)
    return validate(merged, source)


def validate(sections: Mapping[str, Any], source: str) -> Params:
    """The parameters in these sections; raises ParamsError, naming `source`."""
    try:
        # Through JSON, because strict validation of Python values would refuse a mapping for a settings class.
        return Params.model_validate_json(json.dumps(sections, default=str))
    except ValidationError as error:
        problems = "; ".join(describe(problem) for problem in error.errors())
        raise ParamsError(f"{source}: {printable(problems)}.") from None


def add_recipes(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """The option --recipe, as `recipes`: a list of paths."""
    text = "overrides of params.yaml, such as recipes/cpu.yaml; given again, the later one wins"
    parser.add_argument(
        "--recipe", dest="recipes", type=Path, action="append", default=[], required=required, metavar="FILE", help=text
    )


def _is_inline(path: str | Path) -> bool:
    return str(path).lstrip().startswith("{")


def _read(path: str | Path, recipes: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """The parameters with the recipes laid over them, not validated yet, and what errors call them."""
    if not str(path).strip():
        raise ParamsError(
            f"{INLINE}: is empty, expected the path of a parameter file, or its content as JSON. Give one."
        )
    merged = _read_yaml(path)
    for recipe in recipes:
        merged = lay_over(merged, read_recipe(recipe))
    return merged, " with ".join([INLINE if _is_inline(path) else f"{path}", *map(str, recipes)])


def read_recipe(path: Path, *above: Path) -> dict[str, Any]:
    """The overrides of a recipe. Where it says `over: NAME`, they are laid over those of recipes/NAME.yaml.

    above: the recipes that are laid over this one. Raises ParamsError, naming the recipe that is wrong.
    """
    known = known_recipes()
    names = f"of {RECIPES.name}/NAME.yaml there are {', '.join(known)}."
    said = _read_yaml(path, f"Give the path of a recipe; {names}")
    if "over" not in said:
        return said
    name, above = said.pop("over"), (path.absolute(), *above)
    base = known.get(name) if isinstance(name, str) else None
    if base is None or base in above:
        found = shorten(printable(repr(name)), 200, placeholder=" ...")
        chain = "" if base is None else f" and so a circle, {', over '.join(p.stem for p in (*above[::-1], base))}"
        raise ParamsError(
            f"{path}: over: found {found}{chain}, expected the name of another recipe; {names} Correct it."
        )
    return lay_over(read_recipe(base, *above), said)


def known_recipes() -> dict[str, Path]:
    """Those that come with the project, and those that its users put beside them, by their names, in order."""
    return {path.stem: path.absolute() for path in sorted(RECIPES.glob("[!.]*.yaml"))}


def _read_yaml(path: str | Path, remedy: str = "Give the path of a parameter file.") -> dict[str, Any]:
    text, path = (str(path), INLINE) if _is_inline(path) else (None, path)
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        raise ParamsError(f"{path}: {unreadable(Path(path), error, f'. {remedy}')}") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except YamlError as error:
        raise ParamsError(f"{path}: {printable(str(error))}. Correct it.") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds {type(content).__name__}"
        raise ParamsError(f"{path}: {found}, expected a mapping of sections.")
    return content


def lay_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's overrides laid over parameters, or over another recipe's: mappings key by key, all else as it is."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and ((key == "network" and "name" in value) or "transform" in value):
            old = None  # another network has other fields, and a pipeline of Albumentations is one whole
        merged[key] = lay_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the values of recipes into params.yaml and starts `dvc exp run`, after validating them.

    Whatever else is given goes to `dvc exp run`. Ends with its exit status. With --queue or --temp, where DVC runs the
    experiment elsewhere, params.yaml is as before in the end.
    """
    parser = argparse.ArgumentParser(prog="python -m components.params", description=main.__doc__, allow_abbrev=False)
    add_recipes(parser, required=True)
    arguments, more = parser.parse_known_args(argv)
    # DVC understands abbreviations of its options.
    elsewhere = any(len(word) > 2 and option.startswith(word) for word in more for option in ELSEWHERE)
    path = Path("params.yaml")
    with errors_in_one_line():
        merged, source = _read(path, arguments.recipes)
        validate(merged, source)
        before = path.read_bytes()
        rewrite_yaml(path, merged)
        written, status = path.read_bytes(), 0
        try:
            # The DVC of this Python, also where its folder is not on the path.
            status = subprocess.call([sys.executable, "-m", "dvc", "exp", "run", *more])
        finally:
            # What somebody else wrote meanwhile stays.
            if (elsewhere or status in NOT_STARTED) and path.read_bytes() == written:
                write_file(path, before)
    sys.exit(status)


if __name__ == "__main__":
    main()

"""What a new step or parameter needs in other places; each message names the place that was forgotten.

docs/extend.md has the places in order.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from components.kubeflow import steps
from components.kubeflow.mapping import steps as map_steps
from components.kubeflow.sections import SECTIONS as GRAPH_SECTIONS
from components.params import Params, StepName, load_params
from model.settings import TrainSettings
from model.train.run import identity_of
from tests.conftest import GOLDEN, ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
SECTIONS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SECTION, LOCAL, KUBEFLOW = "its parameters", "the local graph", "the Kubeflow graph"
# Of each graph: what its steps need, and where they are declared, work and are chained.
TRAINING = (steps.NEEDS, "components/kubeflow/{}.py", "components/kubeflow/graphs/training.py")
MAP = (map_steps.NEEDS, "components/kubeflow/mapping/{}.py", "components/kubeflow/graphs/mapping.py")
# Where a step does not stand, and why; every other step stands in all places.
LEFT_OUT: dict[str, dict[str, str]] = {
    "sample": {KUBEFLOW: "a run in a cluster starts from a version of the raw data that exists"},
    "fetch": {SECTION: "what it brings is told by its options", LOCAL: "there DVC has the raw data"},
    "publish": {
        SECTION: "its options name one version",
        LOCAL: "there dvc.lock names the version",
        KUBEFLOW: "who brings data says so, before a run",
    },
    "promote": {LOCAL: "a decision, no result that one can make again"},
    "predict": {
        SECTION: "its options belong to one pair of images",
        LOCAL: "it runs when there is a disaster",
    },
    "plan": {
        SECTION: "its options belong to one pair of images",
        LOCAL: "it runs when there is a disaster",
    },
    "merge": {
        SECTION: "its options belong to one pair of images",
        LOCAL: "it runs when there is a disaster",
    },
    "deliver": {SECTION: "its options belong to one map", LOCAL: "it runs when there is a disaster"},
    "assess": {
        SECTION: "there is nothing to choose",
        LOCAL: "it runs when people have judged a map",
        KUBEFLOW: "it runs when people have judged a map",
    },
    "label": {
        SECTION: "its options belong to one map",
        LOCAL: "it runs when people have judged a map, and gives raw data",
        KUBEFLOW: "it runs when people have judged a map, and gives raw data",
    },
    "import_weights": {
        SECTION: "there is nothing to choose",
        LOCAL: "a model of others is imported once",
        KUBEFLOW: "a model of others is imported once",
    },
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> set[str]:
    return {node.name for node in parse(path).body if isinstance(node, ast.FunctionDef)}


# A file of components/ with a command line is a step, but for params.py, which runs a recipe.
STEPS = sorted(
    path.stem for path in (ROOT / "components").glob("*.py") if "main" in functions(path) and path.stem != "params"
)


@cache
def calls(path: Path) -> set[str]:
    """Calls as text, such as `steps.train` and `set_up 'train'`: the function, and each text that it is given."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= {name, *(f"{name} {ast.unparse(part)}" for part in node.args if isinstance(part, ast.Constant))}
    return found


@cache
def parameters_of_the_graph() -> set[str]:
    nodes = (node for node in ast.walk(parse(ROOT / TRAINING[2])) if isinstance(node, ast.FunctionDef))
    (graph,) = (node for node in nodes if node.name == "dual_hrnet")
    return {argument.arg for argument in graph.args.args}


def missing(step: str) -> Iterator[tuple[str, str]]:
    """The places where a step does not stand: the group, and what is missing in which file."""
    if step not in SECTIONS:
        yield SECTION, f"params.yaml: the section {step}"
    if step not in {field.alias or name for name, field in Params.model_fields.items()}:
        yield SECTION, f"components/params.py: the schema of its section, and a field {step} of Params"
    if step not in STAGES:
        yield LOCAL, f"dvc.yaml: the stage {step}"
    if step in STAGES and step in SECTIONS and step not in STAGES[step].get("params", []):
        yield LOCAL, f"dvc.yaml: its section under params of the stage {step}"
    needs, place, graph = MAP if step in map_steps.NEEDS else TRAINING
    declared, work = place.format("steps"), place.format("tasks")
    if step not in functions(ROOT / declared):
        yield KUBEFLOW, f"{declared}: a @component {step}"
    if step not in needs:
        yield KUBEFLOW, f"{declared}: what it needs, NEEDS[{step!r}]"
    if step not in functions(ROOT / work):
        yield KUBEFLOW, f"{work}: what its task does around it, a function {step}"
    if step not in get_args(StepName):
        yield KUBEFLOW, f"components/params.py: its name in StepName, {step}"
    if step not in SECTIONS["cluster"]["steps"]:
        yield KUBEFLOW, f"params.yaml: the size of its pod in cluster.steps, {step}"
    if f"steps.{step}" not in calls(ROOT / graph):
        yield KUBEFLOW, f"{graph}: its task in the graph, steps.{step}(...)"
    if f"set_up {step!r}" not in calls(ROOT / graph):
        yield KUBEFLOW, f"{graph}: set_up(..., {step!r}) for its task"
    if step in SECTIONS and step not in GRAPH_SECTIONS:
        yield KUBEFLOW, f"components/kubeflow/sections.py: its section in SECTIONS, {step}"
    if step in SECTIONS and step not in parameters_of_the_graph():
        yield KUBEFLOW, f"{graph}: its section among the parameters of the graph, {step}"


@pytest.mark.parametrize("step", STEPS)
def test_a_step_stands_in_every_place_or_there_is_a_reason(step: str) -> None:
    left_out = LEFT_OUT.get(step, {})
    forgotten = [what for place, what in missing(step) if place not in left_out]
    assert forgotten == [], f"components/{step}.py: the step is missing in {'; '.join(forgotten)}"


@pytest.mark.parametrize("step", LEFT_OUT)
def test_a_reason_to_leave_out_a_step_is_still_needed(step: str) -> None:
    assert step in STEPS
    assert set(LEFT_OUT[step]) == {place for place, _ in missing(step)} & set(LEFT_OUT[step])


def test_what_the_graphs_run_is_a_step() -> None:
    assert set(STAGES) <= set(STEPS)
    # Only of a graph: what is looked at before a run, and what is left of it.
    assert set(steps.NEEDS) - {"check", "finish"} | set(map_steps.NEEDS) <= set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_a_function_of_its_name_that_python_can_call(step: str) -> None:
    kinds = {"predict": {"predict_pairs", "predict_imagery", "predict_shard"}}.get(step, {step})
    assert kinds <= functions(ROOT / "components" / f"{step}.py")


def parameters(section: Any, prefix: str) -> Iterator[str]:
    """Names of the parameters in a schema, such as train.network.width."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        for name, info in section.model_fields.items():
            yield from parameters(info.annotation, f"{prefix}.{info.alias or name}")
    elif dataclasses.is_dataclass(section):
        for field in dataclasses.fields(section):
            yield from parameters(field.type, f"{prefix}.{field.name}")
    else:
        yield prefix.removeprefix(".")


@cache
def read_attributes() -> set[str]:
    """Every name that the code reads from something, such as `epochs` of `settings.epochs`."""
    files = [path for package in ("xbd", "model", "imagery", "components") for path in (ROOT / package).rglob("*.py")]
    nodes = (node for path in files for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize("name", sorted(parameters(Params, "")))
def test_every_parameter_is_read(name: str) -> None:
    assert name.rpartition(".")[2] in read_attributes(), f"{name}: no code reads it. Use it or take it out"


@dataclass(config=ConfigDict(extra="forbid", strict=True), frozen=True, kw_only=True)
class WithLater(TrainSettings):
    """The settings with a parameter that came later."""

    later: float = 0.0


def test_a_parameter_that_came_later_leaves_earlier_runs_what_they_were(params_file: Path) -> None:
    then = load_params(params_file).train
    now = WithLater(**{field.name: getattr(then, field.name) for field in dataclasses.fields(then)})
    assert identity_of(now) == identity_of(then)
    assert identity_of(dataclasses.replace(now, later=0.5)) == identity_of(then) | {"later": 0.5}


def test_the_first_parameters_of_training_have_no_default_and_later_ones_have(params_file: Path) -> None:
    """`identity_of` leaves a default out: a first parameter that got one, or a later one that has none, would make
    earlier runs others.
    """
    required = {field.name for field in dataclasses.fields(TrainSettings) if field.default is dataclasses.MISSING}
    earlier = yaml.safe_load((GOLDEN / "earlier" / "params.yaml").read_text(encoding="utf-8"))["train"]
    assert required == set(earlier), "model/settings.py: a new field of TrainSettings has a default, no other one has"


def test_earlier_files_of_parameters_are_still_accepted() -> None:
    """A section, or a field of one, that came later has a default."""
    load_params(GOLDEN / "earlier" / "params.yaml")


def test_the_checklists_name_files_that_are_there() -> None:
    text = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|yaml|md))`", text)
    assert len(named) > 30
    gone = [path for path in named if "NAME" not in path and "KIND" not in path and not (ROOT / path).exists()]
    assert gone == [], f"docs/extend.md: {', '.join(gone)}: not there any more. Correct the checklist"

"""A compiled graph on this machine, by Kubeflow's own local runner: task by task, in processes of their own."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from base.errors import InputError
from components.kubeflow.tasks import PROCESSES

ROOT = Path(__file__).resolve().parents[2]


class PipelineError(InputError):
    """A graph that cannot be compiled, run or submitted."""


def run_graph(graph: Path, arguments: Mapping[str, Any], processes: int, work: Path) -> None:
    """Runs the graph, its training in so many processes; what Kubeflow keeps of a task goes below `work`.

    Raises PipelineError.
    """
    from kfp import components, local

    warnings.filterwarnings("ignore", "You may be attemping to run a task that uses custom", RuntimeWarning)
    # The tasks import the steps, wherever their own code is started.
    os.environ.update({"PYTHONPATH": str(ROOT), PROCESSES: str(processes)})
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(work), raise_on_error=True)
    try:
        components.load_component_from_text(_for_one_machine(graph))(**arguments)
    except RuntimeError as error:
        raise PipelineError(f"{error} Its line stands above; what is done stays below {arguments['root']}.") from error


def _for_one_machine(graph: Path) -> str:
    """The graph without attempts, as what failed here fails again, and without sizes, which mean nothing here."""
    from components.kubeflow.form import SIZES

    parts = list(yaml.safe_load_all(graph.read_text(encoding="utf-8")))
    whole = parts[0]
    for dag in [whole["root"], *whole["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
            inputs = task.get("inputs", {}).get("parameters", {})
            for name in [name for name in inputs if name.startswith(f"{SIZES}-")]:
                del inputs[name]
    for component in whole["components"].values():
        inputs = component.get("inputDefinitions", {}).get("parameters", {})
        for name in [name for name in inputs if name.startswith(f"{SIZES}-")]:
            del inputs[name]
    for executor in whole["deploymentSpec"]["executors"].values():
        executor["container"].pop("resources", None)
    return yaml.safe_dump_all(parts, sort_keys=False)

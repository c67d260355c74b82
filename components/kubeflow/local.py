"""A compiled graph on this machine, by Kubeflow's own local runner: task by task, in processes of their own."""

import os
import re
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
    warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect in the current local runner", UserWarning)
    # The tasks import the steps, wherever their own code is started.
    os.environ.update({"PYTHONPATH": str(ROOT), PROCESSES: str(processes)})
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(work), raise_on_error=True)
    try:
        components.load_component_from_text(_for_this_machine(graph))(**arguments)
    except RuntimeError as error:
        said = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # colours of a terminal
        raise PipelineError(f"{said} Its line stands above; what is done stays below {arguments['root']}.") from error


def _for_this_machine(graph: Path) -> str:
    """The graph without attempts, as what failed here fails again, and without sizes, which mean nothing here.

    Its tasks take the devices that are here, whatever they would ask of a cluster.
    """
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
        executor["container"].pop("env", None)  # NEEDS_GPU, and the certificates of a cluster
    return yaml.safe_dump_all(parts, sort_keys=False)

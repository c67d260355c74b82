"""What pipeline.py asks of a graph, and how one becomes the YAML that every client of Kubeflow can submit."""

import argparse
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from base.command_line import Parser
from base.files import write_file
from components.kubeflow.local import PipelineError
from components.params import Params

# Parameters that all graphs have, and what each is.
COMMON = {
    "tracking": "section: experiment in MLflow",
    "step_sizes": "cores and memory of each task's pod (cluster.steps); docs/kubeflow-ui.md tells how to size them",
    "node_selector": "labels of the nodes for all pods",
    "tolerations": "taints of nodes that all pods put up with",
    "mlflow_uri": "MLflow as pods reach it; empty: what the image or the platform says in MLFLOW_TRACKING_URI",
    "mlflow_ui": "MLflow as browsers reach it, for links; empty: as pods do",
    "s3_endpoint": "an S3 server other than AWS; empty: AWS, or what the environment says",
    "kubeflow_uri": "Kubeflow's UI, for links to this run in MLflow; empty: none",
}


class Graph(ABC):
    """A graph and its part of the command line.

    check, warn and begin_here do nothing where a graph has nothing to say there.

    parameters: those that it has in Kubeflow, and what each is, for people. required: those of them without a default.
    """

    parameters: ClassVar[Mapping[str, str]]
    required: ClassVar[Collection[str]]

    @property
    @abstractmethod
    def steps(self) -> Collection[str]:
        """The names of its tasks."""

    @abstractmethod
    def define(self, params: Params, image: str) -> Any:
        """The graph as Kubeflow's SDK has it, its defaults taken from `params`."""

    @abstractmethod
    def add_options(self, parser: Parser, command: str) -> None:
        """Adds its own options to a command: compile, run, submit or schedule."""

    @abstractmethod
    def values(self, params: Params, arguments: argparse.Namespace) -> dict[str, Any]:
        """The parameters that its own options give. Raises InputError."""

    def check(self, params: Params) -> None:  # noqa: B027
        """Refuses what no cluster could run, of a graph that knows such a thing. Raises InputError."""

    def warn(self, params: Params, namespace: str) -> None:  # noqa: B027
        """Warns where the cluster of the kubeconfig could not run it. namespace: of the run."""

    def begin_here(self, values: Mapping[str, Any]) -> None:  # noqa: B027
        """Refuses, before a run on this machine, what its first task would fail at. Raises InputError."""

    def end_here(self, values: Mapping[str, Any], artifacts: Path) -> int:
        """Says where the results of a run on this machine are, and returns the exit code.

        artifacts: folder of what the tasks told Kubeflow.
        """
        print(f"scores, report and references of each task: {artifacts}")
        return 0


def compile_graph(
    graph: Graph, params: Params, image: str, out: Path, defaults: Mapping[str, Any] | None = None
) -> None:
    """Writes the graph as YAML; raises PipelineError.

    defaults: of parameters of the graph that are no section, fit for JSON.
    """
    from kfp import compiler

    from components.kubeflow.form import fill_in

    if out.suffix not in (".yaml", ".yml"):
        name = out / "pipeline.yaml" if out.is_dir() else out.with_suffix(".yaml")
        found = "is a folder" if out.is_dir() else f"ends in {out.suffix or 'no suffix'}"
        raise PipelineError(f"{out}: {found}, but Kubeflow takes graphs from files that end in .yaml. Give {name}.")
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "pipeline.yaml")
        filled = fill_in(graph.define(params, image), graph.parameters, defaults or {})
        compiler.Compiler().compile(filled, str(compiled))
        text = compiled.read_text(encoding="utf-8")
    # The comment on top tells the defaults in another order in each process, and the same graph is to be one version.
    write_file(out, re.sub(r"\A(#.*\n)+", "", text))

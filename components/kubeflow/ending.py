"""What is left to do when a run of the graph has ended, however it did: its jobs are deleted, and its end is told.

How it ended stands in its Workflow. What Kubeflow says to an exit hook is COMPLETE for a good run, RUNNING both for a
run that came from the cache and for one that a person ended, and no error ever (seen with KFP 2.17.0).
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple

from components.cluster.api import Api, JobPatience, LogError
from components.cluster.job import JobError
from components.cluster.workflow import CONTAINER, Node, Workflow, read_workflow
from components.kubeflow.client import run_page
from components.kubeflow.failure import Failure, failure_of

Status = Literal["SUCCEEDED", "FAILED", "CANCELED", "UNKNOWN"]
HOOK = ".onExit"  # in the names of the exit hook's own nodes
BROKEN = ("Failed", "Error")
LOG_LINES = 200  # at the end of a pod's log, where Kubeflow's own come last
# What Kubeflow's word means where the Workflow cannot be read.
KUBEFLOWS: dict[str, Status] = {"SUCCEEDED": "SUCCEEDED", "COMPLETE": "SUCCEEDED", "FAILED": "FAILED"}
MLFLOWS: dict[Status, str | None] = {
    "SUCCEEDED": "FINISHED",
    "FAILED": "FAILED",
    "CANCELED": "KILLED",
    "UNKNOWN": None,
}


class Ending(NamedTuple):
    """How a run ended. cached, done: steps of which something came from the cache, and that ran to their end."""

    status: Status
    failures: tuple[Failure, ...] = ()
    cached: tuple[str, ...] = ()
    done: tuple[str, ...] = ()

    @property
    def mlflow(self) -> str | None:
        """How the training ended, in MLflow's words, for a training that could not say it itself."""
        return "FINISHED" if "train" in self.done else MLFLOWS[self.status]

    def __str__(self) -> str:
        """The ending as one line, without a full stop."""
        if self.status == "SUCCEEDED":
            cached = f", with {', '.join(self.cached)} from the cache" if self.cached else ""
            # Of a run without a Workflow no step is known.
            known = {*self.done, *self.cached}
            return f"succeeded{cached}{', without a promotion' if known and 'promote' not in known else ''}"
        if self.status == "CANCELED":
            return "was cancelled"
        if self.status == "UNKNOWN":
            return "has ended; Kubeflow does not tell how"
        return "; ".join(map(str, self.failures)) or "failed"


def finish(state: str, workflow: str, kubeflow_uri: str) -> None:
    """After a run of the graph: deletes the jobs that it left, and tells how it ended, here and in the MLflow run of
    its training.

    state, workflow: what Kubeflow tells an exit hook. kubeflow_uri: of the UI, or empty. Raises JobError where jobs
    cannot be deleted.
    """
    run = os.environ.get("RUN_ID", "")
    if not run:  # on one machine, where a training ends its run itself, and no Workflow tells more
        print(f"the run {Ending(KUBEFLOWS.get(state, 'UNKNOWN'))}.")
        return
    from components.cluster.launcher import goes_on, release

    namespace = os.environ["POD_NAMESPACE"]
    wanted = [run]
    try:
        wanted += release(namespace, workflow)
    finally:
        ending = _read_ending(namespace, workflow, state)
        print(f"run {run} {ending}.", flush=True)
        link = run_page(kubeflow_uri, run) if kubeflow_uri else ""
        if goes_on(namespace, run):
            print("MLflow: the training goes on for another run of the pipeline, which will say how it ended.")
        else:
            _tell_mlflow(dict.fromkeys(wanted), link, ending)


def ending_of(workflow: Workflow, log: Callable[[str], str]) -> Ending:
    """How a run ended, apart from the exit hook itself. log: the end of a pod's log, empty where it cannot be read."""
    nodes = [node for node in workflow.nodes if HOOK not in node.name]
    executors = [node for node in nodes if re.search(r"\.executor(\(\d+\))?$", node.name)]
    done = dict.fromkeys(_task(node.name) for node in executors if (node.kind, node.phase) == ("Pod", "Succeeded"))
    cached = dict.fromkeys(_task(node.name) for node in executors if node.phase == "Skipped")
    if workflow.is_stopped:
        return Ending("CANCELED", (), tuple(cached), tuple(done))
    failures = tuple(
        failure_of(_task(node.name), log(node.pod) if node.pod else "", node.exit_code, node.message)
        for node in _broken(nodes)
    )
    return Ending("FAILED" if failures else "SUCCEEDED", failures, tuple(cached), tuple(done))


def _task(node: str) -> str:
    """The step, or the driver of one, that a node of a Workflow belongs to, by the node's name. Argo has five nodes for
    each step: x, x(0), x(0).executor, x(0).executor(0) and x-driver.
    """
    *groups, last = (re.sub(r"\(\d+\)$", "", part) for part in node.split("."))
    return groups[-1] if last == "executor" and groups else last


def _broken(nodes: Sequence[Node]) -> list[Node]:
    """Where a failure began: the last attempt at each task that failed, or what failed without one."""
    broken = [node for node in nodes if node.phase in BROKEN]
    phases = {node.name: node.phase for node in nodes}
    last = {}
    for node in broken:
        task = re.sub(r"\(\d+\)$", "", node.name)
        is_around = any(other.name.startswith((f"{node.name}(", f"{node.name}.")) for other in broken)
        if not is_around and phases.get(task, node.phase) in BROKEN:  # else another attempt was a success
            last[task] = node
    return list(last.values())


def _read_ending(namespace: str, workflow: str, state: str) -> Ending:
    """As Argo tells it, else as Kubeflow does, with a line that says so."""

    def log(pod: str) -> str:
        try:
            return "\n".join(api.last_lines(pod, CONTAINER, LOG_LINES))
        except LogError:  # the pod is gone
            return ""

    try:
        api = Api(namespace, JobPatience())
        return ending_of(read_workflow(api, workflow), log)
    except JobError as error:
        print(f"warning: {error} Kubeflow's own word is {state}.", file=sys.stderr)
        return Ending(KUBEFLOWS.get(state, "UNKNOWN"))


def _tell_mlflow(wanted: Collection[str], link: str, ending: Ending) -> None:
    """Tags the MLflow run of the training, and ends it where it has not ended itself; a warning where that fails."""
    from components.tracking import runs
    from components.tracking.connection import TrackingError

    tags = {
        "pipeline_status": ending.status,
        "pipeline_link": link,
        "pipeline_error": "; ".join(map(str, ending.failures)),
    }
    try:
        found = runs.end_runs(wanted, ending.mlflow, tags)
    except TrackingError as error:
        # The run is as good as it was.
        print(f"warning: {error} The training's run there does not say how this one ended.", file=sys.stderr)
        return
    if found:
        print(f"MLflow: tagged the training's run {', '.join(found)}.")
    else:
        print("MLflow: no training ran, so there is no run to say it of.")

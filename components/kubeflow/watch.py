"""Waiting for a run of Kubeflow Pipelines: what its tasks do, whether it succeeded, and what failed."""

import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from base.patience import News, Patience
from components.cluster.workflow import pod_name
from components.kubeflow.client import Kubeflow, KubeflowError, one_line
from components.kubeflow.failure import DRIVER, Failure, failure_of

ENDS = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
EXECUTOR = "executor"  # the part of each task that runs its step
# Templates of the pods of a step, with set_retry and without, and of those of Kubeflow's drivers.
IMPLEMENTATIONS = ("retry-system-container-impl", "system-container-impl")
DRIVERS = ("system-container-driver", "system-dag-driver")
# Of an API server that may come back. The pause is the one between two looks at a run, too.
PATIENCE = Patience(away=600, first_pause=5, longest_pause=5)


def wait(kubeflow: Kubeflow, run: str, steps: Collection[str], patience: Patience = PATIENCE) -> None:
    """Waits for the end of a run, and prints each change of a task that belongs to these steps.

    Raises KubeflowError where the run ends without success, or where Kubeflow does not answer any more. SIGINT and
    SIGTERM end the waiting with exit code 130, and not the run.
    """
    news = News()
    link = kubeflow.run_link(run)
    with _only_waiting(link):
        while True:
            found = _look(kubeflow, run, patience, news)
            cached = _cached(found)
            for task in _tasks(found):
                if task.display_name in steps:
                    state = f"{task.state}, from the cache" if task.task_id in cached else task.state
                    news.say(task.task_id, state, f"{_clock()} {task.display_name} {state}", sys.stdout)
            state = _state(found)
            news.say(run, state, f"{_clock()} run {state}", sys.stdout)
            if state in ENDS:
                break
            time.sleep(patience.first_pause)
        if state == "CANCELED":
            raise KubeflowError(f"run {run} was cancelled. See {link}")
        if state != "SUCCEEDED":
            failures = _failures(kubeflow, run, found, steps)
            for failure in failures:
                if failure.words:
                    print("\n    ".join([f"{failure.title}. Its last lines:", *failure.words]), flush=True)
            why = "; ".join(map(str, failures)) or one_line(getattr(found.error, "message", None) or "no task failed")
            raise KubeflowError(f"run {run} ended as {state}: {why}. See {link}")


def _look(kubeflow: Kubeflow, run: str, patience: Patience, news: News) -> Any:
    """The run, also of a server that is away for a while."""
    host = kubeflow.host
    try:
        return patience.ask(
            lambda: kubeflow.look(run),
            lambda error: isinstance(error, KubeflowError) and error.may_pass,
            on_failure=lambda error, _: news.say(
                host, "away", f"{_clock()} {error} Asking again for {patience.away:g} s."
            ),
            on_return=lambda: news.say(host, "there", f"{_clock()} {host}: answers again."),
        )
    except KubeflowError as error:
        raise KubeflowError(f"{error} The run goes on: {kubeflow.run_link(run)}") from error


def _state(run: Any) -> str:
    """Kubeflow's word, but CANCELED for a run that a person ended: Kubeflow lets that end as FAILED."""
    was_stopped = any(status.state == "CANCELING" for status in run.state_history or [])
    return "CANCELED" if run.state == "FAILED" and was_stopped else str(run.state)


def _cached(run: Any) -> set[str]:
    """IDs of the tasks that came from the cache: the part of each that would have run it was skipped, at once."""
    tasks = _tasks(run)
    skipped = {task.start_time for task in tasks if (task.display_name, task.state) == (EXECUTOR, "SKIPPED")}
    return {
        task.task_id
        for task in tasks
        if task.state == "SUCCEEDED" and task.start_time == task.end_time and task.start_time in skipped
    }


def _failures(kubeflow: Kubeflow, run: str, found: Any, steps: Collection[str]) -> list[Failure]:
    """The tasks that failed, each with the end of its log."""
    broken = [task for task in _tasks(found) if task.state == "FAILED"]
    drivers = [task for task in broken if task.display_name.endswith(DRIVER)]
    executors = [task for task in broken if task.display_name == EXECUTOR]
    failures = []
    # Else what is around the steps could not begin.
    for task in [task for task in broken if task.display_name.removesuffix(DRIVER) in steps] or drivers:
        part = task if task in drivers else _take_part(task, executors)
        pods = (part.child_tasks if part else None) or []
        log = _log(kubeflow, run, pods[-1].pod_name, DRIVERS if part is task else IMPLEMENTATIONS) if pods else ""
        failures.append(failure_of(task.display_name, log))
    return failures or [Failure(task.display_name) for task in broken]


def _take_part(task: Any, executors: list[Any]) -> Any | None:
    """The part that ran the step of a task, taken out of these. The record under the name of a step knows no pod; one
    called executor has the pods of all attempts and does not say whose they are, but begins and ends with its task.
    """
    if not (task.start_time and task.end_time):
        return None
    timed = [part for part in executors if part.start_time and part.end_time]
    within = [part for part in timed if task.start_time <= part.start_time and part.end_time <= task.end_time]
    if not within:
        return None
    part = min(within, key=lambda part: (part.start_time - task.start_time) + (task.end_time - part.end_time))
    executors.remove(part)
    return part


def _log(kubeflow: Kubeflow, run: str, node: str, templates: Sequence[str]) -> str:
    """The log of a pod, which Kubeflow gives by its node in the Workflow; empty where it is gone."""
    workflow = node.rpartition("-")[0]
    for template in templates:
        with suppress(KubeflowError):
            return kubeflow.pod_log(run, pod_name(workflow, node, template))
    return ""


def _tasks(run: Any) -> list[Any]:
    """In the order of their start."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    named = [task for task in tasks if task.display_name and task.state]
    return sorted(named, key=lambda task: (str(task.start_time), task.display_name))


def _clock() -> str:
    return time.strftime("%H:%M:%S")


@contextmanager
def _only_waiting(link: str) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print(f"no longer waiting. The run goes on: {link}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)

"""Waiting for a run of Kubeflow Pipelines: what its tasks do, whether it succeeded, and what failed."""

import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from base.patience import News, Patience
from components.kubeflow.client import Kubeflow, KubeflowError, one_line

ENDS = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
DRIVER = "-driver"  # Kubeflow's own part of a task, which comes before it and can fail, too
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
            for task in _tasks(found):
                if task.display_name in steps:
                    news.say(task.task_id, task.state, f"{_clock()} {task.display_name} {task.state}", sys.stdout)
            news.say(run, found.state, f"{_clock()} run {found.state}", sys.stdout)
            if found.state in ENDS:
                break
            time.sleep(patience.first_pause)
    if found.state != "SUCCEEDED":
        failed = _failed(found, steps)
        text = f"run {run} ended as {found.state}"
        raise KubeflowError(f"{text}: {failed}. See {link}" if failed else f"{text}. See {link}")


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


def _failed(run: Any, steps: Collection[str]) -> str:
    """The tasks that failed, each with its reason where Kubeflow knows one."""
    tasks = [task for task in _tasks(run) if task.state == "FAILED"]
    # Else what contains them, such as a loop; only when none of them failed does this say more.
    tasks = [task for task in tasks if task.display_name.removesuffix(DRIVER) in steps] or tasks
    lines = [f"{task.display_name} failed{_message(task)}" for task in tasks]
    whole = _message(run).removeprefix(": ")
    return "; ".join(dict.fromkeys([*lines, whole] if whole else lines))


def _message(what: Any) -> str:
    """The latest error of a task or a run."""
    errors = [what.error, *(status.error for status in reversed(what.state_history or []))]
    return next((f": {one_line(error.message)}" for error in errors if error is not None and error.message), "")


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

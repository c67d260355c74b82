"""Why a task failed: its exit code and its last words, taken out of what Kubeflow and Argo write around them."""

import re
from typing import NamedTuple

DRIVER = "-driver"  # of Kubeflow: it comes before a step, decides whether it is in the cache, and can fail, too
REFUSAL = "GateError: "  # of the step promote
LINES = 12  # of an error, at most
# The launcher of Kubeflow, before and after the step; Argo, which starts the launcher; kfp, which starts the step.
KUBEFLOW = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ \w+\.go:\d+\] (.*)")
OTHERS = re.compile(r'time="?\d{4}-\S+ level=\w+ msg=|\[KFP Executor |Error: exit status \d+$')
STEP_ENDED = re.compile(r"(exit status (?P<code>\d+)|signal: (?P<signal>[\w ]+))")
INPUT = "Got executor_input:"  # lines of JSON follow


class Failure(NamedTuple):
    """A task that failed.

    task: the step, or Kubeflow's driver of it. how: such as "exit code 1", or empty. words: lines of the error, if any.
    """

    task: str
    how: str = ""
    words: tuple[str, ...] = ()

    @property
    def is_refusal(self) -> bool:
        """Whether nothing broke: the gate of the promotion does not let the model pass."""
        return self.task == "promote" and bool(self.words) and self.words[0].startswith(REFUSAL)

    @property
    def title(self) -> str:
        """What failed, and how."""
        if self.is_refusal:
            return "the gate refused the model"
        how = f" with {self.how}" if self.how else ""
        step = self.task.removesuffix(DRIVER)
        return (
            f"{step} failed{how}" if step == self.task else f"{step} failed before it began, in Kubeflow's driver{how}"
        )

    def __str__(self) -> str:
        """The failure as one line, without a full stop."""
        words = " | ".join(word.strip() for word in self.words).rstrip(".").removeprefix(REFUSAL)
        return f"{self.title}: {words}" if words else self.title


def failure_of(task: str, log: str, exit_code: int | None = None, message: str = "") -> Failure:
    """The failure that the end of a task's log tells.

    exit_code, message: what Argo knows of the pod. Its code is that of Kubeflow's launcher, which is 1 also where a
    signal ended the step.
    """
    own, around = _parted(log.splitlines())
    words = _error(own) or _error([text for level, text in around if level in "EF" and not STEP_ENDED.search(text)])
    ended = next((found for _, text in reversed(around) if (found := STEP_ENDED.search(text))), None)
    if ended is not None:
        how = f"signal {ended['signal']}" if ended["signal"] else f"exit code {ended['code']}"
    else:
        how = "" if exit_code is None else f"exit code {exit_code}"
    if not words and message:
        words = (message,)
    return Failure(task, how, words)


def _parted(lines: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The step's own lines, and those of Kubeflow's launcher, each with its level."""
    own: list[str] = []
    around: list[tuple[str, str]] = []
    is_input = False
    for line in lines:
        if is_input:
            is_input = line != "}"
        elif found := KUBEFLOW.fullmatch(line):
            around.append((found[1], found[2]))
        elif OTHERS.match(line):
            is_input = line.endswith(INPUT)
            if found := STEP_ENDED.search(line):
                around.insert(0, ("I", found[0]))  # of the launcher, which knows better how the step ended
        elif line.strip():
            own.append(line)
    return own, around


def _error(lines: list[str]) -> tuple[str, ...]:
    """The last line that is not indented, and those that are indented below it."""
    start = max((number for number, line in enumerate(lines) if not line.startswith((" ", "\t"))), default=0)
    return tuple(lines[start : start + LINES])

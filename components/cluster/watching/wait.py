"""Waiting for a job to its end: it is told what happens, how often its pods are started again, and by when it must end.

The training operator bounds neither the restarts nor the time of a job whose pods restart by exit code; this does.
"""

import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from base.patience import News
from components.cluster.api import PODS, Api, LogError
from components.cluster.backend import Backend, Object, Seen, State
from components.cluster.job import JobError
from components.cluster.watching.ends import End, end_of, trouble
from components.cluster.watching.observer import Observer, words_of_queue
from components.cluster.watching.record import Record, now
from components.params import ClusterParams

LAST_LINES = 10  # of a failing pod's logs, in the error


@dataclass(frozen=True)
class LastWords:
    """How a pod ended, and the last lines of its logs, or why there are none. was_deleted: somebody asked it to end."""

    end: End
    lines: list[str]
    problem: str = ""
    was_deleted: bool = False

    def __str__(self) -> str:
        text = f"{self.end}; {self.problem}." if self.problem else f"{self.end}."
        text += f" {self.end.remedy}" if self.end.remedy else ""
        return _with_lines(text, self.lines)


class Wait:
    """Waiting for one job, in one launcher."""

    def __init__(self, api: Api, backend: Backend, job: Object, cluster: ClusterParams) -> None:
        self._api, self._backend, self._cluster = api, backend, cluster
        self._name, self._uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._place = f"{api.namespace}/{self._name}"
        self._record = Record.of(job)
        self._words: dict[str, LastWords] = {}  # by the uid of the pod
        self._previous: dict[str, LastWords] = {}  # of the pods that were started again, by name
        self._news, self._looked = News(), 0.0
        self._claimed = time.monotonic()  # when an operator had the job last, or this began
        self._was_queued = False

    def run(self) -> tuple[Object, State]:
        """The job and its state when it has succeeded or failed.

        Raises JobError where others delete the job or the API refuses, and, after deleting it, where it was started
        again more than `cluster.restarts` times or has not ended in `cluster.deadline_seconds`.
        """
        with Observer(self._api, self._backend, self._name) as observer:
            for seen in observer.looks(self._uid):
                if seen is None:
                    break
                state = self._backend.state(seen)
                self._hear_pods(seen)
                if state.is_over:
                    return seen.job, state
                if "deletionTimestamp" in seen.job["metadata"]:
                    break
                self._tell(observer, seen, state)
                self._count(seen, state)
                self._hold_bounds(seen, state)
        raise JobError(f"{self._place} was deleted while it ran. Run the same command to go on with the training.")

    def failure(self, state: State) -> JobError:
        """Why the job failed: the first pod that did, its exit code and its last lines; else what the operator says."""
        pods, _ = self._api.find(PODS, self._backend.pods(self._name))
        self._hear_pods(Seen({}, pods))
        # Of the last try, also where the operator has deleted its pods; one that it deleted while it ran is no reason.
        last = {*(pod["metadata"]["uid"] for pod in pods), *self._record.pods.values()}
        words = [each for uid, each in self._words.items() if uid in last and not each.was_deleted]
        if not words:
            return JobError(f"{self._place} failed: {state.message or 'without a message of the operator'}")
        return JobError(f"{self._place} failed: {min(words, key=lambda each: each.end.order)}")

    def _hear_pods(self, seen: Seen) -> None:
        """Reads the last lines of each pod that has failed, at once: the operator deletes what it starts again."""
        for pod in seen.pods:
            uid, end = pod["metadata"]["uid"], end_of(pod, self._backend.container)
            if end is not None and end.code != 0 and uid not in self._words:
                self._words[uid] = self._last_words(end, "deletionTimestamp" in pod["metadata"])

    def _last_words(self, end: End, was_deleted: bool) -> LastWords:
        try:
            lines = self._api.last_lines(end.pod, self._backend.container, LAST_LINES)
        except LogError as error:
            return LastWords(end, [], str(error), was_deleted)
        return LastWords(end, lines, "" if lines else "it printed nothing", was_deleted)

    def _tell(self, observer: Observer, seen: Seen, state: State) -> None:
        """Prints what is news, each thing once."""
        for pod in seen.pods:
            name, waits_for = pod["metadata"]["name"], trouble(pod, self._backend.container)
            self._news.say(name, waits_for, f"pod {name}: {waits_for}")
        if state.phase not in ("queued", "unclaimed"):  # of which the queue or the events tell
            self._news.say(self._name, state.message, f"{self._name}: {state.message}")
        if time.monotonic() - self._looked < self._api.patience.look:
            return
        self._looked = time.monotonic()
        if state.phase == "queued":
            words = words_of_queue(self._api, seen.job)
            if words or self._was_queued:  # Kueue takes a moment to say why
                line = f"{self._name}: waits for quota" + (f": {words}" if words else "")
                self._news.say(self._name, "waits for quota", line)
        self._was_queued = state.phase == "queued"
        if state.phase in ("unclaimed", "starting", "restarting"):
            observer.read_events()
        for event in seen.events:
            # Of a quota, of Pod Security, of a name that is too long: no pod tells, as there is none.
            if event.get("type") == "Warning" and "Fail" in event.get("reason", ""):
                line = f"{event['reason']}: {event.get('message')}"
                self._news.say(line, "said", f"{self._name}: {line}")
        if self._unclaimed_seconds(state) > self._api.patience.unclaimed:
            text = f"no operator has taken it. {self._remedy()}"
            self._news.say(f"claim of {self._name}", text, f"{self._name}: {text}")

    def _count(self, seen: Seen, state: State) -> None:
        """Keeps the record of restarts and of the time that the job was suspended, on the job itself."""
        before = self._record
        if state.phase == "queued":
            self._record = before.suspended(now())
        else:
            self._record = before.resumed(now())
            if state.restarts is None:
                self._record = self._record.seen(seen.pods)
        if self._record == before:
            return
        for pod in seen.pods:
            name = pod["metadata"]["name"]
            if self._record.restarts.get(name, 0) > before.restarts.get(name, 0):
                self._tell_restart(name, before.pods[name])
        try:
            change = {"metadata": {"annotations": self._record.annotations()}}
            self._api.patch(self._backend.resource, self._name, change)
        except JobError as error:
            self._news.say("record", "refused", f"warning: a launcher after this one will count anew: {error}")

    def _tell_restart(self, name: str, uid: str) -> None:
        text = f"pod {name} was started again, {self._record.restarts[name]} of {self._cluster.restarts} times"
        if uid in self._words:
            self._previous[name] = self._words.pop(uid)
            text += f": {self._previous[name].end}"
        if self._record.restarts[name] <= self._cluster.restarts:  # else the error says it
            print(text, file=sys.stderr, flush=True)

    def _hold_bounds(self, seen: Seen, state: State) -> None:
        bound = self._cluster.restarts
        if state.restarts is None and self._record.most_restarts() > bound:
            name = max(self._record.restarts, key=lambda pod: self._record.restarts[pod])
            words = self._previous.get(name, f"pod {name} is a new one, and how the last one ended was not seen.")
            self._give_up(f"was started again {bound} times (cluster.restarts), and would be once more: {words}")
        if self._unclaimed_seconds(state) > self._api.patience.abandoned:
            minutes = self._api.patience.abandoned / 60
            self._give_up(f"was taken by no operator for {minutes:g} minutes. {self._remedy()}")
        seconds = self._cluster.deadline_seconds
        if self._record.active_seconds(seen.job, now()) > seconds:
            stands = state.message or ("no operator has taken it" if state.phase == "unclaimed" else state.phase)
            text = f"has not ended {seconds} s after it was launched (cluster.deadline_seconds): {stands.rstrip('.')}."
            self._give_up(_with_lines(text, self._lines_of_first_pod(seen)))

    def _unclaimed_seconds(self, state: State) -> float:
        if state.phase != "unclaimed" or state.message:  # which an operator says that cannot run it
            self._claimed = time.monotonic()
        return time.monotonic() - self._claimed

    def _remedy(self) -> str:
        """Of a job that no operator takes, as where the kind is known to the API and nothing runs it."""
        other = "trainjob" if self._backend.kind == "pytorchjob" else "pytorchjob"
        return f"Install {self._backend.operator}, or see why it does not run; or set cluster.kind: {other}."

    def _give_up(self, reason: str) -> NoReturn:
        self._api.delete(self._backend.resource, self._name, self._backend.propagation, self._uid)
        raise JobError(f"{self._place} was deleted: it {reason}")

    def _lines_of_first_pod(self, seen: Seen) -> list[str]:
        wanted = self._backend.first_pod(self._name).items()
        for pod in seen.pods:
            if wanted <= pod["metadata"].get("labels", {}).items() and pod["status"].get("phase") == "Running":
                try:
                    return self._api.last_lines(pod["metadata"]["name"], self._backend.container, LAST_LINES)
                except LogError:
                    return []
        return []


def _with_lines(text: str, lines: list[str]) -> str:
    return "\n    ".join([f"{text} Its last lines:", *lines]) if lines else text

"""The logs of rank 0, as they come."""

import math
import threading
from datetime import UTC, datetime

from base.patience import News
from components.cluster.api import PODS, Api, LogError
from components.cluster.backend import Backend
from components.cluster.job import JobError


class LogStream:
    """Prints the logs of a job's first pod, which is rank 0, from a thread; over restarts of the pod and broken
    connections, each line once. Logs that cannot be read are a warning.
    """

    def __init__(self, api: Api, backend: Backend, name: str) -> None:
        self._api, self._backend, self._name = api, backend, name
        self._ended, self._abandoned = threading.Event(), False
        self._pod: str | None = None  # uid of the pod that is read
        self._last: datetime | None = None  # time of the last line printed
        self._news = News()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Waits for the last lines, unless the block was left by an error."""
        self._abandoned = kind is not None
        self._ended.set()
        self._thread.join(self._api.patience.drain if kind is None else 0)

    def _run(self) -> None:
        last_round = False
        while not (last_round or self._abandoned):
            last_round = self._ended.is_set()
            try:
                pods = self._api.find(PODS, self._backend.first_pod(self._name))[0]
                # Two for a moment, where a pod that is started again gets another name.
                for pod in sorted(pods, key=lambda each: str(each["metadata"]["creationTimestamp"]))[-1:]:
                    if pod["metadata"]["uid"] != self._pod:
                        self._pod, self._last = pod["metadata"]["uid"], None
                    if pod["status"].get("phase") != "Pending":
                        self._print(pod["metadata"]["name"])
            except (LogError, JobError) as error:
                self._news.say("logs", str(error), f"warning: {error}")
            self._ended.wait(self._api.patience.logs)

    def _print(self, pod: str) -> None:
        before, since = self._last, None
        if before is not None:
            # A little more than is needed; what was printed is told by its time.
            since = max(1, math.ceil((datetime.now(UTC) - before).total_seconds()) + 1)
        for line in self._api.follow(pod, self._backend.container, since):
            moment, _, text = line.partition(" ")
            try:
                time_of_line = datetime.fromisoformat(moment)
            except ValueError:  # a remark of the kubelet
                print(line, flush=True)
                continue
            if before is None or time_of_line > before:
                self._last, before = time_of_line, None
                print(text, flush=True)

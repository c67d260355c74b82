"""What an open run recorded and MLflow does not have yet. A thread of its own sends it, so that training never waits.

The records stay here until MLflow confirms them: an outage of any length loses none while the process lives, and what
is left at its end the same train command sends again, because a resumed run records all its epochs anew.
"""

from collections.abc import Sequence
from threading import Condition, Thread
from time import monotonic

from base.patience import News
from components.tracking.connection import is_final, reason, store
from components.tracking.records import Record, send

# Between two attempts while MLflow is away: little to ask of it, and soon noticed when it is back.
PAUSE = 5.0  # seconds


class Outbox:
    """The records of a run by their kind ("metrics", "params.yaml"): one that cannot be sent does not hold up the rest.

    An outage is one line on stderr when it begins and one when it ends. The thread does not keep the process alive.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id, self._to = run_id, f"MLflow at {store()}"
        self._waiting: dict[str, list[Record]] = {}
        self._refused: set[str] = set()  # kinds of which MLflow will never take something
        self._reason = ""  # why the last attempt failed
        self._is_closed = self._is_urgent = False
        self._news = News()
        self._sent = 0
        self._changed = Condition()
        Thread(target=self._work, name="outbox", daemon=True).start()

    def put(self, kind: str, records: Sequence[Record]) -> None:
        """Adds records, and returns at once."""
        with self._changed:
            self._waiting.setdefault(kind, []).extend(records)
            self._changed.notify_all()

    def drain(self, patience: float) -> bool:
        """Waits until everything was sent or refused, at most until nothing was for `patience` seconds.

        The first attempt is made at once. Returns whether nothing is left to be sent.
        """
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()
            sent, deadline = self._sent, monotonic() + patience
            while self._waiting and monotonic() < deadline:
                self._changed.wait(deadline - monotonic())
                if self._sent != sent:
                    sent, deadline = self._sent, monotonic() + patience
            return not self._waiting

    def close(self) -> str:
        """Ends the thread after the attempt that it makes just now.

        Returns the kinds of which MLflow lacks something, with the last reason; empty where it has everything.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            kinds = sorted(self._refused | self._waiting.keys())
            return f"{', '.join(kinds)} ({self._reason or 'no answer in time'})" if kinds else ""

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                batches = {kind: list(records) for kind, records in self._waiting.items()}
            taken = []
            for kind, records in batches.items():
                if self._is_closed:
                    return
                taken.append(self._attempt(kind, records))
            with self._changed:
                if self._is_closed:
                    return
                if not all(taken):
                    self._changed.wait_for(lambda: self._is_closed or self._is_urgent, PAUSE)
                    self._is_urgent = False
                elif self._news.knows(self._to) and not self._waiting:
                    self._news.say(self._to, "there", f"{self._to} answers again: everything is sent.")

    def _attempt(self, kind: str, records: Sequence[Record]) -> bool:
        """Whether another attempt is of no use, because they were taken, or refused for good."""
        error: Exception | None = None
        try:
            send(self._run_id, records)
        except Exception as failure:  # a thread that ends here would end the sending for the rest of the run
            error = failure
        with self._changed:
            if error is None:
                self._take_off(kind, len(records))
                return True
            self._reason = reason(error)
            if is_final(error):
                self._news.say(kind, "refused", f"warning: {self._to} does not take {kind} ({self._reason}).")
                self._refused.add(kind)
                self._take_off(kind, len(records))
                return True
            if not self._is_closed:
                line = f"warning: {self._to} did not take {kind} ({self._reason}); trying again in the background."
                self._news.say(self._to, "away", line)
            return False

    def _take_off(self, kind: str, number: int) -> None:
        del self._waiting[kind][:number]
        if not self._waiting[kind]:
            del self._waiting[kind]
        self._sent += number
        self._changed.notify_all()

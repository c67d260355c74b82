"""A queue that a thread of its own sends: putting something in never waits, however long the other side is away."""

import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic

# Between two attempts while the other side is away: little to ask of it, and soon noticed when it is back.
PAUSE = 5.0  # seconds


class Refusal(Exception):
    """What `send` raises where another attempt is of no use; every other error means later."""


@dataclass(frozen=True)
class Entry:
    """what: kind of thing, for the log. send: sends it; may be called again after it failed, also after its half."""

    what: str
    send: Callable[[], object]


class Outbox:
    """Sends entries one after the other until each is taken or refused.

    What fails goes to the back, so that one thing that cannot be sent does not hold up the rest. An outage is one line
    on stderr when it begins and one when it ends. The thread is a daemon: it does not keep the process alive.
    to: name of the other side, for these lines. pause: seconds between attempts during an outage.
    """

    def __init__(self, to: str, pause: float = PAUSE) -> None:
        self._to, self._pause = to, pause
        self._entries: deque[Entry] = deque()
        self._refused: Counter[str] = Counter()
        self._failure = self._refusal = ""  # why the last attempt failed, and the last refusal
        self._is_away = self._is_closed = self._is_urgent = False
        self._done = 0
        self._changed = Condition()
        Thread(target=self._work, name="outbox", daemon=True).start()

    @property
    def is_open(self) -> bool:
        """Whether the outbox still takes entries."""
        return not self._is_closed

    def put(self, what: str, send: Callable[[], object]) -> None:
        """Adds an entry; a closed outbox drops it."""
        with self._changed:
            self._entries.append(Entry(what, send))
            self._changed.notify_all()

    def drain(self, patience: float) -> bool:
        """Waits until everything was sent or refused, at most until nothing was for `patience` seconds.

        The first attempt is made at once. Returns whether nothing is left to be sent.
        """
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()
            done, deadline = self._done, monotonic() + patience
            while self._entries and monotonic() < deadline:
                self._changed.wait(deadline - monotonic())
                if self._done != done:
                    done, deadline = self._done, monotonic() + patience
            return not self._entries

    def missing(self) -> str:
        """What was not sent, with the last reason; empty if everything was."""
        with self._changed:
            counts = self._refused + Counter(entry.what for entry in self._entries)
            if not counts:
                return ""
            things = [what if number == 1 else f"{number} x {what}" for what, number in sorted(counts.items())]
            return f"{', '.join(things)} ({self._failure if self._entries else self._refusal})"

    def close(self) -> None:
        """Ends the thread after the attempt that it makes just now."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._entries or self._is_closed)
                if self._is_closed:
                    return
                entry = self._entries[0]
            try:
                entry.send()
            except Refusal as refusal:
                self._refuse(entry, str(refusal))
            except Exception as error:  # a thread that ends here would end the sending for the rest of the run
                self._postpone(entry, str(error) or type(error).__name__)
            else:
                with self._changed:
                    self._take_off()

    def _take_off(self) -> None:
        self._entries.popleft()
        self._done += 1
        if self._is_away and not self._entries:
            self._is_away = False
            self._say(f"{self._to} answers again: everything is sent.")
        self._changed.notify_all()

    def _refuse(self, entry: Entry, reason: str) -> None:
        with self._changed:
            if entry.what not in self._refused:
                self._say(f"warning: {self._to} does not take {entry.what} ({reason}).")
            self._refused[entry.what] += 1
            self._refusal = reason
            self._take_off()

    def _postpone(self, entry: Entry, reason: str) -> None:
        with self._changed:
            if not self._is_away and not self._is_closed:
                self._say(f"warning: {self._to} did not take {entry.what} ({reason}); trying again in the background.")
            self._is_away = True
            self._failure = reason
            self._entries.rotate(-1)
            self._changed.wait_for(lambda: self._is_closed or self._is_urgent, self._pause)
            self._is_urgent = False

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

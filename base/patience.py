"""Asking again while another side is away for a while, and saying what is news only once."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TextIO, TypeVar

from base.errors import InputError

Answer = TypeVar("Answer")
# Seconds that a server may be away from a step that nobody starts again, such as one of a pipeline.
VARIABLE = "DUAL_HRNET_PATIENCE"


class PatienceError(InputError):
    """A patience that is no number of seconds."""


@dataclass(frozen=True)
class Patience:
    """Times in seconds.

    away: how long another side may be away, from the first failure on. first_pause: after that failure; it doubles
    after each further one, up to longest_pause.
    """

    away: float
    first_pause: float = 1
    longest_pause: float = 30

    def ask(
        self,
        attempt: Callable[[], Answer],
        may_pass: Callable[[Exception], bool],
        *,
        pause_asked: Callable[[Exception], float] = lambda error: 0,
        on_failure: Callable[[Exception, float], object] = lambda error, pause: None,
        on_return: Callable[[], object] = lambda: None,
    ) -> Answer:
        """The result of `attempt`, which is repeated after failures that may pass.

        pause_asked: seconds that the other side asked to wait, as by Retry-After, and that a pause lasts at least.
        on_failure: is called before each pause with its seconds. on_return: when an attempt succeeds after failures.
        Raises what the last attempt raised, where that may not pass or where the next pause would outlast `away`.
        """
        end, pause = None, self.first_pause
        while True:
            try:
                answer = attempt()
            except Exception as error:
                if not may_pass(error):
                    raise
                now, wait = time.monotonic(), max(pause, pause_asked(error))
                end = now + self.away if end is None else end
                if now + wait > end:
                    raise
                on_failure(error, wait)
            else:
                if end is not None:
                    on_return()
                return answer
            time.sleep(wait)
            pause = min(2 * pause, self.longest_pause)

    def wait_out(
        self,
        attempt: Callable[[], Answer],
        may_pass: Callable[[Exception], bool],
        who: str,
        reason: Callable[[Exception], str],
        news: "News",
    ) -> Answer:
        """As `ask`, with a line when `who` is away, which gives the reason, and one when it is back.

        news: of all that ask the same side, so that many threads say it once.
        """
        return self.ask(
            attempt,
            may_pass,
            on_failure=lambda error, _: news.say(
                who, "away", f"{who}: {reason(error)}. Asking again for up to {self.away:g} s."
            ),
            on_return=lambda: news.say(who, "there", f"{who}: answers again."),
        )


def here(usual: Patience) -> Patience:
    """`usual`, or the longer patience that $DUAL_HRNET_PATIENCE asks for. Raises PatienceError."""
    given = os.environ.get(VARIABLE)
    if not given:
        return usual
    try:
        away = float(given)
    except ValueError:
        away = math.nan
    if not 0 <= away < math.inf:
        raise PatienceError(f"${VARIABLE}: found {given!r}, expected seconds such as 600. Correct it.")
    return replace(usual, away=max(away, usual.away))


class News:
    """Says each thing once: a line about something is printed when its state is another one than at the last time."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def say(self, what: str, state: str | None, line: str, file: TextIO | None = None) -> None:
        """Prints the line, by default on stderr, if the state is news; no state is none."""
        with self._one_at_a_time:
            if state and self._states.get(what) != state:
                self._states[what] = state
                print(line, file=file or sys.stderr, flush=True)

    def knows(self, what: str) -> bool:
        """Whether something was said about it."""
        return what in self._states

"""The outbox by itself: whatever fails, each entry is taken or refused once, and nobody waits longer than asked."""

import io
from collections import Counter
from contextlib import redirect_stderr
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.tracking.outbox import Outbox, Refusal


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_each_entry_is_taken_or_refused_once_whatever_fails_before(plan: list[tuple[int, bool]]) -> None:
    """plan: for each entry the attempts that fail, and whether it is refused then."""
    ends: Counter[tuple[int, bool]] = Counter()
    failures = [fails for fails, _ in plan]

    def send(number: int) -> None:
        if failures[number] > 0:
            failures[number] -= 1
            raise OSError("away")
        ends[number, plan[number][1]] += 1
        if plan[number][1]:
            raise Refusal("no")

    outbox = Outbox("it", pause=0)
    with redirect_stderr(io.StringIO()):
        for number in range(len(plan)):
            outbox.put("entry", lambda number=number: send(number))  # type: ignore[misc]
        assert outbox.drain(30)
    outbox.close()
    assert ends == Counter({(number, refused): 1 for number, (_, refused) in enumerate(plan)})
    refused = sum(refused for _, refused in plan)
    assert outbox.missing() == {0: "", 1: "entry (no)"}.get(refused, f"{refused} x entry (no)")


def test_entries_are_sent_in_their_order_and_one_that_fails_does_not_hold_up_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent: list[str] = []

    def fail() -> None:
        raise OSError("no such bucket")

    outbox = Outbox("it", pause=0.01)
    for name in ("a", "b"):
        outbox.put(name, lambda name=name: sent.append(name))  # type: ignore[misc]
    outbox.put("file", fail)
    for name in ("c", "d"):
        outbox.put(name, lambda name=name: sent.append(name))  # type: ignore[misc]
    assert not outbox.drain(0.5)
    outbox.close()
    assert sent == ["a", "b", "c", "d"]
    assert outbox.missing() == "file (no such bucket)"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_drain_does_not_wait_for_an_attempt_that_hangs() -> None:
    over = Event()
    outbox = Outbox("it")
    outbox.put("metrics", over.wait)
    waiting = Thread(target=outbox.drain, args=(0.1,))
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()
    assert not over.is_set()
    outbox.close()
    over.set()

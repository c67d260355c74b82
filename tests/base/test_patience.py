"""Asking again while another side is away, and saying what is news only once."""

import io
import itertools
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.patience import News, Patience


class Away(Exception):
    """Nobody answers."""


def fails(times: int, error: Exception | None = None) -> Callable[[], str]:
    """An attempt that succeeds after so many failures."""
    left = iter(range(times))

    def attempt() -> str:
        if next(left, None) is not None:
            raise error or Away
        return "answer"

    return attempt


def is_away(error: Exception) -> bool:
    return isinstance(error, Away)


def test_pauses_double_up_to_the_longest_one() -> None:
    pauses: list[float] = []
    begin = time.monotonic()
    patience = Patience(away=60, first_pause=0.01, longest_pause=0.05)
    answer = patience.ask(fails(5), is_away, on_failure=lambda _, pause: pauses.append(pause))
    assert answer == "answer"
    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert time.monotonic() - begin >= sum(pauses)


def test_a_pause_lasts_as_long_as_the_other_side_asks() -> None:
    pauses: list[float] = []
    patience = Patience(away=60, first_pause=0.01)
    patience.ask(fails(2), is_away, pause_asked=lambda _: 0.03, on_failure=lambda _, pause: pauses.append(pause))
    assert pauses == [0.03, 0.03]


def test_patience_ends_with_the_last_error_and_not_with_a_pause() -> None:
    patience = Patience(away=0.1, first_pause=0.02)
    begin = time.monotonic()
    with pytest.raises(Away):
        patience.ask(fails(100), is_away)
    assert time.monotonic() - begin < 0.1
    with pytest.raises(Away):
        Patience(away=10).ask(fails(1), is_away, pause_asked=lambda _: 11)
    assert time.monotonic() - begin < 1


def test_what_may_not_pass_is_raised_at_once() -> None:
    said: list[object] = []
    with pytest.raises(ValueError, match="a wrong password"):
        Patience(away=60).ask(
            fails(1, ValueError("a wrong password")), is_away, on_failure=lambda *what: said.append(what)
        )
    assert said == []


@pytest.mark.parametrize(("times", "returns"), [(0, 0), (3, 1)])
def test_a_return_is_told_once_and_only_after_a_failure(times: int, returns: int) -> None:
    told: list[bool] = []
    Patience(away=60, first_pause=0.001).ask(fails(times), is_away, on_return=lambda: told.append(True))
    assert len(told) == returns


def test_a_state_is_said_when_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    news = News()
    states: Iterable[tuple[str, str | None]] = [("a", "on"), ("b", "on"), ("a", "on"), ("a", None), ("a", "off")]
    for what, state in [*states, ("b", "on"), ("a", "on"), ("c", "")]:
        news.say(what, state, f"{what} is {state}")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "a is on\nb is on\na is off\na is on\n"
    assert [news.knows(what) for what in "abc"] == [True, True, False]


@given(st.lists(st.sampled_from("xyz")))
def test_what_is_said_again_and_again_is_one_line(states: list[str]) -> None:
    news, file = News(), io.StringIO()
    for state in states:
        news.say("it", state, state, file)
    assert file.getvalue().split() == [state for state, _ in itertools.groupby(states)]

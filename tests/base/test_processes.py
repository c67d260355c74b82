"""Work is shared among processes, and nothing of it is lost, out of order, or done by one that nobody waits for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from base.errors import InputError
from base.processes import Crew, LostProcessError
from tests.commands import environment, runs, wait_until


def who(number: int) -> tuple[int, int]:
    time.sleep(0.05 if number % 3 == 0 else 0)
    return number, os.getpid()


def refuse(number: int) -> int:
    if number == 2:
        raise InputError("the second: is none")
    return number


def write_late(path: Path) -> None:
    time.sleep(0.2)
    path.write_text("late", encoding="utf-8")


def end(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(3, __name__) as crew:
        yield crew


def test_what_becomes_of_parts_goes_out_in_their_order(crew: Crew) -> None:
    found = list(crew.map(who, range(20)))
    assert [number for number, _ in found] == list(range(20))
    processes = {process for _, process in found}
    assert 2 <= len(processes) <= 3
    assert os.getpid() not in processes


def test_few_parts_wait_at_a_time(crew: Crew) -> None:
    asked = list[int]()

    def parts() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    results = crew.map(who, parts())
    for done in range(10):
        next(results)
        assert len(asked) <= done + 4


@pytest.mark.parametrize("parts", [[], [7]])
def test_one_part_is_done_here(parts: list[int]) -> None:
    with Crew(3, __name__) as crew:
        assert list(crew.map(who, parts)) == [(number, os.getpid()) for number in parts]
        assert crew.begin(who, 1)() == (1, os.getpid())


def test_one_process_is_this_one() -> None:
    with Crew(1, __name__) as crew:
        assert list(crew.map(who, range(5))) == [(number, os.getpid()) for number in range(5)]


def test_work_begun_beside_others_is_waited_for(crew: Crew) -> None:
    list(crew.map(who, range(2)))
    wait = crew.begin(who, 3)
    assert [number for number, _ in crew.map(who, range(5))] == list(range(5))
    number, process = wait()
    assert number == 3
    assert process != os.getpid()


def test_long_work_has_processes_started_for_it(crew: Crew) -> None:
    _, process = crew.begin(who, 3, is_long=True)()
    assert process != os.getpid()


def test_what_the_work_raises_is_raised_here(crew: Crew) -> None:
    results = crew.map(refuse, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InputError, match="the second: is none"):
        next(results)


def test_nothing_goes_on_behind_an_error(crew: Crew, tmp_path: Path) -> None:
    list(crew.map(who, range(2)))
    with pytest.raises(InputError, match="something else"), crew.settled():
        crew.begin(write_late, tmp_path / "begun")
        crew.begin(write_late, tmp_path / "too")
        next(crew.map(write_late, [tmp_path / f"{number}" for number in range(9)]))
        raise InputError("something else")
    written = sorted(tmp_path.iterdir())
    assert tmp_path / "begun" in written
    time.sleep(0.5)
    assert sorted(tmp_path.iterdir()) == written


@pytest.mark.parametrize("begun", [False, True])
def test_a_killed_process_is_told_in_one_line(*, begun: bool) -> None:
    with Crew(2, __name__) as crew, pytest.raises(LostProcessError, match="--workers: a process ran out of memory or"):
        if begun:
            list(crew.map(who, range(2)))
            crew.begin(end, 1)()
        else:
            list(crew.map(end, range(5)))


KILLED = """
import os, signal
from base.processes import Crew
from tests.base.test_processes import who

with Crew(2, "base.processes") as crew:
    print(*{process for _, process in crew.map(who, range(20))}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_when_the_one_that_waits_for_them_is_killed() -> None:
    command = [sys.executable, "-c", KILLED]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    processes = [int(number) for number in ended.stdout.split()]
    assert processes
    wait_until(lambda: not any(map(runs, processes)))

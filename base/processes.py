"""Processes that share work: it comes in parts, and what becomes of them goes out in their order."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from base.errors import InputError

Part = TypeVar("Part")
Result = TypeVar("Result")


class LostProcessError(InputError):
    """A process that was killed while others waited for its work."""


class Crew(AbstractContextManager["Crew"]):
    """Processes that work through parts, until the block ends. What has one part only is done where it is asked for,
    until others have more: to start processes takes a second or two. Work and parts are pickled.
    """

    def __init__(self, size: int, loaded: str) -> None:
        """size: how many processes; with one, all is done where it is asked for. loaded: a module that they share in
        memory, with what it imports.
        """
        self._size, self._loaded = size, loaded
        self._pool: ProcessPoolExecutor | None = None
        self._going = set[Future[Any]]()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """What the work makes of each part. Few parts wait at a time, and as many results.

        Raises LostProcessError where a process is killed, and what the work raises.
        """
        upcoming = iter(parts)
        first = list(islice(upcoming, 2))
        if self._size > 1 and self._pool is None and len(first) > 1:
            self._pool = _start(self._size, self._loaded)
        if self._pool is None:
            yield from map(work, first)
            yield from map(work, upcoming)
            return
        waiting = deque([self._submit(self._pool, work, part) for part in first])
        while waiting:
            more = islice(upcoming, self._size + 1 - len(waiting))
            waiting.extend(self._submit(self._pool, work, part) for part in more)
            yield _result(waiting.popleft())

    def begin(self, work: Callable[[Part], Result], part: Part, *, is_long: bool = False) -> Callable[[], Result]:
        """Begins work that others need not wait for; returns what gives its result, and raises as `map` does. is_long:
        whether it takes so long that processes are started for it.
        """
        if self._size > 1 and self._pool is None and is_long:
            self._pool = _start(self._size, self._loaded)
        if self._pool is None:
            done = work(part)
            return lambda: done
        future = self._submit(self._pool, work, part)
        return lambda: _result(future)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """When the block ends, by an error above all, nothing that was begun goes on: it might write where its results
        are taken away.
        """
        try:
            yield
        finally:
            going = [future for future in list(self._going) if not future.cancel()]
            wait(going)

    def _submit(self, pool: ProcessPoolExecutor, work: Callable[[Part], Result], part: Part) -> "Future[Result]":
        future = pool.submit(work, part)
        self._going.add(future)
        future.add_done_callback(self._going.discard)
        return future


ALONE = Crew(1, __name__)


def end_with_parent() -> None:
    """Ends this process when the one that started it is killed: it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(size: int, module: str) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")  # a fork of this process would have its locks, without threads
    context.set_forkserver_preload([module])
    return ProcessPoolExecutor(size, context, initializer=end_with_parent)


def _result(future: "Future[Result]") -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise LostProcessError(
            "--workers: a process ran out of memory or was killed. Give fewer of them, or more memory."
        ) from error

"""The pulse of a distributed run: a process that hangs ends the run with one line that names it.

Without it the others would wait in their next exchange, each on a GPU that costs money, until that times out, and the
error would name an address at best. Processes tell each other how far they are through torchrun's store, which keeps
answering while they compute, wait or hang.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple

from torch import nn
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from base.command_line import HUNG
from model.train.distributed import World


class _Report(NamedTuple):
    """What a rank tells of itself: how often it reached a point that all pass, how often it moved at all, how often it
    reported, and whether it has already said why the run ends.
    """

    beats: int = 0
    signs: int = 0
    reports: int = 0
    told: bool = False


class Pulse:
    """Watches over the block of a `with` statement, on every rank; in a world of one it only counts.

    When no rank has moved for `timeout` seconds, the lowest rank that does not hang prints a line, and every rank ends
    its process with HUNG, so that torchrun ends the run and an orchestrator starts it again. All work inside the block
    that takes longer must show signs of life.
    All ranks leave the block together, unless by an error.
    """

    def __init__(self, world: World, timeout: float) -> None:
        self.beats, self.signs = 0, 0
        self._world, self._timeout = world, timeout
        self._interval = min(1.0, timeout / 10)
        self._ended, self._ending = threading.Event(), threading.Event()
        self._told = False
        self._seen = [_Report()] * world.size
        self._hosts: Sequence[str] = ()
        self._threads: list[threading.Thread] = []
        self._hooks: list[Any] = []

    def beat(self) -> None:
        """Counts a point that every rank passes equally often: the rank with the fewest is the one that hangs."""
        self.beats += 1

    def alive(self) -> None:
        """Shows that this rank moves, where ranks have different amounts of work: a scene validated, a part sent."""
        self.signs += 1

    def watch(self, model: nn.Module) -> None:
        """Lets every batch norm of the model count: a beat in training, a sign of life in eval mode."""

        # A function and not a method: copy.deepcopy of the model would copy the pulse of a method too.
        def count(module: nn.Module, inputs: Any) -> None:
            if module.training:
                self.beat()
            else:
                self.alive()

        norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        self._hooks += [norm.register_forward_pre_hook(count) for norm in norms]

    def __enter__(self) -> "Pulse":
        store = self._world.store
        if store is not None:
            # A connection of its own: one operation at a time goes through each. Its waits outlast the verdict, or
            # torch would write its own warnings before the one line.
            timeout = timedelta(seconds=2 * self._timeout)
            own = TCPStore(store.host, store.port, is_master=False, timeout=timeout, wait_for_workers=False)
            key = f"pulse {uuid.uuid4().hex}"
            own.set(key, json.dumps(_Report()))
            keys, self._hosts = zip(*self._world.gather((key, socket.gethostname())), strict=True)
            self._start(lambda: self._exchange(own, keys))
            self._start(self._judge)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.beat()
                self._world.any(False)  # all leave together: a rank that has left looks like one that hangs
        finally:
            if self._ending.is_set():
                # The others begin to end, which the exchange at hand sees as a lost connection; one line is enough.
                threading.Event().wait()
            self._ended.set()
            for thread in self._threads:
                thread.join(2 * self._interval)
            for hook in self._hooks:
                hook.remove()

    def _start(self, target: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=target, daemon=True))
        self._threads[-1].start()

    def _exchange(self, store: Store, keys: Sequence[str]) -> None:
        """Reports this rank and reads all reports, until the block or the store ends. The store blocks for as long as
        its server does not answer, so nothing else happens in this thread.
        """
        reports = 0
        while not self._ended.wait(self._interval):
            reports += 1
            try:
                own = _Report(self.beats, self.signs, reports, self._told)
                store.set(keys[self._world.rank], json.dumps(own))
                self._seen = [_Report(*json.loads(text)) for text in store.multi_get(list(keys))]
            except RuntimeError:  # the family of torch.distributed's errors
                return

    def _judge(self) -> None:
        """Ends the process when nothing has moved for the timeout. Counts its own looks and not the clock, which goes
        on while the whole run is stopped, as by `docker pause`.
        """
        still, silence = 0.0, [0.0] * self._world.size
        before = self._reports()
        while not self._ended.wait(self._interval):
            now = self._reports()
            moved = any(new[:2] != old[:2] for new, old in zip(now, before, strict=True))
            still = 0.0 if moved else still + self._interval
            silence = [
                0.0 if new.reports != old.reports else seconds + self._interval
                for new, old, seconds in zip(now, before, silence, strict=True)
            ]
            before = now
            if still >= self._timeout:
                self._end_process(now, [seconds < self._timeout / 2 for seconds in silence])

    def _reports(self) -> list[_Report]:
        """The last reports of all ranks; this rank's own counts as they are, whether or not the store has them."""
        reports = list(self._seen)
        rank = self._world.rank
        reports[rank] = reports[rank]._replace(beats=self.beats, signs=self.signs)
        return reports

    def _end_process(self, reports: Sequence[_Report], answers: Sequence[bool]) -> None:
        beats = [report.beats for report in reports]
        self._ending.set()
        hanging, finding = diagnose(beats, answers, self._hosts, self._world.rank, self._timeout)
        line = (
            f"TrainingError: {finding} Start the same command again, which goes on from the last checkpoint; if it "
            "stops there again, look at that node's disk, memory and GPU."
        )
        speaker = min(set(range(self._world.size)) - set(hanging), default=0)
        alone = not answers[self._world.rank]  # whoever else may speak is not heard
        if self._world.rank != speaker and not alone:
            time.sleep(3 * self._interval)
        if alone or not any(report.told for report in self._seen):
            sys.stderr.write(f"{line}\n")  # at once: other ranks may write to the same place, and print writes twice
            sys.stderr.flush()
            self._told = True
            time.sleep(6 * self._interval)  # until the others know and are gone: they may lose the store with us
        # Not sys.exit, which ends a thread only; the main thread waits in an exchange that will not end.
        os._exit(HUNG)


def diagnose(
    beats: Sequence[int], answers: Sequence[bool], hosts: Sequence[str], rank: int, seconds: float
) -> tuple[list[int], str]:
    """The ranks that hang, as `rank` sees it after these seconds without any movement, and a sentence that says so.

    beats, answers, hosts: of every rank, how far it is, whether it still reports, and where it runs. Ranks that do not
    report hang first of all: a stopped process may be as far as those that wait for it. Where this rank's own reports
    do not come back, it is the store that does not answer, and nothing is known of the others.
    """
    size = len(beats)
    if not answers[rank]:
        return [], (
            f"rank {rank} of {size} on {hosts[rank]} has not moved for {seconds:g} s and hears nothing of the others: "
            f"rank 0, the torchrun of its node {hosts[0]} or the network between does not answer."
        )
    silent = [other for other in range(size) if not answers[other]]
    behind = [other for other in range(size) if beats[other] == min(beats)]
    hanging = silent or ([] if len(behind) == size else behind)
    if not hanging:
        return [], (
            f"none of the {size} ranks has moved for {seconds:g} s, all are at beat {beats[0]}: an exchange between "
            "them hangs, in the network or on a GPU."
        )
    names = ", ".join(f"rank {other} of {size} on {hosts[other]}" for other in hanging)
    at = ", ".join(str(beat) for beat in sorted({beats[other] for other in hanging}))
    waiting = max(beats[other] for other in range(size) if other not in hanging)
    found = "no answer since beat" if silent else "hangs at beat"
    return hanging, f"{names}: not moved for {seconds:g} s, {found} {at}; the others wait at beat {waiting}."

"""The checkpoints of a training run: written beside the training, few kept, the newest good one found again.

What goes wrong with writing one is said in a line on stderr and never ends a run.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

from model.train.checkpoint_folder import (
    Description,
    UnusableError,
    check_checkpoint,
    checkpoint_path,
    clear_leftovers,
    copy_state,
    find_checkpoints,
    first_line,
    load_state,
    remove_checkpoint,
    write_checkpoint,
)


class LoadedCheckpoint(NamedTuple):
    """A checkpoint that was verified; the tensors of `state` are in CPU memory."""

    path: Path
    step: int
    epoch: int
    score: float | None
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in `folder`, of which the newest `keep` and the best by score are kept.

    identity: everything that must be equal for a resumed run to be the same run (settings, prepared version), as JSON.
    on_written: is called in the background with the folder of each new checkpoint; no other is written meanwhile.
    errors: what went wrong so far with writing, with removing and in `on_written`, in order of time.
    As a context manager it waits at the end.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        keep: int,
        on_written: Callable[[Path], None] = lambda path: None,
    ) -> None:
        assert keep >= 1
        self.folder, self.keep, self.on_written = folder, keep, on_written
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # a tuple is a list when it comes back
        self.errors: list[Exception] = []
        self._writing: Thread | None = None

    def save(self, step: int, epoch: int, state: Mapping[str, Any], score: float | None = None) -> float:
        """Copies `state` to memory and writes it in the background; a checkpoint of the same step is replaced.

        state: tensors on any device, and the plain values and containers that `torch.load` reads with weights_only.
        Returns the seconds for which the caller stood still: until the checkpoint before was through, and the copy.
        Raises TypeError where `state` holds something else.
        """
        start = time.perf_counter()
        self.wait()
        self._writing = Thread(target=self._write, args=(step, epoch, copy_state(state), score))
        self._writing.start()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Returns when the last checkpoint is written or given up, and its `on_written` has returned."""
        if self._writing is not None:
            self._writing.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wait()

    def load(self) -> LoadedCheckpoint | None:
        """The newest good checkpoint of this run, if there is one; also clears away what a killed run left half-done.

        A damaged checkpoint, or one of another run, is passed over in favour of the next older one, with a line on
        stderr that says why. It is removed when this run has written one of its own.
        """
        self.wait()
        clear_leftovers(self.folder)
        found = find_checkpoints(self.folder)
        for path in reversed(found):
            with suppress(UnusableError):
                return self._load(path)
        if found:
            _say(f"{self.folder}: holds no checkpoint to go on from; training starts anew.")
        return None

    def best(self) -> LoadedCheckpoint | None:
        """The good checkpoint of this run with the highest score, of equal ones the later; without scores the newest.

        A damaged one is passed over as by `load`.
        """
        self.wait()
        for path, _ in sorted(self._whole(), key=_rank, reverse=True):
            with suppress(UnusableError):
                return self._load(path)
        return None

    def newest(self) -> Path | None:
        """The newest checkpoint of this run that is on the disk and, by the sizes of its files, whole."""
        self.wait()
        whole = self._whole()
        return whole[-1][0] if whole else None

    def _load(self, path: Path) -> LoadedCheckpoint:
        """Raises UnusableError, and says why, where the checkpoint is not good or not of this run."""
        try:
            description = check_checkpoint(path, self.identity)
            state = load_state(path, description)
        except UnusableError as error:
            _say(f"{path}: is not used: {error}.")
            raise
        return LoadedCheckpoint(path, description.step, description.epoch, description.score, state)

    def _write(self, step: int, epoch: int, state: Mapping[str, Any], score: float | None) -> None:
        """Body of the background thread: whatever fails here, training goes on."""
        path = checkpoint_path(self.folder, step)
        try:
            write_checkpoint(path, state, epoch=epoch, score=score, identity=self.identity)
        except Exception as error:
            good = [path.name for path, _ in self._whole()]
            self._report(f"{path}: not written", error, f"the last good checkpoint is {good[-1] if good else 'none'}")
            return
        try:
            self._remove_others(step)
        except Exception as error:
            self._report(f"{self.folder}: older checkpoints not removed", error, f"{path.name} is written")
        try:
            self.on_written(path)
        except Exception as error:
            self._report(f"{path}: not passed on", error, "it is whole on this disk")

    def _remove_others(self, step: int) -> None:
        """Removes all but the newest and the best; later ones than the newest, `step`, are what `load` passed over."""
        whole = [entry for entry in self._whole() if entry[1].step <= step]
        kept = {path for path, _ in (max(whole, key=_rank), *whole[-self.keep :])}
        for path in find_checkpoints(self.folder):
            if path not in kept:
                remove_checkpoint(path)

    def _whole(self) -> list[tuple[Path, Description]]:
        """Those of this run that are whole by the sizes of their files, by step."""
        whole = []
        for path in find_checkpoints(self.folder):
            with suppress(UnusableError):
                whole.append((path, check_checkpoint(path, self.identity)))
        return whole

    def _report(self, what: str, error: Exception, state: str) -> None:
        self.errors.append(error)
        _say(f"{what} ({first_line(error)}). Training goes on; {state}.")


def _rank(entry: tuple[Path, Description]) -> tuple[float, int]:
    """Order from bad to good; without a score the worst."""
    _, description = entry
    return (-math.inf if description.score is None else description.score, description.step)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

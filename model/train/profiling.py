"""A trace of a few training steps on request, for chrome://tracing or perfetto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from torch.profiler import profile, schedule

from model.settings import TrainSettings
from model.train.distributed import World

WAIT, WARM_UP, TRACED = 2, 1, 3  # steps


class Steps(Protocol):
    """What wants to know when a step ends."""

    def step(self) -> None:
        """Ends a step."""


class _Nothing:
    def step(self) -> None:
        pass


@contextmanager
def profiler(settings: TrainSettings, out: Path, world: World, *, first_epoch: bool) -> Iterator[Steps]:
    """Where train.profile is set, traces steps 4 to 6 of the main process's first epoch to `out`/profile/trace.json."""
    if not (settings.profile and first_epoch and world.is_main):
        yield _Nothing()
        return
    folder = out / "profile"
    folder.mkdir(parents=True, exist_ok=True)
    trace = str(folder / "trace.json")
    with profile(
        schedule=schedule(wait=WAIT, warmup=WARM_UP, active=TRACED, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(trace),
        record_shapes=True,
        profile_memory=True,
    ) as tracer:
        yield tracer

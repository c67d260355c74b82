"""What a run consists of in MLflow, and how it gets there: metrics, parameters, tags, files, its end.

Everything can be sent twice without harm: after an attempt of which the answer was lost, and after a run was resumed,
which logs all its epochs again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Metric, Param, RunTag

from components.tracking.connection import client, impatience

BATCH = 100  # entries in a request, MLflow's limit for parameters and tags
SYSTEM = "system/"  # how names of system metrics begin


@dataclass(frozen=True)
class File:
    """A file of the run, with its content, in a folder of the run's files; "" is on top."""

    name: str
    content: bytes
    folder: str = ""


@dataclass(frozen=True)
class End:
    """How a run ended, by MLflow's word for it, and when, in milliseconds."""

    status: str
    at: int


Record = Metric | Param | RunTag | File | End


def send(run_id: str, records: Sequence[Record]) -> None:
    """Sends those that the run lacks, within seconds.

    A parameter keeps the value that it has; a metric gets another point where its value at the step is another.
    Raises what MLflow raises, and the library that reaches the store of its files.
    """
    with impatience():
        new: list[Metric | Param | RunTag] = []
        new += _new_params(run_id, [record for record in records if isinstance(record, Param)])
        new += _new_points(run_id, [record for record in records if isinstance(record, Metric)])
        new += [record for record in records if isinstance(record, RunTag)]
        for start in range(0, len(new), BATCH):
            _send_batch(run_id, new[start : start + BATCH])
        for record in records:
            if isinstance(record, File):
                _send_file(run_id, record)
            elif isinstance(record, End):
                client().set_terminated(run_id, record.status, record.at)


def _new_params(run_id: str, params: Sequence[Param]) -> list[Param]:
    known = set(client().get_run(run_id).data.params) if params else set()
    first = {param.key: param for param in reversed(params)}
    return [param for key, param in first.items() if key not in known]


def _new_points(run_id: str, points: Sequence[Metric]) -> list[Metric]:
    new = []
    latest: dict[tuple[str, int], str] = {}
    for point in points:
        place, value = (point.key, point.step), repr(point.value)
        # Nobody logs a system metric twice; their histories are long.
        known = None if point.key.startswith(SYSTEM) else _values(run_id, point.key).get(point.step)
        if latest.get(place, known) != value:
            new.append(point)
        latest[place] = value
    return new


def _send_batch(run_id: str, batch: Sequence[Metric | Param | RunTag]) -> None:
    points = [entry for entry in batch if isinstance(entry, Metric)]
    params = [entry for entry in batch if isinstance(entry, Param)]
    tags = [entry for entry in batch if isinstance(entry, RunTag)]
    client().log_batch(run_id, points, params, tags)
    for point in points:
        if not point.key.startswith(SYSTEM):
            _values(run_id, point.key)[point.step] = repr(point.value)


def _send_file(run_id: str, file: File) -> None:
    with TemporaryDirectory() as folder:
        copy = Path(folder, file.name)
        copy.write_bytes(file.content)
        client().log_artifact(run_id, str(copy), file.folder or None)


@cache
def _values(run_id: str, key: str) -> dict[int, str]:
    """What the run has of a metric: the latest value of each step, as `repr`, by which NaN equals itself."""
    history = client().get_metric_history(run_id, key)
    return {point.step: repr(point.value) for point in sorted(history, key=lambda point: int(point.timestamp))}

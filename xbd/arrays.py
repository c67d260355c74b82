"""Many raw scenes to arrays, in parallel processes; what an earlier or an interrupted run made is kept."""

import csv
import hashlib
import io
import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from base.errors import InputError
from base.processes import end_with_parent
from xbd.preparation import preparation_version, prepare_scene, read_sources
from xbd.scenes import (
    CHANNELS,
    INDEX,
    NONE,
    SCENES,
    SPLITS,
    VERSION,
    RawScene,
    SceneError,
    SceneRecord,
    parse_record,
    read_index,
    save_scene,
    scene_path,
)

JOURNAL = "journal.csv"  # the records of the arrays so far, in the order in which they came
COLUMNS = [field.name for field in fields(SceneRecord)]
# Scenes that are handed out before the first of them is asked for: few enough that a million scenes take no memory,
# enough that no process waits for a slow one.
AHEAD = 8


class Earlier(NamedTuple):
    """An array that may be kept: the data set that holds it, and what is said of it there."""

    root: Path
    record: SceneRecord


def prepare_arrays(
    scenes: Sequence[RawScene], folder: Path, previous: Path, workers: int
) -> Iterator[tuple[RawScene, SceneRecord | str]]:
    """Prepares scenes into `folder`; gives, in their order, the record of each, or the problem in words.

    previous: an earlier data set, whose arrays are linked instead of made anew where sources and code are the same;
    so are the arrays that an interrupted run left in `folder`. workers: processes, 0 for as many as there are cores.
    Raises SceneError where a process dies or an array cannot be written. `discard_others` makes the folder ready to
    be read.
    """
    version = preparation_version()
    earlier = _earlier(previous, version) | _resume(folder, version)
    workers = min(workers or len(os.sched_getaffinity(0)), len(scenes) or 1)
    try:
        with (
            (folder / JOURNAL).open("a", newline="", encoding="utf-8") as file,
            ProcessPoolExecutor(workers, initializer=end_with_parent) as pool,
            tqdm(total=len(scenes), desc="prepare", unit="scene", disable=None) as progress,
        ):
            waiting: deque[tuple[RawScene, Future[SceneRecord | str]]] = deque()
            upcoming = iter(scenes)
            while True:
                for scene in islice(upcoming, AHEAD * workers - len(waiting)):
                    waiting.append((scene, pool.submit(_prepare_array, scene, folder, earlier.get(scene.scene))))
                if not waiting:
                    break
                scene, future = waiting.popleft()
                outcome = future.result()
                if isinstance(outcome, SceneRecord):
                    _journal(file).writerow(asdict(outcome))
                    file.flush()
                progress.update()
                yield scene, outcome
    except (BrokenProcessPool, MemoryError) as error:
        raise SceneError(
            "prepare.workers: a process ran out of memory or was killed. Lower prepare.workers and run "
            "prepare again: it goes on where it was."
        ) from error


def discard_others(folder: Path, records: Iterable[SceneRecord]) -> None:
    """Leaves in `folder` the arrays of these records, and nothing of how they were made."""
    wanted = {scene_path(folder, record.scene) for record in records if record.array_sha256 != NONE}
    for path in (folder / SCENES).iterdir():
        if path not in wanted:
            path.unlink()
    (folder / JOURNAL).unlink()


def _prepare_array(raw: RawScene, folder: Path, earlier: Earlier | None) -> SceneRecord | str:
    """Makes or keeps the array of a scene; problems come back as text, since they are the user's and many."""
    try:
        sources = read_sources(raw)
        if earlier is not None and _keep(earlier, folder, sources.hashes()):
            return replace(earlier.record, source=raw.source, split=raw.source)
        array, record = prepare_scene(raw, sources)
        save_scene(folder, raw.scene, array)
    except InputError as error:
        return _as_text(error)
    except OSError as error:  # of writing: that a source cannot be read is an InputError
        raise SceneError(
            f"{scene_path(folder, raw.scene)}: cannot be written ({error.strerror or error}). Make room on the disk "
            "and run prepare again: it goes on where it was."
        ) from error
    return record


def _keep(earlier: Earlier, folder: Path, hashes: dict[str, str]) -> bool:
    """Brings the array of the same sources into `folder`; False where there is none, or it is damaged."""
    root, record = earlier
    if any(getattr(record, name) != value for name, value in hashes.items()):
        return False
    # DVC may have replaced the file by a link into its cache.
    source = scene_path(root, record.scene).resolve()
    if not _is_whole(source, record):
        return False
    if root != folder:
        path = scene_path(folder, record.scene)
        path.unlink(missing_ok=True)
        try:
            os.link(source, path)
        except OSError:
            shutil.copyfile(source, path)
    return True


def _is_whole(path: Path, record: SceneRecord) -> bool:
    """Whether the file is, byte for byte, what `save_scene` wrote; NumPy may stumble over a damaged header."""
    shape = (record.height, record.width, CHANNELS)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    try:
        content = path.read_bytes()
    except OSError:
        return False
    start = len(header.getvalue())
    return (
        content[:start] == header.getvalue()
        and hashlib.sha256(memoryview(content)[start:]).hexdigest() == record.array_sha256
    )


def _as_text(error: InputError) -> str:
    """The message, the same in every run: Pillow names what it decodes by its address. It can be written as UTF-8,
    whatever the label that it quotes.
    """
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error))
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode("utf-8")


def _earlier(previous: Path, version: str) -> dict[str, Earlier]:
    """Arrays of a data set that has its index, if this code made it."""
    try:
        if (previous / VERSION).read_text(encoding="utf-8") == version:
            return {record.scene: Earlier(previous, record) for record in read_index(previous, SPLITS)}
    except (OSError, ValueError):
        pass  # it is not there, or not as we write it: nothing to keep
    return {}


def _resume(folder: Path, version: str) -> dict[str, Earlier]:
    """Arrays that an interrupted run of this code left in `folder`; what another one left is removed."""
    found = _earlier(folder, version)  # it was killed after its index was written
    try:
        if (folder / VERSION).read_text(encoding="utf-8") == version:
            with (folder / JOURNAL).open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file, COLUMNS, restval=""):
                    record = parse_record(line)
                    if record.problem != NONE:
                        break  # the line broke off within its last word
                    found[record.scene] = Earlier(folder, record)
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        pass  # the journal ends where the run was killed
    if not found:
        shutil.rmtree(folder)
        folder.mkdir()
    (folder / SCENES).mkdir(exist_ok=True)
    (folder / VERSION).write_text(version, encoding="utf-8")
    # Written anew: a line that broke off must not be continued by the next one.
    with (folder / JOURNAL).open("w", newline="", encoding="utf-8") as file:
        _journal(file).writerows(asdict(entry.record) for entry in found.values())
    (folder / INDEX).unlink(missing_ok=True)
    return found


def _journal(file: TextIO) -> "csv.DictWriter[str]":
    return csv.DictWriter(file, COLUMNS, lineterminator="\n")

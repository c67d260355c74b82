"""A folder and an S3 location become equal by moving what differs, by many threads of one process of the machine.

What differs: beside the folder, the hidden folder `.NAME.sync` remembers size and mtime of every file as it was when it
equalled the object, and the object's ETag. A file is moved unless all of these, and the size in the listing, are still
the same; so nothing is hashed and no object is asked for on its own. After a kill the next sync goes on behind the last
file that was moved.

Files in MARKERS say by their presence that the files below their folder are whole. They are removed before the first
of these changes, and come last.
"""

import fcntl
import json
import os
import posixpath
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from base.errors import errors_name
from base.files import write_file
from components.storage.s3 import FILES_AT_ONCE, TEMPORARY, Object, OnBytes, StorageError, Store

# Of a prepared data set, a model directory, a checkpoint, a shard of a map, a map that was delivered.
MARKERS = ("index.csv", "config.json", "checkpoint.json", "shard.json", "stac.json")


class Recorded(NamedTuple):
    """A file and its object when they were equal: bytes, nanoseconds, ETag."""

    size: int
    mtime: int
    etag: str


def download(store: Store, folder: Path, *, resume: bool = False) -> Path:
    """Makes `folder` equal to the location; other files in it are deleted. Returns it, or the file in it where the
    location is one object.

    resume: `folder` is where this machine writes the location, and may be ahead of it: what changed or appeared here
    since the last sync is kept, unless an object of that sync has changed, by another machine's going on. The location
    may be empty.
    Processes that do this at the same time wait for the first and find nothing left to move.
    Raises StorageError where the location is missing, or `folder` holds files and is no copy of it.
    """
    with _only_one(folder) as hidden:
        records = _Records(hidden, store)
        if not records.path.exists() and folder.exists() and any(folder.iterdir()):
            raise StorageError(
                f"{folder}: holds files and is no copy of {store.uri}; they would be deleted. Choose another folder."
            )
        found = store.list_objects() if resume else store.find_objects()
        folder.mkdir(parents=True, exist_ok=True)
        local = scan(folder)
        changed = {name for name in found if not records.are_equal(name, local, found)}
        gone = local.keys() - found.keys()
        if resume:
            gone &= records.files.keys()
            if all(records.has_object(name, found) for name in records.files):
                changed -= local.keys() & records.files.keys()
        if changed or gone or not records.path.exists():
            records.rewrite(found)
            markers = _markers(changed | gone)
            for name in [*(markers & local.keys()), *(gone - markers)]:
                (folder / name).unlink()
            _remove_empty_folders(folder)

            def fetch(name: str, on_bytes: OnBytes) -> None:
                partial, path = hidden / "partial" / str(threading.get_ident()), folder / name
                with errors_name(path):
                    store.fetch(found[name], partial, on_bytes)
                    status = partial.stat()
                    path.parent.mkdir(parents=True, exist_ok=True)
                    partial.replace(path)
                records.add(name, Recorded(status.st_size, status.st_mtime_ns, found[name].etag))

            _move(f"fetch {store.uri}", {n: found[n].size for n in changed | (markers & found.keys())}, fetch)
    is_one_object = [one.key for one in found.values()] == [store.prefix]
    return folder / posixpath.basename(store.prefix) if is_one_object else folder


def claim(folder: Path, store: Store, replaces: Callable[[Path], bool] | None = None) -> None:
    """Makes known that `folder` is where the location's next content is made; raises StorageError as `upload` does."""
    with _only_one(folder) as hidden:
        records = _Records(hidden, store)
        records.rewrite(list_target(store, replaces))


def upload(folder: Path, store: Store, replaces: Callable[[Path], bool] | None = None) -> None:
    """Brings the files of `folder` to the location. Meant for one writer at a time.

    What an earlier sync of the two left at the location is deleted there when it is gone from `folder`.
    replaces: tells from a path below the location whether an earlier output of this kind put it there, on whatever
    machine; all such objects that `folder` has not are deleted, and StorageError is raised where there are others.
    """
    with _only_one(folder) as hidden:
        records, local, found = _Records(hidden, store), scan(folder), list_target(store, replaces)
        changed = {name for name in local if not records.are_equal(name, local, found)}
        gone = found.keys() - local.keys()
        if replaces is None:
            gone = {name for name in gone & records.files.keys() if records.has_object(name, found)}
        if not changed and not gone:
            return
        records.rewrite(found)
        markers = _markers(changed | gone)
        store.delete([found[name] for name in markers & found.keys()])
        store.delete([found[name] for name in gone - markers])

        def put(name: str, on_bytes: OnBytes) -> None:
            records.add(name, Recorded(*local[name], store.put(folder / name, name, on_bytes).etag))

        _move(f"store {store.uri}", {n: local[n][0] for n in changed | (markers & local.keys())}, put)


def scan(folder: Path) -> dict[str, tuple[int, int]]:
    """The files below the folder, through links as well: relative name to size and mtime in nanoseconds."""

    def fail(error: OSError) -> None:
        raise error

    files = {}
    for directory, _, names in os.walk(folder, onerror=fail, followlinks=True):
        for path in (Path(directory, name) for name in names):
            name = path.relative_to(folder).as_posix()
            if not TEMPORARY.search(name):
                status = path.stat()
                files[name] = (status.st_size, status.st_mtime_ns)
    return files


class _Records:
    """What is known of files that equalled their objects; a line for each, the last one of a name counts."""

    def __init__(self, hidden: Path, store: Store) -> None:
        self.path = hidden / f"{store.identity}.jsonl"
        self.files: dict[str, Recorded] = {}
        self._lock = threading.Lock()
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                name, *values = json.loads(line)
                self.files[name] = Recorded(*values)
            except (ValueError, TypeError):
                break  # a kill cut the last line short

    def are_equal(self, name: str, local: Mapping[str, tuple[int, int]], found: Mapping[str, Object]) -> bool:
        """Whether file and object are both there and as they were when they were equal."""
        record = self.files.get(name)
        return record is not None and local.get(name) == record[:2] and self.has_object(name, found)

    def has_object(self, name: str, found: Mapping[str, Object]) -> bool:
        """Whether the object is as it was."""
        record, there = self.files[name], found.get(name)
        return there is not None and (there.size, there.etag) == (record.size, record.etag)

    def rewrite(self, found: Mapping[str, Object]) -> None:
        """Writes the file anew, or for the first time, without what is no longer at the location."""
        self.files = {name: record for name, record in self.files.items() if name in found}
        write_file(self.path, "".join(map(_to_line, self.files.items())))

    def add(self, name: str, record: Recorded) -> None:
        """Remembers a file that was just moved, also beyond a kill of this process."""
        with self._lock, errors_name(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_to_line((name, record)))


def _to_line(item: tuple[str, Recorded]) -> str:
    return json.dumps([item[0], *item[1]]) + "\n"


@contextmanager
def _only_one(folder: Path) -> Iterator[Path]:
    """The hidden folder beside `folder`, for one process of this machine at a time; the others wait.

    The kernel frees the lock of a process that was killed.
    """
    hidden = folder.parent / f".{folder.name}.sync"
    partial = hidden / "partial"
    hidden.mkdir(parents=True, exist_ok=True)
    with (hidden / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which works on {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield hidden


def list_target(store: Store, replaces: Callable[[Path], bool] | None) -> Mapping[str, Object]:
    """What lies at the location; raises StorageError as `upload` does."""
    found = store.list_objects()
    foreign = sorted(name for name in found if replaces is not None and not replaces(Path(name)))
    if foreign:
        raise StorageError(
            f"{store.uri}/{foreign[0]}: would be deleted by writing {store.uri} anew, expected an empty location or an "
            "earlier output of this step. Choose another output."
        )
    return found


def _is_marker(name: str) -> bool:
    return posixpath.basename(name) in MARKERS


def _markers(names: Collection[str]) -> set[str]:
    """The markers that speak for any of these files: those in its folder and in the ones above."""
    folders = set()
    for name in names:
        while name:
            name = posixpath.dirname(name)
            folders.add(name)
    return {posixpath.join(folder, marker) for folder in folders for marker in MARKERS}


def _remove_empty_folders(folder: Path) -> None:
    for directory, _, _ in os.walk(folder, topdown=False):
        if directory != str(folder) and not any(os.scandir(directory)):
            os.rmdir(directory)


def _move(title: str, sizes: Mapping[str, int], move: Callable[[str, OnBytes], None]) -> None:
    """Moves the files, markers last; the first failure ends it, when the files under way have been moved."""
    with tqdm(total=sum(sizes.values()), desc=title, unit="B", unit_scale=True, disable=None) as bar:
        for names in ([n for n in sizes if not _is_marker(n)], [n for n in sizes if _is_marker(n)]):
            with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
                futures = [pool.submit(move, name, bar.update) for name in sorted(names)]
                try:
                    for future in as_completed(futures):
                        future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

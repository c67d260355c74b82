"""Where steps read and write: a location is a path, or `s3://bucket/prefix` for what lies at and below that prefix.

Copies of S3 locations lie in the folder $DUAL_HRNET_CACHE, by default ~/.cache/dual-hrnet, which belongs on a disk of
the machine itself; each can be deleted at any time when no step runs. How they are brought up to date is told in
`components.storage.sync`, what boto3 needs in `components.storage.s3`.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from base.errors import InputError
from base.files import refuse_no_folder, refuse_to_replace_others
from components.storage import sync
from components.storage.s3 import StorageError, Store

Location = str | Path
LOCATIONS = "A LOCATION is a path, or s3://BUCKET/PREFIX."  # for --help


@contextmanager
def local_input(location: Location) -> Iterator[Path]:
    """Gives the path of a file or folder to read: a path as it is; of an S3 location, an up-to-date copy of it.

    Whatever differs from the location is fetched again, also what changed in the copy; what is gone there is deleted
    from the copy. Of several processes on a machine one fetches, the others wait.
    Raises StorageError where the location cannot be read. InputErrors of the block name the location, not the copy.
    """
    store = _open_store(location)
    if store is None:
        yield Path(location)
        return
    copy = sync.download(store, _cache() / _name(store))
    with errors_name_location(copy, store.uri):
        yield copy


@contextmanager
def local_part(location: Location, name: str) -> Iterator[Path]:
    """Gives the path of a folder in which the location's folder `name` can be read; of an S3 location, only that is
    fetched. Raises StorageError as `local_input` does.
    """
    if _open_store(location) is None:
        yield Path(location)
        return
    with local_input(join(location, name)) as part, TemporaryDirectory() as root:
        Path(root, name).symlink_to(part)
        with errors_name_location(Path(root), str(location)):
            yield Path(root)


class Growing(NamedTuple):
    """A folder that a step fills over hours. upload: brings the location to what the folder holds by now; for a path,
    nothing. It raises StorageError.
    """

    folder: Path
    upload: Callable[[], None]


@contextmanager
def local_output(location: Location, *, replaces: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Gives a path to write a folder to: a path as it is; for an S3 location a local folder, which is uploaded when the
    block ends without an error. What says that files are whole (an index.csv, a config.json) comes after them.

    replaces: for a step that writes the folder anew as a whole; tells from a path relative to it whether an earlier
    run wrote it, as in `base.files.new_folder`. Objects of an earlier run are then deleted; a location that holds
    others is refused. A step without it adds to what is there.
    Raises StorageError, before the block where the location cannot even be listed; InputError where the path is a file
    or lies below one. InputErrors of the block name the location, not the folder.
    """
    store = _open_store(location)
    if store is None:
        refuse_no_folder(Path(location))
        yield Path(location)
        return
    with ExitStack() as stack:
        if replaces is not None:
            folder = _cache() / _name(store)
        else:
            _cache().mkdir(parents=True, exist_ok=True)
            folder = Path(stack.enter_context(TemporaryDirectory(dir=_cache(), prefix="output-")), _name(store))
        sync.claim(folder, store, replaces)
        with errors_name_location(folder, store.uri):
            yield folder
        sync.upload(folder, store, replaces)


@contextmanager
def growing_output(location: Location) -> Iterator[Growing]:
    """As `local_output`, for a step that goes on with what it finds in the folder: the location's content, or what an
    interrupted run left on this machine, if the location did not change since. What the step deletes is deleted at the
    location, which the step brings up to date while it works.
    """
    store = _open_store(location)
    if store is None:
        with local_output(location) as folder:
            yield Growing(folder, lambda: None)
        return
    folder = sync.download(store, _cache() / f"{_name(store)}-resumed", resume=True)
    sync.claim(folder, store)
    with errors_name_location(folder, store.uri):
        # By one store: it waits for a server that has answered it, and a new one for none.
        yield Growing(folder, lambda: sync.upload(folder, store))
    sync.upload(folder, store)


def refuse_to_replace(location: Location, is_ours: Callable[[Path], bool]) -> None:
    """Raises what `local_output(location, replaces=is_ours)` does where the location holds something else: what is to
    be known before long work. is_ours: see there.
    """
    store = _open_store(location)
    if store is None:
        refuse_to_replace_others(Path(location), is_ours)
    else:
        sync.list_target(store, is_ours)


def folders_in(location: Location) -> set[str]:
    """Names of the folders right below the location. Raises StorageError where it cannot be read."""
    store = _open_store(location)
    if store is None:
        return {path.name for path in Path(location).iterdir() if path.is_dir()}
    return {name.split("/")[0] for name in store.list_objects() if "/" in name}


def files_at(location: Location) -> list[Location]:
    """Locations of the files at and below a location, in the order of their names; hidden ones are passed over. Raises
    StorageError where an S3 location has none; of a path that is not there it is the path.
    """
    store = _open_store(location)
    if store is None:
        folder = Path(location)
        if not folder.is_dir():
            return [location]
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    else:
        found = store.find_objects()
        if [one.key for one in found.values()] == [store.prefix]:
            return [location]
        names = sorted(found)
    return [join(location, name) for name in names if not any(part.startswith(".") for part in name.split("/"))]


def scratch_for(location: Location, name: str) -> Path:
    """The folder for what a step keeps on the way to a location, where a later run finds it again: beside a path, and
    of an S3 location in the cache. It need not exist.
    """
    store = _open_store(location)
    if store is not None:
        return _cache() / f"{_name(store)}-{name}"
    path = Path(location).resolve()
    return path.parent / f".{path.name}.{name}"


def join(location: Location, name: str) -> Location:
    """The location of a file or folder below a location."""
    return f"{location.rstrip('/')}/{name}" if isinstance(location, str) else location / name


def _open_store(location: Location) -> Store | None:
    """None for a path."""
    if isinstance(location, str) and location.startswith("s3://"):
        return Store(location)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(location)):  # also what Path makes of an URI, s3:/bucket
        raise StorageError(f"{location}: is neither a path nor of the form s3://BUCKET/PREFIX. Correct the location.")
    return None


def _cache() -> Path:
    return Path(os.environ.get("DUAL_HRNET_CACHE") or "~/.cache/dual-hrnet").expanduser().absolute()


def _name(store: Store) -> str:
    """Of the folder in the cache: readable, and of its own for each location of each server."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", store.uri.removeprefix("s3://"))
    return f"{readable[-60:]}-{store.identity}"


@contextmanager
def errors_name_location(folder: Path, location: str) -> Iterator[None]:
    """InputErrors of the block name the location, and not the folder that stands for it on this machine."""
    try:
        yield
    except InputError as error:
        error.args = (str(error).replace(str(folder), location),)
        raise

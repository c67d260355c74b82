"""Which raw version a .dvc file or a git revision names, and the DVC remote that stores it; the one door to DVC."""

import hashlib
import posixpath
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from base.access import unreadable
from base.errors import InputError
from base.patience import News, Patience, here
from components.storage import s3

if TYPE_CHECKING:
    from dvc_objects.fs.base import FileSystem


MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
FETCHED = "fetched"  # tag of the revision that git brought
# The libraries of the remotes try again themselves, for some seconds. A fetch that ends goes on when it is run again.
PATIENCE = Patience(away=0)

Result = TypeVar("Result")


class FetchError(InputError):
    """A raw version cannot be brought; names the file, the finding and the remedy."""


class CorruptedError(Exception):
    """An object is not what its name says."""


@dataclass(frozen=True)
class DvcFile:
    """The raw version that a .dvc file names, which `dvc add` wrote."""

    path: Path


@dataclass(frozen=True)
class Revision:
    """The raw version of the tracked path `data` at a branch, tag or full commit hash of a git repository."""

    repository: str
    revision: str
    data: str


@dataclass(frozen=True)
class Hash:
    """The raw version that is DVC's hash of the data (md5, ending in .dir for a folder)."""

    md5: str


@dataclass(frozen=True)
class RawVersion:
    """A tracked path, DVC's hash of its content (ending in .dir for a folder), and the DVC remote that stores it: its
    URL, and its file system with the path there. Reading raises what the library of the remote raises, after as much
    patience as was asked for.
    """

    path: str
    md5: str
    url: str
    files: "FileSystem"
    root: str
    news: News = field(default_factory=News, compare=False, repr=False)

    def locate(self, md5: str) -> str:
        """URL of an object."""
        return f"{self.url.rstrip('/')}/{object_path(md5)}"

    def read(self, md5: str) -> bytes:
        """Content of an object. Raises CorruptedError where it is not what its name says."""
        content: bytes = self._patiently(lambda: self.files.cat_file(self._place(md5)))
        if hashlib.md5(content).hexdigest() != md5.removesuffix(".dir"):
            raise CorruptedError(md5)
        return content

    def download(self, md5: str, to: Path) -> None:
        """Writes an object to a file, which takes its name once its content is verified. Raises CorruptedError."""
        from dvc_objects.fs.local import localfs
        from dvc_objects.fs.utils import as_atomic

        with as_atomic(localfs, str(to), create_parents=True) as partial:
            self._patiently(lambda: self.files.get_file(self._place(md5), partial))
            if not is_sound(Path(partial), md5):
                raise CorruptedError(md5)
            Path(partial).chmod(0o444)  # as DVC marks what it has verified

    def _place(self, md5: str) -> str:
        return str(self.files.join(self.root, object_path(md5)))

    def _patiently(self, attempt: Callable[[], Result]) -> Result:
        return here(PATIENCE).wait_out(attempt, _may_pass, f"DVC remote {self.url}", first_line, self.news)


def object_path(md5: str) -> str:
    """Where a remote or a cache of DVC 3 holds the content of this hash."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def hash_file(path: Path) -> str:
    """DVC's hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def is_sound(path: Path, md5: str) -> bool:
    """Whether a file is there and its content is what this hash says."""
    return path.is_file() and hash_file(path) == md5.removesuffix(".dir")


def find_version(source: DvcFile | Revision | Hash, remote: str | None = None) -> RawVersion:
    """The raw version that `source` names, stored at the URL `remote`, else where the repository's settings say.

    No object is read. Raises FetchError.
    """
    if not isinstance(source, Revision) and not remote:
        name = source.md5 if isinstance(source, Hash) else source.path
        raise FetchError(f"{name}: does not say where its data are stored. Give --remote, such as s3://bucket/prefix.")
    if isinstance(source, Hash):
        if not MD5.fullmatch(source.md5):
            raise FetchError(f"raw version {source.md5!r}: is not an md5 of DVC. Give the one that a .dvc file names.")
        return RawVersion("data", source.md5, *open_remote(str(remote)))
    if isinstance(source, DvcFile):
        name = str(source.path)
        try:
            outputs = _read_outputs(name, source.path.read_bytes())
        except OSError as error:
            raise FetchError(f"{name}: {unreadable(source.path, error, '. Give a .dvc file.')}") from error
        if len(outputs) != 1:
            raise FetchError(f"{name}: tracks {len(outputs)} paths, expected one. Give the .dvc file of one `dvc add`.")
        path = (source.path.parent / outputs[0]["path"]).as_posix()
        return RawVersion(path, _read_md5(name, outputs[0]), *open_remote(str(remote)))
    return _find_in_repository(source, remote)


def version_here(data: str) -> Hash:
    """The raw version of a tracked path of the working directory, by .dvc file, else by dvc.lock; raises FetchError."""
    for name in (f"{data}.dvc", "dvc.lock"):
        path = Path(name)
        for output in _read_outputs(name, path.read_bytes()) if path.is_file() else []:
            if (path.parent / output["path"]).as_posix() == posixpath.normpath(data):
                return Hash(_read_md5(name, output))
    raise FetchError(
        f"{data}: is tracked by neither {data}.dvc nor dvc.lock here. Run `dvc add {data}`, or give a raw version."
    )


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line."""
    if isinstance(error, OSError) and error.strerror:  # str() has its number and quotes
        return f"{error.strerror}: {error.filename}" if error.filename else first_line(Exception(error.strerror))
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")


def _may_pass(error: Exception) -> bool:
    """Whether a remote may answer later; errors are those of its library, which puts an answer of S3 into the cause."""
    import aiohttp

    if isinstance(error, ConnectionError | TimeoutError | aiohttp.ClientError):
        return True
    return any(isinstance(part, Exception) and s3.may_pass(part) for part in (error, error.__cause__))


def _find_in_repository(source: Revision, remote: str | None) -> RawVersion:
    from dvc.config import Config, ConfigError  # type: ignore[import-untyped]
    from dvc.fs import GitFileSystem  # type: ignore[import-untyped]

    if not source.revision:  # git would take the default branch
        raise FetchError("the revision is empty. Give --revision, a branch, a tag or a full commit hash.")
    name = f"{_without_secrets(source.repository)} at {source.revision}"
    path = posixpath.normpath(source.data)
    is_folder = Path(source.repository).is_dir()
    location = str(Path(source.repository).resolve()) if is_folder else source.repository
    with TemporaryDirectory() as folder:
        _fetch_revision(name, location, source.revision, folder)
        files = GitFileSystem(folder, rev=FETCHED)
        found = {}
        for record in files.find("/"):
            if record.endswith((".dvc", "/dvc.lock")):
                for output in _read_outputs(f"{record[1:]} of {name}", files.cat_file(record)):
                    tracked = posixpath.normpath(posixpath.join(posixpath.dirname(record), output["path"]))
                    found[tracked[1:]] = record[1:], output
        if path not in found:
            raise FetchError(
                f"{path}: is not tracked by DVC in {name}; tracked are {', '.join(sorted(found)) or 'no paths'}. "
                "Give one of these, or another revision."
            )
        record, output = found[path]
        md5 = _read_md5(f"{record} of {name}", output)
        if remote:
            return RawVersion(path, md5, *open_remote(remote))
        try:
            # Of a working tree the settings as they stand there, config.local included, as DVC itself takes them.
            working = Path(location, ".dvc")
            settings = Config(working) if working.is_dir() else Config("/.dvc", fs=files)
        except ConfigError as error:
            raise FetchError(f".dvc/config of {name}: {first_line(error)}. Correct it.") from error
    remote = output.get("remote") or settings["core"].get("remote")
    if remote is None:
        raise FetchError(f".dvc/config of {name}: has no default remote. Add one, or give --remote.")
    return RawVersion(path, md5, *open_remote(remote, settings))


def _fetch_revision(name: str, location: str, revision: str, folder: str) -> None:
    """Brings a revision by git, which verifies the host and needs no history; DVC's own clone does neither."""
    fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", location, f"{revision}:refs/tags/{FETCHED}"]
    for arguments in (["init", "--quiet", "--bare"], fetch):
        command = ["git", "--git-dir", f"{folder}/.git", *arguments]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
            )
        except FileNotFoundError as error:
            raise FetchError("git: is not installed, and is needed to read a repository. Install it.") from error
        if result.returncode != 0:
            lines = result.stderr.splitlines()
            if any("cannot run ssh" in line for line in lines):
                raise FetchError(
                    f"{name}: is an address for ssh, which is not installed here, nor in the image. Give the https:// "
                    "address of the repository, or the version itself: --version and --remote."
                )
            said = next((line for line in lines if line.startswith("fatal: ")), "\n".join(lines[:1]))
            raise FetchError(
                f"{name}: git says: {said.removeprefix('fatal: ')}. Give a repository that can be read from here, and "
                "a branch, a tag or a full commit hash of it."
            )


def _read_outputs(name: str, content: bytes) -> list[Mapping[str, Any]]:
    """Records of tracked paths in a .dvc file, or in dvc.lock, which holds such lists under its stages."""
    try:
        file = yaml.safe_load(content)
        parts = [file, *file.get("stages", {}).values()]
        outputs: list[Mapping[str, Any]] = [output for part in parts for output in part.get("outs", [])]
        if all(isinstance(output["path"], str) for output in outputs):
            return outputs
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        pass
    raise FetchError(f"{name}: is not a file that DVC wrote. Give the .dvc file of the data.")


def _read_md5(name: str, output: Mapping[str, Any]) -> str:
    md5 = output.get("md5")
    if not isinstance(md5, str) or not MD5.fullmatch(md5) or output.get("hash") != "md5":
        raise FetchError(
            f"{name}: {output['path']} has no md5 of DVC 3. Run `dvc add` with it, and `dvc push` to a remote that is "
            "not cloud-versioned."
        )
    return md5


def open_remote(remote: str, settings: Mapping[str, Any] | None = None) -> tuple[str, "FileSystem", str]:
    """The remote of this URL, or of this name in the settings: its URL, its file system and the path there."""
    from dvc.fs import get_cloud_fs

    try:
        opened, options, root = get_cloud_fs(settings, **({"name": remote} if settings else {"url": remote}))
        files = opened(**options)
    except Exception as error:  # unknown names, schemes, options and missing plugins each raise a family of their own
        raise FetchError(f"remote {_without_secrets(remote)}: {first_line(error)}. Correct the remote.") from error
    url = settings["remote"][remote.lower()]["url"] if settings else remote
    return _without_secrets(url), files, root


def _without_secrets(url: str) -> str:
    """The address without user, password or token, which have no place in a log."""
    return re.sub(r"//[^/@]*@", "//", url)

"""Which version of the data a .dvc file or a git revision names, and the DVC remote that stores it; the one door to
DVC.
"""

import posixpath
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from base.errors import InputError

if TYPE_CHECKING:
    from dvc_objects.fs.base import FileSystem


MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


class FetchError(InputError):
    """A version of the data cannot be brought; names the file, the finding and the remedy."""


@dataclass(frozen=True)
class DvcFile:
    """The version that a .dvc file names, which `dvc add` wrote."""

    path: Path


@dataclass(frozen=True)
class Revision:
    """The version of the tracked path `data` at a branch, tag or full commit hash of a git repository."""

    repository: str
    revision: str
    data: str


@dataclass(frozen=True)
class Hash:
    """The version that is DVC's hash of the data (md5, ending in .dir for a folder)."""

    md5: str


@dataclass(frozen=True)
class Storage:
    """A DVC remote: objects by their md5, in the layout of DVC 3. Reading raises what the remote's library raises."""

    url: str
    files: "FileSystem"
    root: str

    @property
    def jobs(self) -> int:
        """Objects to read at a time."""
        return int(self.files.jobs)

    def locate(self, md5: str) -> str:
        """URL of the object."""
        return f"{self.url.rstrip('/')}/files/md5/{md5[:2]}/{md5[2:]}"

    def read(self, md5: str) -> bytes:
        """Content of the object, not verified."""
        return self.files.cat_file(self._path(md5))

    def download(self, md5: str, to: Path) -> None:
        """Writes the content of the object, not verified."""
        self.files.get_file(self._path(md5), str(to))

    def _path(self, md5: str) -> str:
        return self.files.join(self.root, "files", "md5", md5[:2], md5[2:])


@dataclass(frozen=True)
class DataVersion:
    """A tracked path, DVC's hash of its content (ending in .dir for a folder), and where its objects are stored."""

    path: str
    md5: str
    storage: Storage


def find_version(source: DvcFile | Revision | Hash, remote: str | None = None) -> DataVersion:
    """The version that `source` names, stored at the URL `remote`, else where the repository's settings say.

    No object is read. Raises FetchError.
    """
    if not isinstance(source, Revision) and not remote:
        name = source.md5 if isinstance(source, Hash) else source.path
        raise FetchError(f"{name}: does not say where its data are stored. Give --remote, such as s3://bucket/prefix.")
    if isinstance(source, Hash):
        if not MD5.fullmatch(source.md5):
            raise FetchError(f"version {source.md5!r}: is not an md5 of DVC. Give the one that a .dvc file names.")
        return DataVersion("data", source.md5, _open_storage(str(remote)))
    if isinstance(source, DvcFile):
        name = str(source.path)
        try:
            outputs = _read_outputs(name, source.path.read_bytes())
        except OSError as error:
            raise FetchError(f"{name}: cannot be read ({error.strerror}). Give a .dvc file.") from error
        if len(outputs) != 1:
            raise FetchError(f"{name}: tracks {len(outputs)} paths, expected one. Give the .dvc file of one `dvc add`.")
        path = (source.path.parent / outputs[0]["path"]).as_posix()
        return DataVersion(path, _read_md5(name, outputs[0]), _open_storage(str(remote)))
    if not source.revision:  # git would take the default branch
        raise FetchError("the revision is empty. Give --revision, a branch, a tag or a full commit hash.")
    with TemporaryDirectory() as folder:
        repository = _Repository(source, Path(folder))
        name, output = repository.find_output(posixpath.normpath(source.data))
        md5 = _read_md5(name, output)
        storage = _open_storage(remote) if remote else repository.open_remote(output.get("remote"))
        return DataVersion(posixpath.normpath(source.data), md5, storage)


def version_here(data: str) -> Hash:
    """The version of a tracked path of the working directory, by its .dvc file, else by dvc.lock; raises FetchError."""
    for name in (f"{data}.dvc", "dvc.lock"):
        path = Path(name)
        for output in _read_outputs(name, path.read_bytes()) if path.is_file() else []:
            if (path.parent / output["path"]).as_posix() == posixpath.normpath(data):
                return Hash(_read_md5(name, output))
    raise FetchError(
        f"{data}: is tracked by neither {data}.dvc nor dvc.lock here. Run `dvc add {data}`, or give a version."
    )


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")


class _Repository:
    """One revision of a git repository, without history and without a working tree."""

    def __init__(self, source: Revision, folder: Path) -> None:
        is_folder = Path(source.repository).is_dir()
        location = str(Path(source.repository).resolve()) if is_folder else source.repository
        self.folder = folder
        self.name = f"{_without_secrets(source.repository)} at {source.revision}"
        # Of a working tree the settings as they stand there, config.local included, as DVC itself takes them.
        self.working_settings = Path(location) / ".dvc"
        self._git("init", "--quiet", "--bare")
        self._git("fetch", "--quiet", "--depth=1", "--no-tags", "--", location, source.revision)
        self.files = self._git("ls-tree", "-r", "-z", "--name-only", "FETCH_HEAD").split("\0")

    def find_output(self, path: str) -> tuple[str, Mapping[str, Any]]:
        """What records the path, and the record."""
        found: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for name in self.files:
            if posixpath.basename(name) == "dvc.lock" or name.endswith(".dvc"):
                for output in _read_outputs(f"{name} of {self.name}", self._read(name).encode()):
                    found[posixpath.normpath(posixpath.join(posixpath.dirname(name), output["path"]))] = name, output
        if path not in found:
            raise FetchError(
                f"{path}: is not tracked by DVC in {self.name}; tracked are {', '.join(sorted(found)) or 'no paths'}. "
                "Give one of these, or another revision."
            )
        return found[path]

    def open_remote(self, name: str | None) -> Storage:
        """The remote of this name in the settings, else the default one."""
        from dvc.config import Config, ConfigError  # type: ignore[import-untyped]

        settings = self.working_settings
        if not settings.is_dir():
            settings = self.folder / ".dvc"
            settings.mkdir()
            if ".dvc/config" in self.files:
                (settings / "config").write_text(self._read(".dvc/config"), encoding="utf-8")
        try:
            config = Config(settings)
        except ConfigError as error:
            raise FetchError(f".dvc/config of {self.name}: {first_line(error)}. Correct it.") from error
        name = name or config["core"].get("remote")
        if name is None:
            raise FetchError(f".dvc/config of {self.name}: has no default remote. Add one, or give --remote.")
        return _open_storage(name, config)

    def _read(self, name: str) -> str:
        return self._git("show", f"FETCH_HEAD:{name}")

    def _git(self, *arguments: str) -> str:
        command = ["git", "--git-dir", str(self.folder / "git"), *arguments]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
            )
        except FileNotFoundError as error:
            raise FetchError("git: is not installed, and is needed to read a repository. Install it.") from error
        if result.returncode != 0:
            lines = result.stderr.splitlines()
            said = next((line for line in lines if line.startswith("fatal: ")), "\n".join(lines[:1]))
            raise FetchError(
                f"{self.name}: git says: {said.removeprefix('fatal: ')}. Give a repository that can be read from "
                "here, and a branch, a tag or a full commit hash of it."
            )
        return result.stdout


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


def _open_storage(remote: str, config: Mapping[str, Any] | None = None) -> Storage:
    """The remote of this URL, or of this name in the settings."""
    from dvc.fs import get_cloud_fs  # type: ignore[import-untyped]

    try:
        opened, settings, root = get_cloud_fs(config, **({"url": remote} if config is None else {"name": remote}))
        files = opened(**settings)
    except Exception as error:  # unknown names, schemes, options and missing plugins each raise a family of their own
        raise FetchError(f"remote {_without_secrets(remote)}: {first_line(error)}. Correct the remote.") from error
    url = remote if config is None else config["remote"][remote.lower()]["url"]
    return Storage(_without_secrets(url), files, root)


def _without_secrets(url: str) -> str:
    """The address without user, password or token, which have no place in a log."""
    return re.sub(r"//[^/@]*@", "//", url)

"""Which raw version of a DVC remote is the latest: a small object beside DVC's own, which `components.publish` writes.

A schedule asks for it at each run. It is no branch of a repository, because pods have the credentials of the remote and
none of a git server, and because a branch may name a version before its data are pushed.
"""

import json
import posixpath
from pathlib import Path
from tempfile import TemporaryDirectory

from components.storage.dvc import MD5, CorruptedError, FetchError, RawVersion, first_line, object_path, open_remote

LATEST = "latest"  # in the place of a raw version, and the name of the object
PUBLISH = "python -m components.publish --version MD5 --remote"


def read_latest(remote: str) -> str:
    """The raw version, DVC's hash, that the DVC remote at this URL says is the latest. Raises FetchError."""
    url, files, root = open_remote(remote)
    place = posixpath.join(url, LATEST)
    try:
        content = files.cat_file(files.join(root, LATEST))
    except FileNotFoundError as error:
        raise FetchError(
            f"{place}: is not there: no raw version is the latest. Run `{PUBLISH} {url}`, or give a raw version."
        ) from error
    except Exception as error:  # network, server and credentials each raise a family of their own
        raise _unreachable(place, error) from error
    try:
        found = str(json.loads(content)["raw_version"])
    except (ValueError, TypeError, KeyError):
        found = ""
    if not MD5.fullmatch(found):
        raise FetchError(f"{place}: names no raw version. Run `{PUBLISH} {url}`.")
    return found


def write_latest(version: RawVersion) -> None:
    """Makes the version the latest of its remote, which has it already. Raises FetchError."""
    place = posixpath.join(version.url, LATEST)
    try:
        if not _is_there(version):
            raise FetchError(
                f"{version.path}: raw version {version.md5} is not whole on {version.url}. Run `dvc push` first."
            )
        with TemporaryDirectory() as folder:
            content = Path(folder, LATEST)
            content.write_text(json.dumps({"raw_version": version.md5}) + "\n", encoding="utf-8")
            # As a whole: an object of S3 is, and in a folder DVC renames the file.
            version.files.put_file(str(content), version.files.join(version.root, LATEST))
    except FetchError:
        raise
    except Exception as error:
        raise _unreachable(place, error) from error


def _is_there(version: RawVersion) -> bool:
    """Of a folder the list of its files says so, which DVC pushes after the files."""
    if not version.md5.endswith(".dir"):
        return bool(version.files.exists(version.files.join(version.root, object_path(version.md5))))
    try:
        version.read(version.md5)
    except (FileNotFoundError, CorruptedError):
        return False
    return True


def _unreachable(place: str, error: Exception) -> FetchError:
    return FetchError(
        f"{place}: cannot be reached: {first_line(error)}. Check the credentials, the endpoint and the network."
    )

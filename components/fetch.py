"""Step fetch: one version of the data from a DVC remote, every file verified, without a clone of the repository."""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from components.cli import errors_in_one_line
from components.storage.dvc import (
    DataVersion,
    DvcFile,
    FetchError,
    Hash,
    Revision,
    Storage,
    find_version,
    first_line,
)
from components.storage.locations import LOCATIONS, Location, local_output

NAMED = 3  # files that an error names; it counts the others


def fetch(
    source: DvcFile | Revision | Hash, out: Location, *, remote: str | None = None, cache: Path | None = None
) -> str:
    """Brings the version that `source` names to the folder `out`, which appears at once and complete, or not at all.

    remote: URL of the DVC remote, such as s3://bucket/prefix; a Revision has one in its repository's settings.
    cache: a DVC cache folder, by default beside `out`. Verified files stay there, so that an interrupted or failed
    fetch goes on where it stood, and the next version brings only what is new; `out` links to them where it can.
    An `out` that holds this version already is left as it is; one of which every file is in the cache is replaced.
    In S3, `out` is for one version: a location that holds another one's files is refused.
    Returns the version, DVC's hash of the data (md5, ending in .dir for a folder).
    Raises FetchError where the version or one of its files cannot be had, or `out` holds what could not be had again;
    StorageError.
    """
    version = find_version(source, remote)
    if isinstance(out, Path) or "://" not in out:
        _fetch(version, Path(out), cache)
        return version.md5
    names = _read_manifest(version, cache).keys()
    with local_output(out, replaces=lambda path: path.as_posix() in names) as folder:
        _fetch(version, folder, cache)
    return version.md5


def _fetch(version: DataVersion, out: Path, cache: Path | None) -> None:
    from base.files import new_folder
    from xbd.importing.staging import link_or_copy

    objects = cache or out.parent / f".{out.name}.cache"
    wanted = _read_manifest(version, objects)
    present = _hash_files(out)
    if out.is_dir() and present == wanted:
        return
    for path, md5 in present.items():
        if not _object(objects, md5).is_file():
            raise FetchError(
                f"{out / path}: is of no version in the cache {objects}: it was added, edited or damaged. Move it "
                "away, or choose another output folder."
            )
    with new_folder(out, lambda path: path.as_posix() in present) as folder:
        _fill_cache(version, wanted, objects)
        for path, md5 in wanted.items():
            link_or_copy(_object(objects, md5), folder / path)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step; the only line on stdout is the version."""
    parser = argparse.ArgumentParser(prog="python -m components.fetch", description=__doc__, epilog=LOCATIONS)
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--dvc-file", type=Path, metavar="FILE", help=".dvc file that names the version")
    sources.add_argument("--version", metavar="MD5", help="DVC's hash of the data, as a .dvc file names it")
    sources.add_argument("--repo", metavar="URL|DIR", help="git repository; needs --revision and --data")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or full commit hash of --repo")
    parser.add_argument("--data", metavar="PATH", help="what DVC tracks in --repo, such as data/xbd")
    parser.add_argument("--remote", metavar="URL", help="DVC remote, such as s3://bucket/prefix (default: of --repo)")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the data are written here")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="DVC cache (default: .NAME.cache beside --out)")
    arguments = parser.parse_args(argv)
    in_repository = (arguments.revision, arguments.data)
    source: DvcFile | Revision | Hash
    if arguments.repo is not None:
        if None in in_repository:
            parser.error("--repo needs --revision and --data")
        source = Revision(arguments.repo, arguments.revision, arguments.data)
    else:
        if in_repository != (None, None) or arguments.remote is None:
            parser.error("--dvc-file and --version need --remote, and neither --revision nor --data")
        source = Hash(arguments.version) if arguments.dvc_file is None else DvcFile(arguments.dvc_file)
    with errors_in_one_line():
        print(fetch(source, arguments.out, remote=arguments.remote, cache=arguments.cache))


def _read_manifest(version: DataVersion, cache: Path | None) -> dict[str, str]:
    """Files of the version: path, relative to the data, to md5. DVC stores this of a folder as one more object."""
    if not version.md5.endswith(".dir"):
        return {PurePosixPath(version.path).name: version.md5}
    storage = version.storage
    if cache is not None and _is_sound(_object(cache, version.md5), version.md5):
        content = _object(cache, version.md5).read_bytes()
    else:
        try:
            content = storage.read(version.md5)
        except FileNotFoundError as error:
            raise FetchError(
                f"{version.path}: version {version.md5} is not on {storage.url} ({first_line(error)}). Correct the "
                "remote, or run `dvc push` where the data are whole."
            ) from error
        except Exception as error:
            raise _unreadable(version.path, storage, error) from error
        if hashlib.md5(content).hexdigest() != version.md5.removesuffix(".dir"):
            raise FetchError(
                f"{version.path}: the list of its files is corrupted on {storage.url}. To repair it, delete "
                f"{storage.locate(version.md5)}, then run `dvc push` where the data are whole."
            )
    files = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    outside = [path for path in files if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts]
    if outside:
        raise FetchError(f"{version.path}: lists {outside[0]}, which is outside of it. Do not use this version.")
    return files


def _fill_cache(version: DataVersion, files: Mapping[str, str], cache: Path) -> None:
    """Makes every file of the version, and the list of them, a verified object of the cache.

    A lost or corrupted file does not keep the others from coming; anything else ends it at once.
    """
    from tqdm import tqdm

    paths = {md5: f"{version.path}/{path}" for path, md5 in files.items()} | {version.md5: version.path}
    findings: dict[str, str] = {}
    with ThreadPoolExecutor(version.storage.jobs) as pool:
        pending = {pool.submit(_store, version.storage, md5, cache, path): md5 for md5, path in paths.items()}
        try:
            for done in tqdm(as_completed(pending), total=len(pending), desc="fetch", unit="file", disable=None):
                finding = done.result()
                if finding is not None:
                    findings[pending[done]] = finding
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if findings:
        raise FetchError(_describe(version, {md5: (paths[md5], finding) for md5, finding in findings.items()}))


def _describe(version: DataVersion, findings: Mapping[str, tuple[str, str]]) -> str:
    """The line for lost and corrupted files. `dvc push` repairs a version only when its list is not on the remote."""
    storage = version.storage
    named = [
        f"{path} is {finding} ({storage.locate(md5)})"
        for md5, (path, finding) in sorted(findings.items(), key=lambda item: item[1])
    ]
    more = [f"and {len(named) - NAMED} more"] if len(named) > NAMED else []
    corrupted = "the corrupted objects and " if "corrupted" in (finding for _, finding in findings.values()) else ""
    return (
        f"{', '.join([*named[:NAMED], *more])}. To repair it, delete {corrupted}{storage.locate(version.md5)}, "
        "then run `dvc push` where the data are whole."
    )


def _store(storage: Storage, md5: str, cache: Path, path: str) -> str | None:
    """Brings one object to the cache; only verified content takes its name there.

    Returns what is wrong with it on the remote, if anything. Raises FetchError where the remote cannot be read.
    """
    target = _object(cache, md5)
    if _is_sound(target, md5):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, prefix=".fetch-", delete=False) as file:
        partial = Path(file.name)
    try:
        try:
            storage.download(md5, partial)
        except FileNotFoundError:
            return "missing"
        except Exception as error:
            raise _unreadable(path, storage, error) from error
        if not _is_sound(partial, md5):
            return "corrupted"
        partial.chmod(0o444)  # as DVC marks what it has verified
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return None


def _unreadable(path: str, storage: Storage, error: Exception) -> FetchError:
    """The error for anything else: network, server, credentials and disk each raise a family of their own."""
    return FetchError(
        f"{path}: cannot be fetched from {storage.url}: {first_line(error)}. Check the credentials, the endpoint, "
        "the network and the disk, then run the same command again."
    )


def _object(cache: Path, md5: str) -> Path:
    """Where a cache of DVC 3 holds the content of this hash."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _hash_files(folder: Path) -> dict[str, str]:
    """Files below the folder, none where there is no folder: relative path to md5."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.relative_to(folder).as_posix() for path in paths), pool.map(_hash, paths), strict=True))


def _is_sound(path: Path, md5: str) -> bool:
    return path.is_file() and _hash(path) == md5.removesuffix(".dir")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


if __name__ == "__main__":
    main()

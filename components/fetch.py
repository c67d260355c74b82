"""Step fetch: one raw version from a DVC remote, every file verified, without a clone of the repository."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from base.command_line import Parser
from components.cli import errors_in_one_line
from components.storage.dvc import (
    CorruptedError,
    DvcFile,
    FetchError,
    Hash,
    RawVersion,
    Revision,
    find_version,
    first_line,
    hash_file,
    is_sound,
    object_path,
)
from components.storage.locations import LOCATIONS, Location, local_output, scratch_for

NAMED = 3  # files that an error names; it counts the others


def fetch(
    source: DvcFile | Revision | Hash, out: Location, *, remote: str | None = None, cache: Path | None = None
) -> str:
    """Brings the raw version that `source` names to the folder `out`, which appears at once and whole, or not at all.

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
    objects = cache or scratch_for(out, "cache")
    wanted = list_files(version, objects)
    with local_output(out, replaces=lambda path: path.as_posix() in wanted) as folder:
        _fetch(version, wanted, folder, objects)
    return version.md5


def _fetch(version: RawVersion, wanted: Mapping[str, str], out: Path, cache: Path) -> None:
    from base.files import new_folder
    from xbd.importing.staging import link_or_copy

    present = _hash_files(out)
    if out.is_dir() and present == wanted:
        return
    for path, md5 in present.items():
        if not (cache / object_path(md5)).is_file():
            raise FetchError(
                f"{out / path}: is of no version in the cache {cache}: it was added, edited or damaged. Move it away, "
                "or choose another output folder."
            )
    with new_folder(out, lambda path: path.as_posix() in present) as folder:
        _fill_cache(version, wanted, cache)
        for path, md5 in wanted.items():
            link_or_copy(cache / object_path(md5), folder / path)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step; the only line on stdout is the version."""
    parser = Parser(prog="python -m components.fetch", description=__doc__, epilog=LOCATIONS)
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


def list_files(version: RawVersion, cache: Path) -> dict[str, str]:
    """Files of the version: path, relative to the data, to md5. DVC stores this of a folder as one more object, which
    is taken from the cache, a folder, if it is there. Raises FetchError.
    """
    cached = cache / object_path(version.md5)
    if not cached.exists() and version.files.protocol == "local" and not Path(version.root).is_dir():
        raise FetchError(f"remote {version.url}: is no folder here, expected a DVC remote. Correct the remote.")
    if not version.md5.endswith(".dir"):
        return {PurePosixPath(version.path).name: version.md5}
    try:
        content = cached.read_bytes() if is_sound(cached, version.md5) else version.read(version.md5)
    except FileNotFoundError as error:
        raise FetchError(
            f"{version.path}: raw version {version.md5} is not on {version.url} ({first_line(error)}). Correct the "
            "remote, or run `dvc push` where the data are whole."
        ) from error
    except CorruptedError as error:
        raise FetchError(
            f"{version.path}: the list of its files is corrupted on {version.url}. To repair it, delete "
            f"{version.locate(version.md5)}, then run `dvc push` where the data are whole."
        ) from error
    except Exception as error:
        raise _unreadable(version.path, version, error) from error
    try:
        files = {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError) as error:
        raise FetchError(
            f"{version.path}: {version.md5} on {version.url} is no list of files, expected one of DVC. Give the "
            "hash of a folder that DVC tracks."
        ) from error
    outside = [path for path in files if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts]
    if outside:
        raise FetchError(f"{version.path}: lists {outside[0]}, which is outside of it. Do not use this version.")
    return files


def _fill_cache(version: RawVersion, files: Mapping[str, str], cache: Path) -> None:
    """Makes every file of the version, and the list of them, a verified object of the cache.

    A lost or corrupted file does not keep the others from coming; anything else ends it.
    """
    from tqdm import tqdm

    made = () if cache.exists() else (cache,)
    paths = {md5: f"{version.path}/{path}" for path, md5 in files.items()} | {version.md5: version.path}
    with ThreadPoolExecutor(version.files.jobs) as pool:
        stored = pool.map(partial(_store, version, cache), paths, paths.values())
        seen = zip(tqdm(stored, "fetch", len(paths), unit="file", disable=None), paths.items(), strict=True)
        findings = sorted((path, finding, version.locate(md5)) for finding, (md5, path) in seen if finding)
    if not findings:
        return
    for path in (cache / object_path(md5) for md5 in paths):  # folders that were made for what did not come
        with suppress(OSError):  # the first that holds something ends it
            for folder in (*path.parents[:3], *made):
                folder.rmdir()
    named = [f"{path} is {finding} ({url})" for path, finding, url in findings[:NAMED]]
    more = [f"and {len(findings) - NAMED} more"] if len(findings) > NAMED else []
    corrupted = "the corrupted objects and " if "corrupted" in (finding for _, finding, _ in findings) else ""
    raise FetchError(  # `dvc push` repairs a version only when its list is not on the remote
        f"{', '.join(named + more)}. To repair it, delete {corrupted}{version.locate(version.md5)}, then run "
        "`dvc push` where the data are whole."
    )


def _store(version: RawVersion, cache: Path, md5: str, path: str) -> str | None:
    """Brings one object to the cache, where only verified content takes its name.

    Returns what is wrong with it on the remote, if anything. Raises FetchError where the remote cannot be read.
    """
    target = cache / object_path(md5)
    try:
        if not is_sound(target, md5):
            version.download(md5, target)
    except FileNotFoundError:
        return "missing"
    except CorruptedError:
        return "corrupted"
    except Exception as error:
        raise _unreadable(path, version, error) from error
    return None


def _unreadable(path: str, version: RawVersion, error: Exception) -> FetchError:
    """The error for anything else: network, server, credentials and disk each raise a family of their own."""
    return FetchError(
        f"{path}: cannot be fetched from {version.url}: {first_line(error)}. Check the credentials, the "
        "endpoint, the network and the disk, then run the same command again."
    )


def _hash_files(folder: Path) -> dict[str, str]:
    """Files below the folder, none where there is no folder: relative path to md5."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(hash_file, paths)
        return dict(zip((path.relative_to(folder).as_posix() for path in paths), hashes, strict=True))


if __name__ == "__main__":
    main()

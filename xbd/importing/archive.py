"""Imports the official xBD archives (train, tier3, test, hold), or a folder unpacked from them, as raw data.

Two passes over an archive: its SHA-1 is compared with the published one before any of it is unpacked, so that a bad
download costs a minute and no disk. What is unpacked then moves into the raw data when the archive came to its end
without complaint.
"""

import filecmp
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from base.errors import errors_name
from base.files import write_file
from xbd.importing.extraction import ArchiveError, layout_path, read_members
from xbd.importing.staging import gather, holds, link_or_copy, only_run, state_folder
from xbd.names import few, nearly_scene_files
from xbd.scenes import SOURCES

# Source: the download page of xview2.org.
OFFICIAL_SHA1 = {
    "train": "b37a4ef4ee9c909e2b19d046e49d42ee3965714b",
    "tier3": "5bf6aaf8a71980b633fb4661776a99a200891de5",
    "test": "86ed3dba2f8d16ceceb75d451005054fefa9616f",
    "hold": "fe7f162f0895bfaff134cab3abc23872f38d17da",
}
# Browsers save the official .tar.gz under all of these names.
ENDINGS = (".tar.gz", ".tgz", ".tar")
CHUNK = 2**20  # bytes hashed at a time


@dataclass(frozen=True)
class Imported:
    """What came out of an archive or folder.

    sha1: None for a folder. size and modified: of the archive, in bytes and in nanoseconds since 1970; they tell
    whether it is still the same file. skipped: number of files that are not of the layout. misnamed: those of them that
    look like images or labels. files: path in the raw data to size in bytes.
    """

    name: str
    sha1: str | None
    size: int
    modified: int
    skipped: int
    misnamed: list[str]
    files: dict[str, int]

    @property
    def check(self) -> str:
        """How far the source is known to be the published one."""
        return next((f"official {split}" for split, sha1 in OFFICIAL_SHA1.items() if sha1 == self.sha1), "not verified")

    def stands_in(self, out: Path) -> bool:
        """Whether every file is there in its size."""
        return all((out / path).is_file() and (out / path).stat().st_size == size for path, size in self.files.items())


def import_archives(sources: Sequence[Path], out: Path, *, verify: bool, tell: Callable[[str], None]) -> list[Imported]:
    """Imports archives, all archives of a folder, or a folder in the published layout, into the raw data folder `out`.

    An archive appears in `out` whole or not at all; a run that was killed goes on where it stood, and an archive that
    is there already is left alone. Files of `out` are never overwritten. A folder's files are linked, not copied, where
    the file system can. verify: refuse archives whose SHA-1 is not a published one; otherwise `tell` gets a warning.
    tell: takes lines for the user.
    Raises ArchiveError where a source cannot be imported, before anything of it is in `out`; OSError, with the file's
    name, where the disk is full or a folder cannot be read or written.
    """
    out = out.resolve()
    archives, folders = _find(sources)
    known = _read_records(state_folder(out))
    hashes = {archive: _sha1(archive, known) for archive in archives}
    for archive, sha1 in hashes.items():
        _verify(archive, sha1, verify, tell)
    with only_run(out) as state:
        done = [_import_archive(archive, sha1, out, state, tell) for archive, sha1 in hashes.items()]
        done += [_import_folder(folder, out, state) for folder in folders]
    for one in done:
        if one.misnamed:
            tell(
                f"warning: {one.name}: left out {len(one.misnamed)} files whose names are not of the layout "
                f"({few(one.misnamed)}), expected NAME_{{pre,post}}_disaster.png and .json. Convert or rename them."
            )
    return done


def _find(sources: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Archives and folders of the layout that the given paths mean, each once."""
    archives, folders = [], []
    for source in sources:
        if source.is_file():
            archives.append(source)
            continue
        if not source.is_dir():
            raise ArchiveError(f"{source}: does not exist. Expected an archive, or a folder with archives.")
        inside = sorted(path for path in source.iterdir() if path.name.endswith(ENDINGS) and path.is_file())
        unpacked = any((source / split / kind).is_dir() for split in SOURCES for kind in ("images", "labels"))
        if not inside and not unpacked:
            raise ArchiveError(
                f"{source}: holds no archive (*{', *'.join(ENDINGS)}) and no folder {', '.join(SOURCES)} with images "
                "and labels. Name the folder that holds either of them."
            )
        archives += inside
        folders += [source] if unpacked else []
    return _unique(archives), _unique(folders)


def _unique(paths: Sequence[Path]) -> list[Path]:
    return list({path.resolve(): path for path in paths}.values())


def _sha1(archive: Path, known: Sequence[Imported]) -> str:
    """SHA-1 of an archive; of one that was imported and did not change since, it is known."""
    found = archive.stat()
    for one in known:
        if one.sha1 and (one.name, one.size, one.modified) == (archive.name, found.st_size, found.st_mtime_ns):
            return one.sha1
    digest = hashlib.sha1(usedforsecurity=False)
    with errors_name(archive), archive.open("rb") as file, _bar(f"check {archive.name}", found.st_size) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _verify(archive: Path, sha1: str, verify: bool, tell: Callable[[str], None]) -> None:
    if sha1 in OFFICIAL_SHA1.values():
        return
    if verify:
        published = ", ".join(f"{split} {known}" for split, known in OFFICIAL_SHA1.items())
        raise ArchiveError(
            f"{archive}: its SHA-1 is {sha1}, expected one of {published}. Download it again from xview2.org, or pass "
            "--no-verify to import it as it is."
        )
    tell(f"warning: {archive}: NOT VERIFIED (--no-verify): its SHA-1 is {sha1}, not that of an official archive.")


def _import_archive(archive: Path, sha1: str, out: Path, state: Path, tell: Callable[[str], None]) -> Imported:
    for one in _read_records(state):
        if one.sha1 == sha1 and one.stands_in(out):
            tell(f"{archive}: is in {out} already, skipped.")
            return one
    found, files, skipped, folder = archive.stat(), dict[str, int](), list[str](), state / sha1
    with gather(folder, out), _bar(archive.name, found.st_size) as bar:
        for member in read_members(archive, folder, verified=sha1 in OFFICIAL_SHA1.values()):
            bar.update(member.position - bar.n)
            if member.path is None:
                skipped.append(member.name)
                continue
            files[member.path] = len(member.content)
            if holds(out / member.path, member.content):
                continue
            if (out / member.path).exists():
                raise _conflict(archive, out / member.path)
            if not holds(folder / member.path, member.content):  # what a killed run left is as good as new
                write_file(folder / member.path, member.content)
        if not files:
            misnamed = nearly_scene_files(skipped)
            raise ArchiveError(
                f"{archive}: holds no file such as train/images/NAME_pre_disaster.png"
                f"{f', but {few(misnamed)}' if misnamed else ''}. Take the archives of the challenge, which have PNG "
                "images, from xview2.org."
            )
    misnamed = nearly_scene_files(skipped)
    imported = Imported(archive.name, sha1, found.st_size, found.st_mtime_ns, len(skipped), misnamed, files)
    write_file(state / f"{sha1}.json", json.dumps(asdict(imported)))
    return imported


def _import_folder(source: Path, out: Path, state: Path) -> Imported:
    found = sorted(path for split in SOURCES for path in (source / split).glob("*/*") if path.is_file())
    paths = {path: layout_path(path.relative_to(source).as_posix()) for path in found}
    files = {name: path for path, name in paths.items() if name}
    if not files:
        misnamed = nearly_scene_files(path.name for path in found)
        raise ArchiveError(
            f"{source}: holds no file of the layout{f', but {few(misnamed)}' if misnamed else ''}. Expected images and "
            "labels as published."
        )
    folder = state / "folder"
    shutil.rmtree(folder, ignore_errors=True)  # of a killed run, maybe with another source; links are made in no time
    with gather(folder, out):
        for name, path in tqdm(files.items(), str(source), unit="file", disable=None):
            if not (out / name).exists():
                link_or_copy(path, folder / name)
            elif not path.samefile(out / name) and not filecmp.cmp(path, out / name, shallow=False):
                raise _conflict(source, out / name)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    misnamed = nearly_scene_files(path.name for path, name in paths.items() if not name)
    return Imported(str(source), None, sum(sizes.values()), 0, len(found) - len(files), misnamed, sizes)


def _conflict(source: Path, path: Path) -> ArchiveError:
    return ArchiveError(
        f"{source}: {path} is there with other content than in this source, expected nothing or the same. Nothing of "
        "this source was imported. Move the file away, or choose another --out."
    )


def _read_records(state: Path) -> list[Imported]:
    """What earlier runs imported; a record that is not readable only costs the time of importing again."""
    records = []
    for path in sorted(state.glob("*.json")):
        try:
            records.append(Imported(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError):
            continue
    return records


def _bar(title: str, total: int) -> tqdm:  # type: ignore[type-arg]
    return tqdm(desc=title, total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=None)

"""Reading a tar archive that may be damaged or hostile: its members come out one by one, checked, in memory.

Nothing is written here. What the caller gets is a path of the published layout, which leads nowhere else, and the whole
content; everything that such an archive can try ends in one ArchiveError.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from base.errors import InputError, errors_name
from xbd.names import IMAGE, LABEL, TARGET, scene_file
from xbd.scenes import SOURCES

# The largest image of xBD has about 2 MB, the largest archive (tier3) 17.3 GB and some 25,000 files.
MAX_MEMBER = 64 * 2**20  # bytes
MAX_ARCHIVE = 64 * 2**30  # bytes, unpacked
MAX_MEMBERS = 200_000
GZIP_MAGIC, BLOCK = b"\x1f\x8b", 512

_ENDINGS = {"images": IMAGE, "labels": LABEL, "targets": TARGET}


class ArchiveError(InputError):
    """An archive or folder that cannot be imported; names file and member, finding, expectation and remedy."""


@dataclass(frozen=True)
class Member:
    """A regular file of an archive.

    name: in the archive. path: where it belongs, such as train/images/NAME.png; None for files that are not of the
    layout (their content is not read). position: bytes of the archive read so far.
    """

    name: str
    path: str | None
    content: bytes
    position: int


def layout_path(name: str) -> str | None:
    """The path of the published layout that a member's name means, or None; one leading folder is left out.

    >>> layout_path("./xbd/train/labels/palu-tsunami_00000012_post_disaster.json")
    'train/labels/palu-tsunami_00000012_post_disaster.json'
    """
    parts = [part for part in name.split("/") if part != "."]
    if len(parts) not in (3, 4):
        return None
    source, kind, file = parts[-3:]
    fitting = source in SOURCES and kind in _ENDINGS and scene_file(file, _ENDINGS[kind])
    return f"{source}/{kind}/{file}" if fitting else None


def read_members(archive: Path, folder: Path, *, verified: bool) -> Iterator[Member]:
    """The regular files of a tar archive, plain or gzipped, in its order.

    folder: where the caller puts the files; what would lead out of it is refused. verified: the archive's hash is
    known to be good. If it is not, the archive must also end as archives do, and the checksum at the end of a gzip file
    is checked.
    Raises ArchiveError for damage, for paths that lead elsewhere, links, devices and the like, a file that stands
    twice, and sizes beyond the limits above; OSError, with the archive's name, where it cannot be read.
    """
    remedy = "Nothing of it was imported. Download it again from xview2.org."
    with errors_name(archive), archive.open("rb") as file:
        packed = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        stream = _Forward(gzip.GzipFile(fileobj=file) if packed else file)
        try:
            # Mode "r:", because we unpack ourselves: tarfile would stop at the end of the tar and never come to gzip's
            # checksum, and would read headers of any size.
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                seen: set[str] = set()
                for number, found in enumerate(tar, start=1):
                    if number > MAX_MEMBERS:
                        raise tarfile.FilterError(f"{found.name!r} is beyond the limit of {MAX_MEMBERS} members")
                    member = _filter(found, folder)
                    if member.isdir():
                        continue
                    path = layout_path(member.name)
                    if path in seen:
                        raise tarfile.FilterError(f"{found.name!r} stands in it twice, expected once")
                    if path is not None:
                        seen.add(path)
                    opened = tar.extractfile(member) if path is not None else None
                    yield Member(member.name, path, opened.read() if opened else b"", file.tell())
            if not verified:
                stream.check_end()
        except tarfile.FilterError as error:
            raise ArchiveError(f"{archive}: member {error}. {remedy}") from error
        # The last two are what tarfile lets through of headers that make no sense, such as a long chain of long names.
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
            raise ArchiveError(f"{archive}: is truncated, damaged, or no tar archive ({error}). {remedy}") from error


def _filter(member: tarfile.TarInfo, folder: Path) -> tarfile.TarInfo:
    """What Python's filter "data" (PEP 706) makes of a member: an absolute name becomes one below the folder.

    Raises FilterError, whose text starts with the member's name in quotes, and so on one line, for what that filter
    refuses, and for links within the folder and sizes beyond the limit, which it lets pass.
    """
    try:
        filtered = tarfile.data_filter(member, str(folder))
    except (OSError, ValueError) as error:  # Python 3.11.13 and newer look it up on the disk
        raise tarfile.FilterError(f"{member.name!r} has a name that no file can have ({error})") from error
    if member.issym() or member.islnk():
        raise tarfile.FilterError(f"{member.name!r} is a link, expected files and folders")
    if not 0 <= member.size <= MAX_MEMBER:
        raise tarfile.FilterError(f"{member.name!r} claims {member.size} bytes, expected at most {MAX_MEMBER}")
    return filtered


class _Forward(io.RawIOBase):
    """Bytes read forward only and within limits, in the form that tarfile asks for."""

    def __init__(self, source: IO[bytes] | gzip.GzipFile) -> None:
        self._source, self._position, self._last = source, 0, b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        # tarfile reads the content of extended headers as large as they claim to be.
        if not 0 <= size <= MAX_MEMBER + BLOCK:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self._last = self._source.read(size)
        self._position += len(self._last)
        if self._position > MAX_ARCHIVE:
            raise tarfile.ReadError(f"it unpacks to more than {MAX_ARCHIVE} bytes")
        return self._last

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if position < self._position:
            raise tarfile.ReadError("a header points backwards")
        while self._position < position and self.read(min(position - self._position, MAX_MEMBER)):
            pass
        return self._position

    def check_end(self) -> None:
        """Reads to the end, where gzip's checksum stands. tarfile takes a damaged header for the end of the archive,
        while the end is a block of zeros, the last that it read.
        """
        if self._last != bytes(BLOCK):
            raise tarfile.ReadError("it does not end as an archive does")
        while self.read(MAX_MEMBER):
            pass

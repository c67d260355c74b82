"""Archives of strangers: what is read out of them, and that nothing else ever comes out."""

import gzip
import hashlib
import io
import random
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xbd.importing import extraction
from xbd.importing.extraction import ArchiveError, Member, layout_path, read_members

IMAGE = "train/images/palu-tsunami_00000012_pre_disaster.png"
LABEL = "tier3/labels/joplin-tornado_00000000_post_disaster.json"
TARGET = "hold/targets/socal-fire_00000031_post_disaster_target.png"


class Entry(NamedTuple):
    """What a test puts into an archive; size: what the header claims, if not the truth."""

    name: str
    content: bytes = b"content"
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    size: int | None = None


def pack(*entries: Entry) -> bytes:
    """A tar archive, with the headers as given: a true one, as far as the entries are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname = entry.kind, entry.link
            info.size = len(entry.content) if entry.kind == tarfile.REGTYPE else 0
            if entry.size is None:
                tar.addfile(info, io.BytesIO(entry.content))
            else:
                info.size = entry.size
                packed.write(info.tobuf(tarfile.GNU_FORMAT))
                tar.offset += tarfile.BLOCKSIZE
    return packed.getvalue()


def read(path: Path, content: bytes, *, verified: bool = False) -> dict[str | None, bytes]:
    path.write_bytes(content)
    return {member.path: member.content for member in read_members(path, path.parent / "out", verified=verified)}


def refusal(path: Path, content: bytes, *, verified: bool = False) -> str:
    with pytest.raises(ArchiveError) as caught:
        read(path, content, verified=verified)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        IMAGE,
        LABEL,
        TARGET,
        "test/labels/a_12345678_pre_disaster.json",
        "train/images/turkey_quake_00000012_pre_disaster.png",
        "train/images/şehir depremi_13_pre_disaster.png",
        "hold/labels/flood_7_post_disaster.json",
    ],
)
@pytest.mark.parametrize("prefix", ["", "./", "xbd/", "./train_images_labels_targets/"])
def test_a_file_of_the_published_layout_keeps_its_path_without_a_leading_folder(prefix: str, name: str) -> None:
    assert layout_path(prefix + name) == name


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "train/.DS_Store",
        "train/images/._palu-tsunami_00000012_pre_disaster.png",
        "train/images/palu-tsunami_00000012_pre_disaster.png.exe",
        "train/images/palu-tsunami_00000012_pre_disaster.json",
        "train/images/palu-tsunami_00000012_pre_disaster_target.png",
        "train/labels/palu-tsunami_00000012_pre_disaster.png",
        "train/targets/palu-tsunami_00000012_pre_disaster.png",
        "train/images/palu-tsunami_00000012_pre_disaster.png\n",
        "train/images/palu\ntsunami_00000012_pre_disaster.png",
        "train/images/palu\\tsunami_00000012_pre_disaster.png",
        "train/images/_pre_disaster.png",
        "train/images/palu-tsunami_00000012_pre_disaster.PNG",
        "training/images/palu-tsunami_00000012_pre_disaster.png",
        "images/palu-tsunami_00000012_pre_disaster.png",
        "a/b/train/images/palu-tsunami_00000012_pre_disaster.png",
        "train/images/more/palu-tsunami_00000012_pre_disaster.png",
    ],
)
def test_any_other_file_is_named_and_not_read(name: str, tmp_path: Path) -> None:
    assert layout_path(name) is None
    assert read(tmp_path / "a.tar", pack(Entry(name), Entry(IMAGE, b"image"))) == {None: b"", IMAGE: b"image"}


@given(st.text() | st.from_regex(r"(\.\./|/|\./|[a-z]{1,3}/)*(train|hold)/images/[a-z./]*_0{8}_pre_disaster\.png"))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    path = layout_path(name)
    if path is not None:
        parts = PurePosixPath(path).parts
        assert len(parts) == 3
        assert parts[0] in ("train", "tier3", "test", "hold")
        assert parts[1] in ("images", "labels", "targets")
        assert parts[2].isprintable() and not parts[2].startswith(".") and "\\" not in parts[2]
        assert name.endswith(path)


@pytest.mark.parametrize("packing", [bytes, gzip.compress])
def test_members_come_out_whole_in_the_order_of_the_archive(packing: type[bytes], tmp_path: Path) -> None:
    entries = [
        Entry("train", kind=tarfile.DIRTYPE),
        Entry("./" + IMAGE, b"\x89PNG" * 1000),
        Entry("readme.txt", b"r" * 5000),
        Entry("./" + LABEL, b""),
        Entry("./" + TARGET, b"t" * 512),
    ]
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(packing(pack(*entries)))
    members = list(read_members(archive, tmp_path / "out", verified=False))
    assert [member.path for member in members] == [IMAGE, None, LABEL, TARGET]
    assert [member.content for member in members] == [b"\x89PNG" * 1000, b"", b"", b"t" * 512]
    assert all(0 < member.position <= archive.stat().st_size for member in members)
    assert [member.position for member in members] == sorted(member.position for member in members)


def test_several_gzip_streams_in_a_row_are_one_archive(tmp_path: Path) -> None:
    """As parallel gzip writes them."""
    packed = pack(Entry(IMAGE, b"a" * 3000), Entry(LABEL, b"b"))
    content = gzip.compress(packed[:1500]) + gzip.compress(packed[1500:])
    assert read(tmp_path / "a.tar.gz", content) == {IMAGE: b"a" * 3000, LABEL: b"b"}


@pytest.mark.parametrize(
    ("entry", "finding"),
    [
        (Entry("../evil.png"), "outside the destination"),
        (Entry("train/images/../../../evil.png"), "outside the destination"),
        (Entry("two\nlines/../../x"), "outside the destination"),
        (Entry("../outside", kind=tarfile.DIRTYPE), "outside the destination"),
        (Entry(IMAGE, kind=tarfile.SYMTYPE, link="/etc/passwd"), "is a link"),
        (Entry(IMAGE, kind=tarfile.SYMTYPE, link="../../../../etc/passwd"), "outside the destination"),
        (Entry(IMAGE, kind=tarfile.SYMTYPE, link="other.png"), "is a link"),
        (Entry("train", kind=tarfile.SYMTYPE, link="."), "is a link"),
        (Entry(IMAGE, kind=tarfile.LNKTYPE, link=LABEL), "is a link"),
        (Entry(IMAGE, kind=tarfile.LNKTYPE, link="/etc/passwd"), "is a link"),
        (Entry(IMAGE, kind=tarfile.CHRTYPE), "is a special file"),
        (Entry("README", kind=tarfile.BLKTYPE), "is a special file"),
        (Entry(IMAGE, kind=tarfile.FIFOTYPE), "is a special file"),
        (Entry(IMAGE, size=10**15), "claims 1000000000000000 bytes"),
        (Entry("README", size=64 * 2**20 + 1), "claims 67108865 bytes"),
        (Entry(IMAGE, size=-512), "claims -512 bytes"),
    ],
)
@pytest.mark.parametrize("verified", [False, True])
def test_members_that_no_archive_of_xbd_has_are_refused(
    entry: Entry, finding: str, verified: bool, tmp_path: Path
) -> None:
    message = refusal(tmp_path / "evil.tar.gz", gzip.compress(pack(Entry(LABEL), entry)), verified=verified)
    assert message.startswith(f"{tmp_path / 'evil.tar.gz'}: member {entry.name!r} ")
    assert finding in message


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/etc/evil", None),
        ("/" + IMAGE, IMAGE),
        ("//" + IMAGE, IMAGE),
        ("x/../" + IMAGE, None),
        ("train/images/../../inside.png", None),
        ("two\nlines/../x", None),
    ],
)
def test_absolute_names_lie_below_the_folder_and_detours_are_not_of_the_layout(
    name: str, path: str | None, tmp_path: Path
) -> None:
    assert read(tmp_path / "a.tar", pack(Entry(name))) == {path: b"content" if path else b""}


def test_a_name_longer_than_any_path_is_refused_or_not_of_the_layout(tmp_path: Path) -> None:
    """Pythons from 3.11.13 on look the path up on the disk, which fails; those before take the name as it is."""
    assert members(tmp_path / "a.tar", pack(Entry("long/" * 1000 + "x"))) in (None, [(None, b"")])


def test_a_file_that_stands_twice_is_refused_also_under_another_leading_folder(tmp_path: Path) -> None:
    for second in (IMAGE, f"./{IMAGE}", f"again/{IMAGE}"):
        message = refusal(tmp_path / "a.tar", pack(Entry(IMAGE, b"one"), Entry(second, b"two")))
        assert f"member {second!r} stands in it twice" in message


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "MAX_ARCHIVE", 100_000)
    bomb = gzip.compress(pack(*(Entry(f"zeros{number}", bytes(20_000)) for number in range(10))))
    assert len(bomb) < 2_000
    assert "unpacks to more than 100000 bytes" in refusal(tmp_path / "bomb.tar.gz", bomb)
    padding = gzip.compress(pack(Entry(IMAGE)) + bytes(100_000))
    assert "unpacks to more than 100000 bytes" in refusal(tmp_path / "bomb.tar.gz", padding)


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "MAX_MEMBERS", 3)
    entries = [Entry(f"file{number}") for number in range(4)]
    assert read(tmp_path / "a.tar", pack(*entries[:3])) == {None: b""}
    assert "member 'file3' is beyond the limit of 3 members" in refusal(tmp_path / "a.tar", pack(*entries))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [10**12, -512])
def test_an_extended_header_of_absurd_size_is_refused_unread(kind: bytes, size: int, tmp_path: Path) -> None:
    content = pack(Entry(LABEL)).rstrip(b"\0")
    content += bytes(-len(content) % 512) + pack(Entry("header", kind=kind, size=size))
    assert f"a header claims {size} bytes" in refusal(tmp_path / "a.tar", content)


def test_an_endless_chain_of_long_names_is_refused(tmp_path: Path) -> None:
    long_name = pack(Entry("@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=4))[:512] + b"name".ljust(512, b"\0")
    assert "is truncated, damaged" in refusal(tmp_path / "a.tar", long_name * 5000)


@pytest.mark.parametrize(
    ("header", "finding"),
    [
        ({"GNU.sparse.map": "1,x"}, "is truncated, damaged"),
        ({"path": "train\0images"}, "has a name that no file can have"),
    ],
)
def test_headers_that_no_system_could_follow_are_refused(header: dict[str, str], finding: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("README")
        info.pax_headers = header
        tar.addfile(info)
    assert finding in refusal(tmp_path / "a.tar", packed.getvalue())


WHOLE = pack(Entry(IMAGE, random.Random(1).randbytes(2_000)), Entry("README"), Entry(LABEL, b"{}" * 300))
ZIPPED = gzip.compress(WHOLE, mtime=0)
DATA = len(WHOLE.rstrip(b"\0")) // 512 * 512 + 512  # up to the first block of zeros


def members(path: Path, content: bytes) -> list[tuple[str | None, bytes]] | None:
    """What an unverified archive holds, None where it is refused; any other error is the test's."""
    path.write_bytes(content)
    try:
        return [(member.path, member.content) for member in read_members(path, path.parent / "out", verified=False)]
    except ArchiveError as error:
        assert str(path) in str(error)
        return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive") / "a.tar.gz"


@given(st.integers(0, len(ZIPPED) - 1))
@example(0)
@example(len(ZIPPED) - 1)
@example(len(ZIPPED) - 8)  # the checksum
def test_a_gzip_file_cut_anywhere_is_refused(file: Path, length: int) -> None:
    assert members(file, ZIPPED) is not None
    assert members(file, ZIPPED[:length]) is None


@given(st.integers(0, DATA + 511))
@example(512)
@example(DATA)  # whole members, but no end
def test_a_tar_cut_anywhere_before_its_end_is_refused(file: Path, length: int) -> None:
    assert members(file, WHOLE[: DATA + 512]) is not None
    assert members(file, WHOLE[:length]) is None


@given(st.integers(0, len(ZIPPED) - 1), st.integers(1, 255))
def test_a_changed_byte_in_a_gzip_file_never_changes_what_comes_out(file: Path, place: int, change: int) -> None:
    damaged = bytearray(ZIPPED)
    damaged[place] ^= change
    assert members(file, bytes(damaged)) in (None, members(file, ZIPPED))


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_headers_of_any_bytes_end_in_one_error_or_in_safe_paths(
    file: Path, changes: list[tuple[int, int]], mend: bool
) -> None:
    """Changes within the first header, its checksum mended, reach the parts of the parser that others do not."""
    damaged = bytearray(WHOLE)
    for place, value in changes:
        damaged[place % 512 if mend else place] = value
    if mend:
        damaged[148:156] = b" " * 8
        damaged[148:156] = b"%06o\0 " % sum(damaged[:512])
    for path, _ in members(file, bytes(damaged)) or []:
        assert path is None or layout_path(path) == path


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(600), b"\x1f\x8bno gzip", bytes(100)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "is truncated, damaged, or no tar archive" in refusal(tmp_path / "a.tar.gz", content)


def test_bytes_behind_the_end_are_refused_unless_the_hash_says_that_they_belong_there(tmp_path: Path) -> None:
    content = gzip.compress(pack(Entry(IMAGE, b"image"))) + b"garbage"
    assert "Not a gzipped file" in refusal(tmp_path / "a.tar.gz", content)
    assert read(tmp_path / "a.tar.gz", content, verified=True) == {IMAGE: b"image"}


def test_an_archive_on_a_failing_disk_is_named(tmp_path: Path) -> None:
    """A process's memory at address 0 fails in read(), as a bad sector does, with an error that has no name."""
    (tmp_path / "a.tar").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(read_members(tmp_path / "a.tar", tmp_path / "out", verified=False))
    assert caught.value.filename == str(tmp_path / "a.tar")


def test_large_members_are_equal_to_what_was_packed(tmp_path: Path) -> None:
    """Larger than any buffer on the way, and none a multiple of the block."""
    contents = {
        f"train/images/a_{number:08}_pre_disaster.png": random.Random(number).randbytes(700_001 + number)
        for number in range(4)
    }
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found: list[Member] = list(read_members(archive, tmp_path / "out", verified=False))
    assert {str(one.path): hashlib.sha256(one.content).digest() for one in found} == {
        name: hashlib.sha256(content).digest() for name, content in contents.items()
    }

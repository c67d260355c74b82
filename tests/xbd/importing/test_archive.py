"""The import of archives: whole or not at all, whatever the archive is and whenever the run is killed."""

import errno
import fcntl
import hashlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import (
    ROOT,
    TEST_SCENES,
    TRAIN_SCENES,
    assert_one_line,
    environment,
    exit_line,
    tiny_buildings,
    tree,
    write_scene,
)
from xbd.importing import archive
from xbd.importing.__main__ import main
from xbd.importing.archive import OFFICIAL_SHA1, import_archives
from xbd.importing.extraction import ArchiveError
from xbd.scenes import SOURCES, find_raw_scenes

FLOOD = "train/images/tiny-flood_00000001_post_disaster.png"


def pack(folder: Path, path: Path, *members: str) -> Path:
    """A .tar.gz of the given members of a folder, all by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member in members or sorted(child.name for child in folder.iterdir()):
            tar.add(folder / member, member)
    return path


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def run(*arguments: str | Path, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """`python -m xbd.importing` in a process of its own."""
    command = [sys.executable, "-m", "xbd.importing", *map(str, arguments)]
    known = {"env": environment(), "capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(command, cwd=cwd, **(known | options))  # type: ignore[call-overload, no-any-return]


def silent(*sources: Path, out: Path) -> list[archive.Imported]:
    return import_archives(sources, out, verify=False, tell=lambda line: None)


def hidden(out: Path) -> set[str]:
    """What stands in the hidden folder beside the raw data."""
    return {path.name for path in (out.parent / f".{out.name}.import").iterdir()}


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the tiny raw data set."""
    return pack(raw, tmp_path_factory.mktemp("archive") / "tiny.tar.gz")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "xbd"


def test_the_published_hashes_are_known_for_every_split() -> None:
    assert sorted(OFFICIAL_SHA1) == sorted(SOURCES)
    assert len({value for value in OFFICIAL_SHA1.values() if len(bytes.fromhex(value)) == 20}) == 4


def test_the_command_imports_unverified_archives_loudly_and_ends_with_the_table(
    raw: Path, tmp_path: Path, out: Path
) -> None:
    downloads = tmp_path / "downloads"
    archives = [pack(raw, downloads / "a.tar.gz", "test"), pack(raw, downloads / "b.tgz", "train")]
    (downloads / "notes.txt").write_text("not an archive")
    result = run("--archives", downloads, "--out", "data/xbd", "--no-verify", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert tree(out) == tree(raw)
    warnings = result.stderr.splitlines()
    assert len(warnings) == 2
    for line, path in zip(warnings, archives, strict=True):
        assert line.startswith(f"warning: {path}: NOT VERIFIED")
        assert sha1(path) in line
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["a.tar.gz", "not", "verified", "12", "0"] in lines
    assert ["b.tgz", "not", "verified", "32", "0"] in lines
    assert ["train", "8", "8", "8", "8", "8", "8"] in lines
    assert ["test", "3", "3", "3", "3", "3", "3"] in lines
    assert ["dvc", "add", "data/xbd"] in lines
    assert result.stdout.splitlines()[-3:] == [
        "  dvc add data/xbd",
        "  dvc push",
        "  in params.yaml, data.root: data/xbd",
    ]


def test_archives_with_the_published_hash_are_imported_without_a_warning(
    raw: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = pack(raw, tmp_path / "train.tar.gz", "train"), pack(raw, tmp_path / "test.tar", "test")
    monkeypatch.setattr(archive, "OFFICIAL_SHA1", OFFICIAL_SHA1 | {"train": sha1(train), "test": sha1(test)})
    main(["--archives", str(train), str(test), "--out", str(out)])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert ["train.tar.gz", "official", "train", "32", "0"] in [line.split() for line in printed.out.splitlines()]
    assert tree(out) == tree(raw)
    assert len(find_raw_scenes(out)) == len(TRAIN_SCENES) + len(TEST_SCENES)


def test_an_archive_with_another_hash_is_refused_before_anything_is_made(whole: Path, tmp_path: Path) -> None:
    result = run("--archives", whole, "--out", "data/xbd", cwd=tmp_path)
    assert_one_line(result, str(whole), sha1(whole), "--no-verify", "xview2.org", *OFFICIAL_SHA1.values())
    assert list(tmp_path.iterdir()) == []


def test_one_bad_archive_of_several_stops_the_import_before_the_first(
    raw: Path, whole: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = pack(raw, tmp_path / "good.tar.gz", "train")
    monkeypatch.setattr(archive, "OFFICIAL_SHA1", OFFICIAL_SHA1 | {"train": sha1(good)})
    assert str(whole) in exit_line(main, "--archives", good, whole, "--out", out)
    assert not out.parent.exists()


def test_files_of_other_kinds_are_skipped_and_counted_and_nothing_else_is_made(raw: Path, out: Path) -> None:
    path = out.parent / "extra.tar.gz"
    pack(raw, path, "test")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(raw / "test", "xbd/test")
        for name in ("README", "xbd/test/.DS_Store", "xbd/test/images/._x.png", "xbd/test/images/run.sh"):
            tar.addfile(tarfile.TarInfo(name))
        empty = tarfile.TarInfo("xbd/empty")
        empty.type = tarfile.DIRTYPE
        tar.addfile(empty)
    (imported,) = silent(path, out=out)
    assert (len(imported.files), imported.skipped) == (12, 4)
    assert tree(out) == {name: content for name, content in tree(raw).items() if name.startswith("test/")}
    assert sorted(path.name for path in out.iterdir()) == ["test"]


NAMES = ("own-quake_00000001", "turkey_quake_00000012", "şehir-depremi_00000013", "flood_7")


@pytest.mark.parametrize("packed", [True, False])
def test_scenes_are_imported_by_any_name_that_prepare_takes(packed: bool, tmp_path: Path, out: Path) -> None:
    own = tmp_path / "own"
    for name in NAMES:
        write_scene(own, "test", name, tiny_buildings(name))
    silent(pack(own, tmp_path / "own.tar") if packed else own, out=out)
    assert tree(out) == tree(own)
    assert {scene.scene for scene in find_raw_scenes(out)} == set(NAMES)


@pytest.mark.parametrize("packed", [True, False])
def test_what_looks_like_an_image_and_is_left_out_is_named(packed: bool, raw: Path, tmp_path: Path, out: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(raw / "test", own / "test")
    (own / "test" / "images" / "._a_1_pre_disaster.png").touch()
    for name in ("b_1_pre_disaster.PNG", "b_1_post_disaster.jpg", "notes.txt"):
        (own / "test" / "images" / name).touch()
    lines: list[str] = []
    source = pack(own, tmp_path / "own.tar.gz") if packed else own
    (imported,) = import_archives([source], out, verify=False, tell=lines.append)
    assert (len(imported.files), imported.skipped) == (12, 4)
    assert lines[-1].endswith(
        "left out 2 files whose names are not of the layout (b_1_post_disaster.jpg, b_1_pre_disaster.PNG), expected "
        "NAME_{pre,post}_disaster.png and .json. Convert or rename them."
    )


def test_modes_and_owners_of_the_archive_are_not_taken_over(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "modes.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(FLOOD)
        info.mode, info.uid = 0o4777, 12345
        tar.addfile(info)
    silent(path, out=out)
    found = (out / FLOOD).stat()
    assert (found.st_mode & 0o7111, found.st_uid) == (0, os.getuid())


@pytest.mark.parametrize("fault", ["link", "truncated", "twice", "empty"])
def test_of_a_refused_archive_nothing_is_left_and_what_was_there_before_stays(
    fault: str, raw: Path, tmp_path: Path, out: Path
) -> None:
    silent(pack(raw, tmp_path / "test.tar.gz", "test"), out=out)
    before, before_hidden = tree(out), hidden(out)
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        if fault != "empty":
            tar.add(raw / "train", "train")
        if fault == "link":
            link = tarfile.TarInfo("train/images/evil_00000000_pre_disaster.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        if fault == "twice":
            tar.addfile(tarfile.TarInfo(FLOOD), io.BytesIO())
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    line = exit_line(main, "--archives", path, "--out", out, "--no-verify")
    assert line.startswith(f"ArchiveError: {path}")
    assert tree(out) == before
    assert hidden(out) == before_hidden


KILLER = """
import os, signal

at, partial, calls = {at}, {partial}, 0

def killing(move):
    def moved(source, target, **options):
        global calls
        calls += 1
        if calls == at:
            if partial:
                os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return move(source, target, **options)
    return moved

os.replace, os.rename = killing(os.replace), killing(os.rename)
"""
# Moves: .gitignore, every file of the tiny data set when it is written, the two splits, the record.
FILES = 4 * (len(TRAIN_SCENES) + len(TEST_SCENES))


@pytest.mark.parametrize(
    ("at", "partial"),
    [(2, False), (20, False), (20, True), (1 + FILES, True), (2 + FILES, False), (3 + FILES, False), (4 + FILES, True)],
)
def test_a_killed_import_goes_on_to_the_same_tree(
    at: int, partial: bool, raw: Path, whole: Path, tmp_path: Path, out: Path
) -> None:
    """Killed at its first file, between files, within a file (half of it written), between splits, before the record;
    the process kills itself, which is the one way to have it happen at these very moments.
    """
    (tmp_path / "sitecustomize.py").write_text(KILLER.format(at=at, partial=partial))
    killer = environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    command = ("--archives", whole, "--out", out, "--no-verify")
    assert run(*command, cwd=tmp_path, env=killer).returncode == -signal.SIGKILL
    staged = out.parent / ".xbd.import" / sha1(whole)
    kept = {path: path.stat() for path in staged.rglob("[!.]*.*")}  # not the half one, which is hidden
    if at <= 2 + FILES:
        assert not out.exists() or not any(out.iterdir())
        assert len(kept) == min(at - 2, FILES)
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert tree(out) == tree(raw)
    assert hidden(out) == {".gitignore", "lock", f"{sha1(whole)}.json"}
    for path, before in kept.items():
        after = (out / path.relative_to(staged)).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "written again"


def test_half_a_file_never_comes_into_the_raw_data(raw: Path, whole: Path, out: Path) -> None:
    """A run was killed within a file that came into the raw data another way before the next run."""
    shutil.copytree(raw / "train", out / "train")
    half = out.parent / ".xbd.import" / sha1(whole) / FLOOD
    half.parent.mkdir(parents=True)
    half.with_name(f".{half.name}.partial").write_bytes(b"half")
    silent(whole, out=out)
    assert tree(out) == tree(raw)


def test_an_archive_that_is_there_is_skipped_without_being_read(whole: Path, raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tar.gz"
    shutil.copy2(whole, path)
    command = ("--archives", path, "--out", "xbd", "--no-verify")
    first = run(*command, cwd=tmp_path)
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = run(*command, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert second.stderr.splitlines()[1:] == [f"{path}: is in {tmp_path / 'xbd'} already, skipped."]
    os.utime(path)
    assert_one_line(run("--archives", path, "--out", "xbd", cwd=tmp_path), sha1(path))
    assert tree(tmp_path / "xbd") == tree(raw)


def test_an_archive_under_another_name_is_known_by_its_hash(whole: Path, tmp_path: Path, out: Path) -> None:
    silent(whole, out=out)
    lines: list[str] = []
    shutil.copy(whole, tmp_path / "b.tar.gz")
    import_archives([tmp_path / "b.tar.gz"], out, verify=False, tell=lines.append)
    assert lines[1:] == [f"{tmp_path / 'b.tar.gz'}: is in {out} already, skipped."]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_file_that_was_lost_comes_back(damage: Callable[[Path], object], raw: Path, whole: Path, out: Path) -> None:
    """What is empty is gone, too, but it is the user's to remove: files that are there are never overwritten."""
    silent(whole, out=out)
    damage(out / FLOOD)
    if (out / FLOOD).exists():
        with pytest.raises(ArchiveError, match=r"with other content .* Move the file away"):
            silent(whole, out=out)
        (out / FLOOD).unlink()
    silent(whole, out=out)
    assert tree(out) == tree(raw)


def test_a_record_that_is_not_readable_only_costs_time(raw: Path, whole: Path, out: Path) -> None:
    silent(whole, out=out)
    record = out.parent / ".xbd.import" / f"{sha1(whole)}.json"
    for content in ("", "{", "[]", "{}", '{"name": 1}'):
        record.write_text(content)
        silent(whole, out=out)
        assert tree(out) == tree(raw)
        assert len(record.read_text()) > 1000


def test_archives_of_parts_of_a_split_are_merged(raw: Path, tmp_path: Path, out: Path) -> None:
    images = pack(raw, tmp_path / "images.tar.gz", "train/images", "test/images")
    labels = pack(raw, tmp_path / "labels.tar.gz", "train/labels", FLOOD, "test/labels")
    silent(images, labels, out=out)
    assert tree(out) == tree(raw)


def test_files_with_other_content_are_never_overwritten(raw: Path, tmp_path: Path, out: Path, whole: Path) -> None:
    other = out / FLOOD
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    line = exit_line(main, "--archives", whole, "--out", out, "--no-verify")
    assert f"{other} is there with other content" in line
    line = exit_line(main, "--archives", raw, "--out", out)
    assert f"{other} is there with other content" in line
    assert tree(out) == {FLOOD: b"mine"}


def test_an_unpacked_folder_is_linked(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "unpacked"
    write_scene(source, "tier3", "tiny-quake_00000001", tiny_buildings("a"))
    write_scene(source, "hold", "tiny-quake_00000002", tiny_buildings("b"))
    expected = tree(source)
    (source / "hold" / "images" / ".DS_Store").write_bytes(b"")
    (source / "hold" / "masks").mkdir()
    (source / "hold" / "masks" / "tiny-quake_00000002_post_disaster.png").write_bytes(b"")
    for _ in range(2):
        main(["--archives", str(source), "--out", str(out)])
        assert tree(out) == expected
        assert all((out / name).samefile(source / name) for name in expected)
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [str(source), "not", "verified", "8", "2"] in lines
        assert ["tier3", "1", "1", "1", "1", "1", "1"] in lines
        assert ["hold", "1", "1", "1", "1", "1", "1"] in lines
    assert hidden(out) == {".gitignore", "lock"}


def test_a_folder_on_another_file_system_is_copied(raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))

    monkeypatch.setattr(os, "link", refuse)
    silent(raw, out=out)
    assert tree(out) == tree(raw)
    assert not (out / FLOOD).samefile(raw / FLOOD)


def test_links_in_an_unpacked_folder_are_followed(raw: Path, tmp_path: Path, out: Path) -> None:
    """As DVC's cache makes them: a folder of links, or a link to a folder."""
    source = tmp_path / "linked"
    (source / "train").mkdir(parents=True)
    (source / "train" / "images").symlink_to(raw / "train" / "images")
    shutil.copytree(raw / "train" / "labels", source / "train" / "labels", copy_function=os.symlink)
    silent(source, out=out)
    assert tree(out) == {name: content for name, content in tree(raw).items() if name.startswith("train/")}
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_the_raw_data_itself_is_checked_and_left_alone(raw: Path, tmp_path: Path) -> None:
    out = shutil.copytree(raw, tmp_path / "xbd")
    (out / "notes.txt").write_text("mine")
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    result = run("--archives", "xbd", "--out", "xbd", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert ["train", "8", "8", "8", "8", "8", "8"] in [line.split() for line in result.stdout.splitlines()]
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before


def test_a_folder_may_hold_archives_and_unpacked_splits(raw: Path, tmp_path: Path, out: Path) -> None:
    shutil.copytree(raw / "train", tmp_path / "both" / "train")
    pack(raw, tmp_path / "both" / "test.tar.gz", "test")
    assert [one.name for one in silent(tmp_path / "both", tmp_path / "both", out=out)] == [
        "test.tar.gz",
        str(tmp_path / "both"),
    ]
    assert tree(out) == tree(raw)


def test_sources_without_data_are_named(raw: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "train" / "images").mkdir(parents=True)
    for source, finding in (
        (tmp_path / "nothing", "does not exist"),
        (tmp_path / "empty", "holds no archive"),
        (tmp_path / "hollow", "holds no file of the layout"),
        (raw / "train", "holds no archive"),
    ):
        line = exit_line(main, "--archives", source, "--out", out)
        assert line.startswith(f"ArchiveError: {source}: {finding}")
    assert not out.parent.exists()


def test_a_refused_import_leaves_no_hidden_folder_and_keeps_what_earlier_ones_remember(
    whole: Path, tmp_path: Path, out: Path
) -> None:
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"no archive")
    exit_line(main, "--archives", bad, "--out", out, "--no-verify")
    assert not out.parent.exists()
    silent(whole, out=out)
    before = hidden(out)
    exit_line(main, "--archives", bad, "--out", out, "--no-verify")
    assert hidden(out) == before


def test_a_full_disk_ends_in_one_line_and_the_next_run_goes_on(
    raw: Path, whole: Path, tmp_path: Path, out: Path
) -> None:
    """The kernel refuses to let a file grow, in write(), whose error has no name."""
    largest = max(path.stat().st_size for path in raw.rglob("*.png"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, resource.RLIM_INFINITY))

    command = ("--archives", whole, "--out", out, "--no-verify")
    result = run(*command, cwd=tmp_path, preexec_fn=limit)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2  # the first is the warning
    assert result.stderr.splitlines()[1].startswith(f"OSError: {out.parent / '.xbd.import'}")
    assert "File too large" in result.stderr
    assert not out.exists()
    assert run(*command, cwd=tmp_path).returncode == 0
    assert tree(out) == tree(raw)


def test_two_imports_do_not_meet(whole: Path, out: Path) -> None:
    silent(whole, out=out)
    with (out.parent / ".xbd.import" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another import into it is running" in exit_line(main, "--archives", whole, "--out", out, "--no-verify")
    silent(whole, out=out)


def test_what_a_given_up_import_left_goes_away_with_the_next_one(raw: Path, tmp_path: Path, out: Path) -> None:
    left = out.parent / ".xbd.import" / ("0" * 40) / "train" / "images"
    left.mkdir(parents=True)
    (left / "x.png").write_bytes(b"half")
    (out.parent / ".xbd.import" / f".{'0' * 40}.json.partial").write_bytes(b"half")
    silent(raw, out=out)
    assert hidden(out) == {".gitignore", "lock"}
    assert tree(out) == tree(raw)


@pytest.mark.parametrize("kind", ["file", "folder is a file"])
def test_an_output_that_is_no_folder_is_named(kind: str, whole: Path, out: Path) -> None:
    path = out if kind == "file" else out.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert str(path) in exit_line(main, "--archives", whole, "--out", out, "--no-verify")


def test_an_output_that_is_a_mount_point_is_refused_before_the_work(
    whole: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounting needs rights that a test has not; the number of the file system is what a mount point differs in."""
    out.mkdir(parents=True)
    stat = Path.stat

    def mounted(path: Path, **options: bool) -> os.stat_result:
        found = list(stat(path, **options))
        return os.stat_result([*found[:2], found[2] + (path == out), *found[3:]])

    monkeypatch.setattr(Path, "stat", mounted)
    line = exit_line(main, "--archives", whole, "--out", out, "--no-verify")
    assert (
        line
        == f"StagingError: {out}: is a file system of its own, nothing can be moved there. Name a folder inside it."
    )
    assert list(out.iterdir()) == []


def test_the_raw_data_may_be_a_link_to_a_larger_disk(raw: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "xbd").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "xbd")
    silent(whole, out=tmp_path / "link")
    assert tree(tmp_path / "disk" / "xbd") == tree(raw)
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link"}


def test_git_sees_nothing_of_what_the_import_remembers(whole: Path, tmp_path: Path, out: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    silent(whole, out=out)
    status = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True)
    assert status.stdout
    assert all(line.startswith("?? data/xbd/") for line in status.stdout.splitlines())


def test_help_answers_without_a_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom xbd.importing.__main__ import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint(*{'torch', 'mlflow', 'albumentations', 'pandas', 'dvc'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "usage: python -m xbd.importing [" in result.stdout
    assert result.stdout.splitlines()[-1] == ""

"""The import of archives: whole or not at all, whatever the archive is and whenever the run is killed."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import (
    TEST_SCENES,
    TRAIN_SCENES,
    assert_one_line,
    environment,
    exit_line,
    tiny_buildings,
    tree,
    write_scene,
)
from tests.xbd.importing.packed import FLOOD, hidden, pack, run, sha1, silent
from xbd.importing import archive
from xbd.importing.__main__ import main
from xbd.importing.archive import OFFICIAL_SHA1, import_archives
from xbd.scenes import SOURCES, find_raw_scenes


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

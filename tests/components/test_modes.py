"""What the steps write has the mode that the umask gives, so that another account can use it, or cannot."""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import succeed_here
from tests.imagery.geotiff import noise, write_tif
from tests.scenes import TEST_SCENES
from tests.servers.mlflow_server import using
from tests.tiny import write_params
from xbd.importing.archive import import_archives


@pytest.fixture(params=[0o022, 0o002, 0o027], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def odd(folder: Path, umask: int) -> dict[str, str]:
    """Modes of the files and folders that are not what the umask gives, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        usual = (0o777 if path.is_dir() else 0o666) & ~umask
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != usual:
            found[str(path.relative_to(folder))] = f"{stat.S_IMODE(path.stat().st_mode):04o}"
    return found


@pytest.mark.endurance
@pytest.mark.parametrize("umask", [0o002, 0o027], indirect=True)  # one that narrows too little, one that does too much
def test_every_step_writes_files_of_the_usual_mode(
    umask: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    write_params(work / "params.yaml", {"train": {"epochs": 1, "validate_every": 1}, "sample": {"train": 1, "test": 1}})
    params = ["--params", "params.yaml"]
    data, found = ["--data", "prepared"], ["--model", "train/model", "--run", "train/run.json"]
    for name in ("pre", "post"):
        write_tif(tmp_path / f"{name}.tif", noise(64, 64, 1).repeat(2, axis=1).repeat(2, axis=2))
    with using(f"sqlite:///{work}/mlflow.db"):
        succeed_here("sample", *params, "--out", "sample")
        succeed_here("prepare", *params, "--raw", raw, "--out", "prepared")
        succeed_here("train", *params, *data, "--out", "train")
        results = ["--out", "evaluate", "--submission", "submission", "--history", "train/history.csv"]
        succeed_here("evaluate", *params, *data, *found, *results)
        succeed_here("register", *params, *found, "--metrics", "evaluate/metrics.json", "--out", "register")
        succeed_here("promote", *params, *data)
        images = ["--images", str(raw / "test" / "images")]
        succeed_here("predict", "--model", "models:/tiny@production", *images, "--out", "masks")
        pair = ["--pre", str(tmp_path / "pre.tif"), "--post", str(tmp_path / "post.tif")]
        succeed_here("predict", "--model", "train/model", *pair, "--out", "map", "--workers", "0")
    made = {path.relative_to(work).parts[0] for path in work.rglob("*")}
    assert made >= {"mlflow.db", "mlruns", "sample", "prepared", "train", "evaluate", "submission", "masks", "map"}
    assert odd(work, umask) == {}


def test_an_import_gives_files_the_usual_mode_whatever_the_archive_says(umask: int, raw: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "test.tar", "w") as tar:
        for path in sorted((raw / "test").rglob(f"{TEST_SCENES[0]}*")):
            info = tar.gettarinfo(path, path.relative_to(raw).as_posix())
            info.mode = 0o600
            with path.open("rb") as file:
                tar.addfile(info, file)
    (tmp_path / "work").mkdir()
    import_archives([tmp_path / "test.tar"], tmp_path / "work" / "xbd", verify=False, tell=lambda line: None)
    assert len(list((tmp_path / "work" / "xbd").rglob("*.png"))) == 2
    assert odd(tmp_path / "work", umask) == {}

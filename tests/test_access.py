"""A file of another account is told apart from one that is missing or damaged, wherever something is read."""

import getpass
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import pytest
import shapely
import torch

from base.errors import InputError, errors_in_one_line
from base.files import refuse_no_folder, write_file
from base.images import read_image
from components.evaluate import _find_history
from components.params import load_params
from components.register import read_metrics
from components.storage.dvc import DvcFile, find_version
from components.tracking import connection, registry, runs
from components.tracking.connection import AwayError, TrackingError
from imagery.read.file import open_raster
from imagery.read.vectors import read_polygons
from model.inference import load_model, read_origin
from model.train.checkpoint_folder import UnusableError, check_checkpoint, load_state
from model.weights import read_state
from tests.accounts import bound_by_modes
from tests.imagery.geotiff import noise, write_tif
from tests.model.train.checkpoint_states import IDENTITY, write
from tests.scenes import TEST_SCENES
from tests.servers.mlflow_server import using
from tests.stores import ready_store
from tests.tiny import write_params
from xbd.labels import read_label
from xbd.preparation import read_sources
from xbd.scenes import RawScene, open_scene, read_index

Read = Callable[[Path], Any]


def raw_scene(path: Path) -> Any:
    return read_sources(RawScene("test", TEST_SCENES[0], path.parents[2]))


def array(path: Path) -> Any:
    (record,) = (one for one in read_index(path.parents[1]) if one.scene == path.stem)
    return open_scene(path.parents[1], record)


READERS: dict[str, Read] = {
    "raw/test/images/SCENE_pre_disaster.png": raw_scene,
    "raw/test/labels/SCENE_post_disaster.json": read_label,
    "raw/test/images/SCENE_post_disaster.png": read_image,
    "prepared/index.csv": lambda path: read_index(path.parent),
    "prepared/scenes/SCENE.npy": array,
    "model/model.safetensors": lambda path: load_model(path.parent),
    "model/config.json": lambda path: read_origin(path.parent),
    "weight.pth": read_state,
    "pre.tif": lambda path: open_raster(path, ExitStack()),
    "areas.gpkg": read_polygons,
    "areas.geojson": read_polygons,
    "params.yaml": load_params,
    "metrics.json": read_metrics,
    "history.csv": _find_history,
    "run.json": runs.read_run,
    "xbd.dvc": lambda path: find_version(DvcFile(path), "/remote"),
}


@pytest.fixture
def files(raw: Path, prepared: Path, model: Path, tmp_path: Path) -> Path:
    """A folder with a file of each kind."""
    for name, folder in (("raw", raw), ("prepared", prepared)):
        for path in (path for path in folder.rglob("*") if path.is_file() and "journal" not in path.name):
            write_file(tmp_path / name / path.relative_to(folder), path.read_bytes())
    torch.save({"a": torch.zeros(3)}, tmp_path / "weight.pth")
    write_tif(tmp_path / "pre.tif", noise(8, 8, 1))
    frame = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    for name in ("areas.gpkg", "areas.geojson"):
        frame.to_file(tmp_path / name)
    write_params(tmp_path / "params.yaml")
    for name in ("metrics.json", "history.csv", "run.json", "xbd.dvc"):
        (tmp_path / name).write_text("epoch\n", encoding="utf-8")
    return tmp_path


def message(read: Read, path: Path) -> str:
    """With which a file is refused."""
    with bound_by_modes(), pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_says_so_and_whose_it_is(name: str, files: Path) -> None:
    read, path = READERS[name], files / name.replace("SCENE", TEST_SCENES[0])
    path.chmod(0o200)
    denied = "may not be read by this account: "
    expected = f"it has mode 0200, owner {getpass.getuser()}. Have its owner run: chmod a+r {path}"
    assert message(read, path) == denied + expected
    path.chmod(0o600)
    # The others lie beside what is read before them.
    if name.startswith("raw") or name in ("prepared/scenes/SCENE.npy", "model/config.json"):
        path.parent.chmod(0o600)
        found = message(read, path)
        path.parent.chmod(0o700)
        folder = f"the folder {path.parent} has mode 0600, owner {getpass.getuser()}"
        assert found == f"{denied}{folder}. Have its owner run: chmod a+x {path.parent}"


@pytest.mark.parametrize("name", [name for name in READERS if not name.startswith(("pre", "areas"))])
def test_a_folder_in_the_place_of_a_file_says_so(name: str, files: Path) -> None:
    path = files / name.replace("SCENE", TEST_SCENES[0])
    path.unlink()
    path.mkdir()
    assert message(READERS[name], path) == "is a folder, expected a file. Give the path of a file."


@pytest.mark.parametrize("name", ["state.pt", "checkpoint.json"])
def test_a_checkpoint_of_another_account_is_not_damaged(name: str, tmp_path: Path) -> None:
    write(tmp_path, 10)
    path = tmp_path / "step_00000010"
    (path / name).chmod(0)
    with bound_by_modes(), pytest.raises(UnusableError) as caught:
        load_state(path, check_checkpoint(path, json.loads(json.dumps(IDENTITY))))
    assert str(caught.value).startswith(f"{name} may not be read by this account: it has mode 0000, owner ")


def test_an_output_of_another_account_is_refused_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with bound_by_modes(), pytest.raises(InputError) as caught:
        refuse_no_folder(tmp_path / "new" / "folder")
    tmp_path.chmod(0o700)
    assert str(caught.value) == (
        f"{tmp_path}: may not be written by this account: it has mode 0500, owner {getpass.getuser()}. Have its owner "
        f"run: chmod a+wx {tmp_path}, or choose another output folder."
    )


def test_an_output_on_a_read_only_file_system_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in pods, whose own disk cannot be written to: there no mode helps."""
    status = SimpleNamespace(f_flag=os.statvfs(tmp_path).f_flag | os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda path: status)
    with pytest.raises(InputError) as caught:
        refuse_no_folder(tmp_path / "new")
    assert str(caught.value) == (
        f"{tmp_path}: may not be written by this account: its file system is mounted read-only. Have it mounted for "
        "writing, or choose another output folder."
    )


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [("file", 0o200, "file: may not be read by this account: it has mode 0200, owner "),
     ("file", 0o400, "file: may not be written by this account: it has mode 0400, owner "),
     (".", 0o500, "new: may not be written by this account: the folder ")],
)  # fmt: skip
def test_what_no_reader_expected_is_one_line_about_rights(name: str, mode: int, expected: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / name).chmod(mode)
    with bound_by_modes(), pytest.raises(SystemExit) as caught, errors_in_one_line():
        (tmp_path / ("file" if name == "file" else "new")).open("r+" if name == "file" else "w")
    tmp_path.chmod(0o700)
    assert str(caught.value.code).startswith(f"PermissionError: {tmp_path}/{expected}")


def test_a_store_of_another_account_is_named_with_the_root_of_the_error(tmp_path: Path) -> None:
    uri = ready_store(tmp_path)
    path = tmp_path / "mlflow.db"
    path.chmod(0o444)
    with using(uri), bound_by_modes(), pytest.raises(TrackingError) as caught:
        runs.open_run(tmp_path / "run.json", "of another", "data", "settings")
    assert not isinstance(caught.value, AwayError)  # to ask again is of no use
    assert str(caught.value) == (
        f"{path}: cannot be written (attempt to write a readonly database). It may not be written by this account: it "
        f"has mode 0444, owner {getpass.getuser()}. Have its owner run: chmod a+w {path}, or set MLFLOW_TRACKING_URI "
        "to a store of your own."
    )


def test_files_of_the_registry_that_belong_to_another_account_are_named(tmp_path: Path) -> None:
    """MLflow tells of them in the text of its own error alone, behind the first line."""
    write_file(tmp_path / "version" / "model.safetensors", b"weights")
    (tmp_path / "version" / "model.safetensors").chmod(0)
    with using(ready_store(tmp_path)):
        client = connection.client()
        client.create_registered_model("theirs")
        client.create_model_version("theirs", str(tmp_path / "version"))
        with bound_by_modes(), pytest.raises(TrackingError) as caught:
            registry.download_model("models:/theirs/1", tmp_path / "fetched")
    assert str(caught.value).startswith(
        f"models:/theirs/1: {tmp_path}/version/model.safetensors: may not be read by this account: it has mode 0000, "
    )


def test_a_run_of_another_account_is_not_waited_for(tmp_path: Path) -> None:
    with using(ready_store(tmp_path)):
        client = connection.client()
        client.create_experiment("theirs", (tmp_path / "files").as_uri())
        run = runs.open_run(tmp_path / "run.json", "theirs", "data", "settings")
        runs.finish_run(run)
        folder = next((tmp_path / "files").glob("*"), tmp_path / "files" / run.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o500)
        with bound_by_modes(), pytest.raises(TrackingError) as caught:
            runs.log_yaml(runs.read_run(tmp_path / "run.json"), {"a": 1}, "params.yaml")
        folder.chmod(0o700)
    assert "could not be given its params.yaml (Permission denied). " in str(caught.value)
    assert f"may not be written by this account: the folder {tmp_path}/files" in str(caught.value)

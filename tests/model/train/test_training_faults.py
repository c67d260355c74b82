"""What a run makes of faults: one line of all ranks for an error, and nothing lost while disk or storage fail."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from base.command_line import HUNG
from components.params import load_params
from model.inference import load_model
from model.settings import TrainSettings
from model.train.distributed import World
from model.train.run import RunError
from model.train.training import _batches, train
from tests.commands import environment
from tests.comparing import tree
from tests.components.storage.s3_objects import remote_tree
from tests.limits import files_up_to
from tests.model.train.test_distributed_training import launch, log_of, trainers, wait_for
from tests.servers.s3_server import S3Server
from tests.stores import ready_store
from tests.tiny import ALONE, few_layers, write_params
from tests.workers.forked_training import trained
from xbd.dataset import SceneCrops
from xbd.scenes import scene_path

PAIRS = {"global_batch_size": 4, "device_batch_size": 2, "validate_every": 0}


def lines_of(out: Path, kind: str) -> list[str]:
    return [line for line in log_of(out).read_text().splitlines() if line.startswith(f"{kind}: ")]


@pytest.mark.slow
def test_an_error_before_the_ranks_have_found_each_other_is_said_once(prepared: Path, tmp_path: Path) -> None:
    params, out = write_params(tmp_path / "params.yaml", {"train": PAIRS | {"epochs": -1}}), tmp_path / "out"
    assert launch(params, prepared, out).wait(120) == 1
    assert_said_once(out, "ParamsError", "epochs")


def assert_said_once(out: Path, kind: str, said: str) -> None:
    (line,) = lines_of(out, kind)
    assert said in line
    assert "Traceback" not in log_of(out).read_text()
    assert not (out / "model").exists()


@dataclass(frozen=True)
class Failed:
    """Trainings in two processes, each with an error: the folder of each, and the exit codes of its ranks. cut: the
    scene that one rank of "scene" meets.
    """

    folder: Path
    codes: dict[str, list[int]]
    cut: Path


@pytest.fixture(scope="module")
def failed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """All of them from one process, which imports once."""
    folder = tmp_path_factory.mktemp("failed")
    changes: dict[str, dict[str, Any]] = {
        "data": {"crops_per_scene": 1, "global_batch_size": 8},
        "loss": {"learning_rate": 1e30},
        "scene": {"crops_per_scene": 1},
    }
    params = {name: write_params(folder / f"{name}.yaml", {"train": PAIRS | changes[name]}) for name in changes}
    data = copytree(prepared, folder / "damaged")
    settings = load_params(params["scene"]).train
    scenes = SceneCrops(data, crops_per_scene=1)
    first = [
        {scenes.scene_of(i) for i in next(_batches(6, 1, settings, World(rank, 2, rank, torch.device("cpu"))))}
        for rank in (0, 1)
    ]
    cut = scene_path(data, min(first[1] - first[0]))
    cut.write_bytes(cut.read_bytes()[:1000])
    runs = [
        (log_of(folder / name), "--params", params[name], "--data", source, "--out", folder / name)
        for name, source in (("data", prepared), ("loss", prepared), ("scene", data))
    ]
    return Failed(folder, dict(zip(changes, trained(2, *runs, cwd=folder), strict=True)), cut)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [("data", "8 is more than the 6 crops of an epoch"), ("loss", "the loss is not finite in a pass with tiny-fl")],
)
def test_an_error_of_all_ranks_is_said_once(name: str, said: str, failed: Failed) -> None:
    assert failed.codes[name] == [1, 1]
    assert_said_once(failed.folder / name, "TrainingError", said)


@pytest.mark.slow
def test_an_error_of_one_rank_is_said_by_it(failed: Failed) -> None:
    assert failed.codes["scene"][1] == 1 and failed.codes["scene"][0] != 0
    (line,) = lines_of(failed.folder / "scene", "SceneError")
    assert line.startswith(f"SceneError: {failed.cut}: cannot be opened")


@pytest.mark.slow
def test_a_stopped_rank_ends_the_run_with_a_line_that_names_it(prepared: Path, tmp_path: Path) -> None:
    long = PAIRS | {"epochs": 400, "hang_timeout": 6}
    params, out = write_params(tmp_path / "params.yaml", {"train": long}), tmp_path / "out"
    process = launch(params, prepared, out)
    wait_for(out, process, "step_00000003")
    stopped = trainers(process)[1]
    os.kill(stopped, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while not lines_of(out, "TrainingError"):
        assert process.poll() is None and time.monotonic() < deadline, log_of(out).read_text()
        time.sleep(0.1)
    os.kill(stopped, signal.SIGCONT)  # a stopped process takes no SIGTERM; torchrun would wait 30 s, and kill it then
    assert process.wait(60) == HUNG
    (line,) = lines_of(out, "TrainingError")
    assert line.startswith(f"TrainingError: rank 1 of 2 on {socket.gethostname()}: not moved for 6 s, ")
    assert "goes on from the last checkpoint" in line


@pytest.mark.slow
@pytest.mark.endurance
def test_a_store_that_is_away_for_a_while_costs_a_run_nothing(prepared: Path, tmp_path: Path) -> None:
    changes = {"epochs": 6, "crops_per_scene": 4, "validate_every": 3, "keep_checkpoints": 9}
    params = write_params(tmp_path / "params.yaml", {"train": changes})
    server = S3Server(tmp_path / "objects")
    command = [sys.executable, "-m", "components.train", "--params", str(params), "--data", str(prepared), "--out"]
    train(prepared, tmp_path / "here", load_params(params).train, ALONE)
    uri = "s3://data/runs/away"
    try:
        server.start()
        settings = environment(**server.environment, DUAL_HRNET_CACHE=str(tmp_path / "cache"))
        work = tmp_path / "there"
        work.mkdir()
        ready_store(work)
        pipe = subprocess.PIPE
        with subprocess.Popen([*command, uri], cwd=work, env=settings, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("epoch 2/"):
                    break
            server.stop(signal.SIGKILL)
            assert process.poll() is None
            time.sleep(10)
            assert process.poll() is None  # the run waits with what it has not brought there
            server.start()
            _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        found = remote_tree(server, uri)
    finally:
        server.stop()
    expected = tree(tmp_path / "here")
    assert found.keys() == expected.keys() | {"run.json"}
    assert len([name for name in found if name.endswith("state.pt")]) == 6
    for name in ("model/model.safetensors", "model/config.json"):
        assert found[name] == expected[name]
    assert "Traceback" not in errors


@pytest.fixture
def settings(params_file: Path) -> TrainSettings:
    changes: dict[str, Any] = {"epochs": 3, "crops_per_scene": 1, "validate_every": 0}
    return dataclasses.replace(few_layers(load_params(params_file).train), **changes)


def test_a_checkpoint_folder_that_cannot_be_written_is_a_line_for_each_and_the_model_comes_all_the_same(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoints").write_text("in the way")
    kept = train(prepared, out, settings, ALONE)
    assert kept["epoch"] == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"{out}/checkpoints/step_{step:08}: not written" for step in (1, 2, 3)
    ]
    assert all("Training goes on; the last good checkpoint is none." in line for line in lines)
    train(prepared, tmp_path / "undisturbed", settings, ALONE)
    model, other = (load_model(folder / "model").state_dict() for folder in (out, tmp_path / "undisturbed"))
    assert all(torch.equal(model[name], tensor) for name, tensor in other.items())


def test_where_no_checkpoint_of_the_best_epoch_could_be_kept_the_run_ends_with_the_remedy(
    prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    settings = dataclasses.replace(settings, validate_every=1, epochs=1)
    with pytest.raises(RunError, match=r"checkpoints: holds no good checkpoint of the best epoch 1: .* Free the disk"):
        train(prepared, tmp_path, settings, ALONE)
    assert not (tmp_path / "model").exists()


def test_a_disk_that_was_full_for_a_while_costs_a_checkpoint_and_no_weight(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with ExitStack() as disk:
        disk.enter_context(files_up_to(65536))
        # The checkpoint of epoch 2 is under way then; that of epoch 1 was given up before it began.
        train(prepared, out, settings, ALONE, on_epoch=lambda record: disk.close() if record["epoch"] == 2 else None)
    said = capsys.readouterr().err
    assert said.startswith(f"{out}/checkpoints/step_00000001: not written (OSError: [Errno 27] File too large). Train")
    assert "step_00000003" not in said
    train(prepared, tmp_path / "undisturbed", settings, ALONE)
    weights = [folder / "model" / "model.safetensors" for folder in (out, tmp_path / "undisturbed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    train(prepared, out, settings, ALONE)
    assert f"resumed after epoch 3 of 3 from {out}/checkpoints/step_00000003\n" in capsys.readouterr().out

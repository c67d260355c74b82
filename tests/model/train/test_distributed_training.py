"""Training in many processes: through the real command line, with processes that are killed and asked to stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.commands import environment
from tests.comparing import read_csv
from tests.stores import ready_store
from tests.tiny import FEW_LAYERS, write_params
from tests.workers.forked_training import trained

# Longer than the launch of the processes, so that a fault comes while they train.
LONG = {
    "network": FEW_LAYERS,
    "epochs": 2,
    "crops_per_scene": 8,
    "device_batch_size": 2,
    "validate_every": 2,
    "checkpoint_every": 3,
}


def launch(params: Path, data: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Two processes that train into `out`; what they say goes to `out`.log."""
    command = [sys.executable, "-m", "components.launch", "--standalone", "--nproc-per-node=2", *options]
    command += ["-m", "components.train", "--params", str(params), "--data", str(data), "--out", str(out)]
    out.parent.mkdir(parents=True, exist_ok=True)
    ready_store(out.parent)
    with log_of(out).open("w") as log:
        return subprocess.Popen(
            command, cwd=out.parent, env=environment(), stdout=log, stderr=subprocess.STDOUT, text=True
        )


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def wait_for(out: Path, process: subprocess.Popen[str], step: str) -> None:
    """Returns when this checkpoint is on the disk."""
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / step / "checkpoint.json").exists():
        assert process.poll() is None, log_of(out).read_text()
        assert time.monotonic() < deadline, log_of(out).read_text()
        time.sleep(0.02)


def status_in_mlflow(out: Path) -> str:
    """Of the run that trained into `out`, in the store of its working directory."""
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))["run_id"]
    return str(MlflowClient(f"sqlite:///{out.parent}/mlflow.db").get_run(run).info.status)


def trainers(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the two ranks, in the order in which they were started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()][-2:]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_params(tmp_path_factory.mktemp("params") / "params.yaml", {"train": LONG})


@pytest.fixture(scope="module")
def undisturbed(params: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of two processes without any fault writes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    arguments = ("--params", params, "--data", prepared, "--out", out)
    assert trained(2, (log_of(out), *arguments), cwd=out.parent) == [[0, 0]], log_of(out).read_text()
    return out


def measured_apart(out: Path) -> list[dict[str, Any]]:
    measured = ("pairs_per_second", "data_wait_share", "checkpoint_pause", "peak_memory_gb")
    return [{key: value for key, value in row.items() if key not in measured} for row in read_csv(out / "history.csv")]


@pytest.mark.endurance
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_starts_the_group_anew_and_changes_no_bit(
    rank: int, params: Path, prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = launch(params, prepared, out, "--max-restarts=2")
    wait_for(out, process, "step_00000015")
    os.kill(trainers(process)[rank], signal.SIGKILL)
    assert process.wait(240) == 0, log_of(out).read_text()
    assert re.search(r"resumed after update \d+ of 12 of epoch 2 of 2", log_of(out).read_text())
    weights = [folder / "model" / "model.safetensors" for folder in (out, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert measured_apart(out) == measured_apart(undisturbed)


@pytest.mark.endurance
def test_a_preempted_run_writes_a_checkpoint_ends_with_143_and_goes_on(
    params: Path, prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = launch(params, prepared, out)
    wait_for(out, process, "step_00000015")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM, log_of(out).read_text()
    assert "asked to stop" in log_of(out).read_text()
    assert status_in_mlflow(out) == "KILLED"
    assert launch(params, prepared, out).wait(240) == 0, log_of(out).read_text()
    assert "resumed after" in log_of(out).read_text()
    assert status_in_mlflow(out) == "FINISHED"
    weights = [folder / "model" / "model.safetensors" for folder in (out, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

"""An outage of a real MLflow server, and the processes that live through it."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from components.tracking import runs
from tests.conftest import environment
from tests.servers.mlflow_server import MlflowServer

PARAMS = {"train": {"epochs": 5, "network": {"width": 4}}, "prepare": {"exclude": []}}
SENT_PARAMS = {"train.epochs": "5", "train.network.width": "4", "prepare.exclude": "[]"}
EPOCHS = 20  # of the real training, half a second each: more than it trains until the server is killed


# A training that reads the number of the next epoch from its stdin.
TRAINING = """
import sys
from pathlib import Path
from components.tracking import runs

run = runs.open_run(Path("run.json"), "outage", "data", "settings")
print("opened", flush=True)
for line in sys.stdin:
    runs.log_metrics(run, {"loss": 1 / int(line)}, int(line))
    print("logged", flush=True)
runs.log_yaml(run, {"a": 1}, "params.yaml")
runs.finish_run(run, patience=1)
print("finished", flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A process that ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Outage:
    """Three runs and one outage of their server.

    run: of this process; was_down: whether the server still was when all its calls had returned; err: what it printed.
    abandoned: a training that ended before the server came back, and the status of its run when it did.
    train: the step itself.
    """

    server: MlflowServer
    client: MlflowClient
    folder: Path
    run: runs.Run
    was_down: bool
    err: str
    abandoned: Ended
    abandoned_status: str
    train: Ended


def live_through(
    server: MlflowServer, folder: Path, abandoned: "Process", start_train: Callable[[], "Process"]
) -> Outage:
    """start_train: is called when all is ready, so that the training has not ended before the server does."""
    client = MlflowClient(server.uri)
    with redirect_stderr(io.StringIO()) as err:
        run = runs.open_run(folder / "here" / "run.json", "outage", "data", "settings")
        runs.log_params(run, {"train": PARAMS["train"]})
        log_epochs(run, 1, 2)
        assert run.outbox is not None
        assert run.outbox.drain(60)
        assert read_line(abandoned) == "opened"
        log_epoch_in(abandoned, 1)
        while points(client, run_id(folder / "run.json"), "loss") != losses(1):
            time.sleep(0.1)
        train = start_train()
        while not read_line(train).startswith("epoch 2/"):
            pass

        server.stop()
        log_epoch_in(abandoned, 2)
        abandoned_ended = wait(abandoned)
        log_epochs(run, 3, 4, 5)
        runs.log_params(run, PARAMS)
        runs.log_yaml(run, PARAMS, "params.yaml")
        history = folder / "history.csv"
        history.write_text("epoch\n5\n", encoding="utf-8")
        runs.log_file(run, history)
        history.unlink()
        runs.tag_run(run, {"place": "here"})
        was_down = server.process is None

        server.start()
        status = client.get_run(run_id(folder / "run.json")).info.status
        runs.finish_run(run)
    return Outage(server, client, folder, run, was_down, err.getvalue(), abandoned_ended, status, wait(train))


Process = subprocess.Popen[str]


def start(arguments: Sequence[str | Path], folder: Path, uri: str) -> Process:
    pipe, settings = subprocess.PIPE, environment(MLFLOW_TRACKING_URI=uri)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, env=settings, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def read_line(process: Process) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, wait(process).err
    return line.rstrip("\n")


def log_epoch_in(process: Process, epoch: int) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{epoch}\n")
    process.stdin.flush()
    assert read_line(process) == "logged"


def wait(process: Process) -> Ended:
    out, err = process.communicate()
    return Ended(process.returncode, out, err)


def run_id(run_file: Path) -> str:
    return str(json.loads(run_file.read_text(encoding="utf-8"))["run_id"])


def log_epochs(run: runs.Run, *epochs: int) -> None:
    for epoch in epochs:
        runs.log_metrics(run, {"loss": 1 / epoch, "epoch": epoch}, epoch)


def losses(last: int) -> list[tuple[int, float]]:
    return [(epoch, 1 / epoch) for epoch in range(1, last + 1)]


def points(client: MlflowClient, run: str, key: str) -> list[tuple[int, float]]:
    """Step and value of every point that the store has of a metric."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run, key))

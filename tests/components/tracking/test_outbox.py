"""Single faults of a store while a run is open: what is sent all the same, and how long the end of the run waits."""

import time
from pathlib import Path
from threading import Event

import pytest
from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from components.tracking import outbox, runs
from components.tracking.records import send
from tests.servers.fault_proxy import FaultProxy
from tests.servers.mlflow_server import MlflowServer, using


def losses(client: MlflowClient, run: runs.Run) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.run_id, "loss"))


def test_a_file_that_cannot_be_stored_does_not_hold_up_the_rest(
    mlflow_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAUSE", 0.1)
    (tmp_path / "no-folder").touch()
    client = MlflowClient(mlflow_store)
    client.create_experiment("no files", (tmp_path / "no-folder" / "files").as_uri())
    with using(mlflow_store):
        run = runs.open_run(tmp_path / "run.json", "no files", "data", "settings")
        runs.log_yaml(run, {"a": 1}, "params.yaml")
        for epoch in (1, 2):
            runs.log_metrics(run, {"loss": 1 / epoch}, epoch)
            time.sleep(0.3)
        runs.tag_run(run, {"place": "here"})
        runs.finish_run(run, patience=1)
    assert losses(client, run) == [(1, 1.0), (2, 0.5)]
    found = client.get_run(run.run_id)
    assert (found.data.tags["place"], found.info.status) == ("here", "RUNNING")
    began, ended = capsys.readouterr().err.splitlines()
    assert "did not take params.yaml (Not a directory)" in began
    assert f"run {run.run_id} of MLflow at {mlflow_store} lacks params.yaml (Not a directory)" in ended


def test_more_than_a_request_takes_is_sent_in_several_and_a_value_once(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    with using(mlflow_store):
        run = runs.open_run(tmp_path / "run.json", "many", "data", "settings")
        runs.finish_run(run)
        points = [Metric("loss", 1 / epoch, epoch, epoch) for epoch in range(1, 251)]
        again = [Metric("loss", 1 / epoch, epoch + 7, epoch) for epoch in range(1, 251)]
        send(run.run_id, [*points, *again])
        send(run.run_id, [*again, *(RunTag(f"t{number}", "x") for number in range(150))])
    assert losses(client, run) == [(epoch, 1 / epoch) for epoch in range(1, 251)]
    assert sum(key.startswith("t") for key in client.get_run(run.run_id).data.tags) >= 150


@pytest.mark.slow
def test_neither_training_nor_its_end_waits_for_a_server_that_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hanging, over = Event(), Event()

    def hang(data: bytes, _: int) -> bytes:
        if hanging.is_set():
            over.wait()
        return data

    server = MlflowServer(tmp_path / "server")
    server.start()
    proxy = FaultProxy(server.port, hang)
    try:
        with using(proxy.endpoint):
            run = runs.open_run(tmp_path / "run.json", "hanging", "data", "settings")
            hanging.set()
            began = time.monotonic()
            runs.log_metrics(run, {"loss": 1.0}, 1)
            assert time.monotonic() - began < 0.5
            runs.finish_run(run, patience=1)
            assert 1 <= time.monotonic() - began < 5  # a request alone would take ten seconds, twice
            assert "lacks metrics (no answer in time)" in capsys.readouterr().err.splitlines()[-1]
    finally:
        over.set()
        proxy.close()
        server.stop()

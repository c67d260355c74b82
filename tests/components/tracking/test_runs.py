"""Tracking through an outage of the MLflow server: what training, the run in MLflow and the terminal make of it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import yaml
from mlflow.tracking import MlflowClient

from components.tracking import runs
from components.tracking.connection import TrackingError
from tests.components.tracking.outage import (
    EPOCHS,
    PARAMS,
    SENT_PARAMS,
    TRAINING,
    Outage,
    Process,
    live_through,
    log_epochs,
    losses,
    points,
    run_id,
    start,
)
from tests.conftest import read_csv, write_params
from tests.servers.fault_proxy import FaultProxy
from tests.servers.mlflow_server import MlflowServer, using
from tests.servers.ports import free_port


@pytest.fixture(scope="module")
def outage(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """A server that was killed while three runs logged to it, and then started again."""
    folder = tmp_path_factory.mktemp("outage")
    server = MlflowServer(folder / "server")
    params = write_params(folder / "params.yaml", {"train": {"epochs": EPOCHS, "validate_every": 0}})
    step: list[str | Path] = ["-m", "components.train", "--params", params, "--data", prepared, "--out", "train"]
    processes: list[Process] = []

    def begin(arguments: list[str | Path]) -> Process:
        processes.append(start(arguments, folder, server.uri))
        return processes[-1]

    with using(server.uri, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.5"):
        try:
            server.start()
            yield live_through(server, folder, begin(["-c", TRAINING]), lambda: begin(step))
        finally:
            for process in processes:
                process.kill()
                process.communicate()
            server.stop()


def files(client: MlflowClient, run: str) -> list[str]:
    return sorted(entry.path for entry in client.list_artifacts(run))


@pytest.mark.endurance
def test_logging_returns_while_the_server_is_down(outage: Outage) -> None:
    assert outage.was_down


@pytest.mark.endurance
def test_what_was_logged_before_and_during_an_outage_is_in_the_run_once(outage: Outage, tmp_path: Path) -> None:
    run = outage.client.get_run(outage.run.run_id)
    assert points(outage.client, outage.run.run_id, "loss") == losses(5)
    assert points(outage.client, outage.run.run_id, "epoch") == [(epoch, epoch) for epoch in range(1, 6)]
    assert run.data.metrics["epoch"] == 5
    assert run.data.params == SENT_PARAMS
    assert run.data.tags["place"] == "here"
    assert run.data.tags["prepared_version"] == "data"
    assert run.info.status == "FINISHED"
    assert files(outage.client, outage.run.run_id) == ["history.csv", "params.yaml"]
    history = outage.client.download_artifacts(outage.run.run_id, "history.csv", str(tmp_path))
    assert Path(history).read_text(encoding="utf-8") == "epoch\n5\n"
    resolved = outage.client.download_artifacts(outage.run.run_id, "params.yaml", str(tmp_path))
    assert yaml.safe_load(Path(resolved).read_text(encoding="utf-8")) == PARAMS


@pytest.mark.endurance
def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(outage: Outage) -> None:
    began, ended = outage.err.splitlines()
    assert began.startswith(f"warning: MLflow at {outage.server.uri} did not take ")
    # The first request that fails may be one that was under way.
    why = (
        "Connection refused",
        "Connection reset by peer",
        "Remote end closed connection without response",
        "the answer broke off",
    )
    assert began.endswith(tuple(f"({each}); trying again in the background." for each in why))
    assert ended == f"MLflow at {outage.server.uri} answers again: everything is sent."


@pytest.mark.endurance
def test_system_metrics_go_on_through_an_outage(outage: Outage) -> None:
    found = points(outage.client, outage.run.run_id, "system/cpu_utilization_percentage")
    assert [step for step, _ in found] == list(range(len(found)))
    run = outage.client.get_run(outage.run.run_id)
    # Half a second a sample, from the first epoch until the server, which takes seconds to start, was back.
    assert len(found) > 6
    assert all(0 <= share <= 100 for _, share in found)
    assert {"system/system_memory_usage_percentage", "system/disk_usage_percentage"} <= set(run.data.metrics)


@pytest.mark.endurance
def test_train_goes_on_through_an_outage_and_nothing_is_missing_in_its_run(outage: Outage) -> None:
    assert outage.train.code == 0, outage.train.err
    assert "Traceback" not in outage.train.err
    began, ended = (line for line in outage.train.err.splitlines() if outage.server.uri in line)
    assert "did not take" in began
    assert ended.endswith("answers again: everything is sent.")
    run = run_id(outage.folder / "train" / "run.json")
    assert outage.client.get_run(run).info.status == "FINISHED"
    assert files(outage.client, run) == ["history.csv", "params.yaml"]
    history = read_csv(outage.folder / "train" / "history.csv")
    assert len(history) == EPOCHS
    for key in history[0]:
        assert points(outage.client, run, key) == [(int(line["epoch"]), float(line[key])) for line in history]


@pytest.mark.endurance
def test_a_server_that_stays_away_costs_a_warning_and_nothing_else(outage: Outage) -> None:
    abandoned = outage.abandoned
    assert (abandoned.code, abandoned.out) == (0, "finished\n")
    first, last = abandoned.err.splitlines()
    assert "did not take" in first
    run = run_id(outage.folder / "run.json")
    assert last.startswith(f"warning: run {run} of MLflow at {outage.server.uri} lacks metrics, params.yaml")
    assert "the same train command sends them all again" in last
    assert outage.abandoned_status == "RUNNING"


@pytest.mark.endurance
def test_the_same_command_again_continues_the_run_and_repeats_nothing(outage: Outage) -> None:
    path = outage.folder / "run.json"
    before = run_id(path)
    run = runs.open_run(path, "outage", "data", "settings")
    assert run.run_id == before
    runs.log_params(run, PARAMS)
    log_epochs(run, 1, 2, 3)  # as a resumed training does
    runs.finish_run(run)
    assert points(outage.client, before, "loss") == losses(3)
    assert outage.client.get_run(before).info.status == "FINISHED"

    again = runs.open_run(path, "outage", "data", "settings")
    runs.finish_run(again)
    assert again.run_id != before  # a finished run stays as it is


@pytest.mark.endurance
def test_a_run_that_someone_began_for_this_process_is_continued(outage: Outage, tmp_path: Path) -> None:
    """Kubeflow's MLflow plugin sets MLFLOW_RUN_ID."""
    experiment = outage.client.create_experiment("of the plugin")
    given_id = outage.client.create_run(experiment).info.run_id
    with using(outage.server.uri, MLFLOW_RUN_ID=given_id):
        run = runs.open_run(tmp_path / "run.json", "ignored", "data", "settings")
        log_epochs(run, 1)
        runs.finish_run(run)
        assert (run.run_id, run.experiment) == (given_id, "of the plugin")
        assert runs.read_run(tmp_path / "run.json") == run
        assert points(outage.client, given_id, "loss") == losses(1)
        assert outage.client.get_run(given_id).data.tags["prepared_version"] == "data"
    assert outage.client.get_experiment_by_name("ignored") is None


@pytest.mark.endurance
def test_a_given_run_that_is_not_there_is_one_line(outage: Outage, tmp_path: Path) -> None:
    with using(outage.server.uri, MLFLOW_RUN_ID="0" * 32), pytest.raises(TrackingError) as caught:
        runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    line = str(caught.value)
    assert outage.server.uri in line
    assert "0" * 32 in line
    assert "Unset MLFLOW_RUN_ID" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.endurance
def test_a_run_that_is_deleted_while_it_trains_ends_in_a_warning(
    outage: Outage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    outage.client.delete_run(run.run_id)
    log_epochs(run, 1, 2)
    runs.finish_run(run)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines if "does not take" in line] == [
        f"warning: MLflow at {outage.server.uri} does not take {what}" for what in ("metrics", "status")
    ]
    assert "lacks metrics, status" in lines[-1]

    following = runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    runs.finish_run(following)
    assert following.run_id != run.run_id


@pytest.mark.endurance
def test_a_continued_run_keeps_the_parameters_that_it_has(outage: Outage, tmp_path: Path) -> None:
    run = runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    runs.log_params(run, {"workers": 1})
    runs.log_params(run, {"workers": 2, **{f"p{number}": number for number in range(150)}})
    runs.finish_run(run)
    params = outage.client.get_run(run.run_id).data.params
    assert params == {"workers": "1", **{f"p{number}": str(number) for number in range(150)}}


@pytest.mark.endurance
def test_a_value_that_is_logged_again_is_one_point_and_another_value_a_second(outage: Outage, tmp_path: Path) -> None:
    runs.finish_run(runs.open_run(tmp_path / "run.json", "outage", "data", "settings"))
    run = runs.read_run(tmp_path / "run.json")  # as evaluate does
    for value in (0.5, 0.5, 0.25, 0.5, float("nan"), float("nan")):
        runs.log_metrics(run, {"test_score": value})
        time.sleep(0.002)  # MLflow tells points of one step apart by their millisecond
    history = sorted(outage.client.get_metric_history(run.run_id, "test_score"), key=lambda point: point.timestamp)
    assert [str(point.value) for point in history] == ["0.5", "0.25", "0.5", "nan"]


@pytest.mark.endurance
def test_what_arrived_but_was_not_confirmed_is_there_once(
    outage: Outage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost: list[bytes] = []
    losing = Event()

    def hang_up(data: bytes, _: int) -> bytes | None:
        if losing.is_set() and len(lost) < 2:  # the request itself, and MLflow's own second try
            lost.append(data)
            return None
        return data

    proxy = FaultProxy(outage.server.port, hang_up)
    with using(proxy.endpoint):
        run = runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
        log_epochs(run, 1)
        assert run.outbox is not None
        assert run.outbox.drain(30)
        losing.set()
        log_epochs(run, 2)
        runs.finish_run(run)
    proxy.close()
    assert [answer.split(b"\r\n")[0] for answer in lost] == 2 * [b"HTTP/1.1 200 OK"]
    assert "did not take metrics" in capsys.readouterr().err
    assert points(outage.client, run.run_id, "loss") == losses(2)


@pytest.mark.endurance
@pytest.mark.parametrize("enabled", ["true", "false"])
def test_system_metrics_can_be_switched_off(outage: Outage, tmp_path: Path, enabled: str) -> None:
    settings = {
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": enabled,
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.01",
    }
    with using(outage.server.uri, **settings):
        run = runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
        time.sleep(1)
        runs.finish_run(run)
    keys = outage.client.get_run(run.run_id).data.metrics
    assert any(key.startswith("system/") for key in keys) == (enabled == "true")


def test_an_experiment_that_another_run_makes_at_the_same_moment_is_taken(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MlflowClient(mlflow_store)
    made: list[str] = []
    found = MlflowClient.get_experiment_by_name

    def look(client: MlflowClient, name: str) -> object:
        """The first look finds none; then the other run has it."""
        if made:
            return found(client, name)
        made.append(store.create_experiment(name))
        return None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", look)
    with using(mlflow_store):
        run = runs.open_run(tmp_path / "run.json", "made at the same moment", "data", "settings")
        runs.finish_run(run)
    assert [store.get_run(run.run_id).info.experiment_id] == made


@pytest.mark.endurance
def test_a_plain_sqlite_store_takes_what_the_thread_sends(
    outage: Outage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it keeps files in the working directory
    with using(outage.server.database):
        run = runs.open_run(tmp_path / "run.json", "sqlite", "data", "settings")
        runs.log_params(run, PARAMS)
        log_epochs(run, *range(1, 21))
        runs.log_yaml(run, PARAMS, "params.yaml")
        runs.finish_run(run)
    assert points(outage.client, run.run_id, "loss") == losses(20)
    found = outage.client.get_run(run.run_id)
    assert (found.info.status, found.data.params) == ("FINISHED", SENT_PARAMS)
    assert files(outage.client, run.run_id) == ["params.yaml"]


def test_a_later_step_waits_for_the_server_and_then_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.2)
    monkeypatch.setattr(runs, "PAUSE", 0.1)
    run = runs.Run("0" * 32, "outage", "data", "settings")
    with using(f"http://127.0.0.1:{free_port()}"), pytest.raises(TrackingError) as caught:
        runs.log_metrics(run, {"test_score": 0.5})
    assert "could not be given its metrics (Connection refused)" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": 7},
        {"run_id": "a\nb"},
        {"run_id": "9" * 501},
        {"run_id": None},
        {"experiment": {}},
        {"settings_hash": ""},
    ],
)
def test_a_run_file_whose_identity_is_no_text_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(dict.fromkeys(runs.IDENTITY, "a") | change), encoding="utf-8")
    with pytest.raises(TrackingError, match=rf"run\.json: is not the run\.json of train .*{next(iter(change))} is"):
        runs.read_run(path)

"""Tasks of the graph while S3 or MLflow is away: Kubeflow does not start them again, so they wait, and say so once."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from base.patience import VARIABLE
from components.evaluate import evaluate
from components.kubeflow import tasks
from components.params import load_params
from components.promote import promote
from components.register import register
from components.storage.s3 import StorageError
from components.tracking import runs
from components.tracking.connection import AwayError
from tests.comparing import tree
from tests.components.kubeflow.outages import LONGEST, back, listening, s3_away, said, told
from tests.components.kubeflow.references import Reference
from tests.components.storage.s3_objects import put
from tests.servers.mlflow_server import MlflowServer, using
from tests.servers.s3_server import S3Server
from tests.tiny import prepare_params, write_params

__all__ = ["listening", "s3_away"]
pytestmark = pytest.mark.endurance
ROOT = "s3://data/runs"
METRICS = {
    "score": 0.5,
    "absent_grades": [],
    "prepared_version": "d1",
    "evaluate_settings": {"splits": ["test"]},
}


def push(server: S3Server, files: dict[str, bytes]) -> str:
    """Stores a version as `dvc push` does; returns its hash."""

    def store(content: bytes, ending: str = "") -> str:
        md5 = hashlib.md5(content).hexdigest() + ending
        put(server, f"s3://dvc/xbd/files/md5/{md5[:2]}/{md5[2:]}", content)
        return md5

    listed = [{"md5": store(content), "relpath": name} for name, content in sorted(files.items())]
    return store(json.dumps(listed).encode(), ".dir")


def test_fetch_waits_for_a_remote_that_is_away_when_it_begins(
    s3_away: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"train/images/a.png": b"a", "test/images/b.png": b"b"}
    version = push(s3_away, files)
    s3_away.stop()
    thread = back(s3_away.start)
    with tasks.task():
        found = tasks.fetch(version, "s3://dvc/xbd", str(tmp_path / "root"), Reference(str(tmp_path / "raw")))
    thread.join()
    assert found == ["train", "test"]
    assert tree(tmp_path / "root" / "raw" / version.removesuffix(".dir")) == files
    said(capsys, "DVC remote s3://dvc/xbd")


def test_fetch_goes_on_when_a_remote_is_back_that_went_in_the_middle(
    s3_away: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"train/images/{number:03}.png": os.urandom(200_000) for number in range(200)}
    version = push(s3_away, files)
    cache = tmp_path / "root" / "raw"
    stopped: list[int] = []

    def fail_in_the_middle() -> None:
        while (there := sum(1 for _ in cache.rglob("files/md5/*/*"))) < 20:
            time.sleep(0.005)
        s3_away.stop()
        stopped.append(there)
        told.wait(LONGEST)
        s3_away.start()

    told.clear()
    thread = threading.Thread(target=fail_in_the_middle)
    thread.start()
    with tasks.task():
        tasks.fetch(version, "s3://dvc/xbd", str(tmp_path / "root"), Reference(str(tmp_path / "raw")))
    thread.join()
    assert stopped[0] < len(files)
    assert tree(cache / version.removesuffix(".dir")) == files
    said(capsys, "DVC remote s3://dvc/xbd")


def test_prepare_waits_for_its_data(
    s3_away: S3Server, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in tree(raw).items():
        put(s3_away, f"{ROOT}/raw/{name}", content)
    s3_away.stop()
    thread = back(s3_away.start)
    given = Reference("", {"location": f"{ROOT}/raw", "version": "0" * 32})
    prepared = Reference(str(tmp_path / "prepared"))
    with tasks.task():
        tasks.prepare(given, "test", ROOT, {"prepare": prepare_params().model_dump()}, prepared)
    thread.join()
    assert prepared.metadata["scenes"] == 3
    assert f"{prepared.metadata['location']}\n" == (tmp_path / "prepared").read_text()
    said(capsys, f"S3 at {s3_away.endpoint}")


def test_evaluate_waits_for_its_scenes(
    s3_away: S3Server, prepared: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in tree(prepared).items():
        put(s3_away, f"{ROOT}/prepared/{name}", content)
    params = load_params(write_params(tmp_path / "params.yaml"))
    s3_away.stop()
    thread = back(s3_away.start)
    with tasks.task():
        metrics = evaluate([f"{ROOT}/prepared"], model, tmp_path / "scores", params)
    thread.join()
    assert metrics == evaluate([prepared], model, tmp_path / "same", params)
    said(capsys, f"S3 at {s3_away.endpoint}")


def test_people_are_told_at_once(s3_away: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a task around it, a server that never answered is more likely misnamed."""
    monkeypatch.delenv(VARIABLE)
    s3_away.stop()
    params = load_params(write_params(tmp_path / "params.yaml"))
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot be reached"):
        evaluate([f"{ROOT}/prepared"], tmp_path / "model", tmp_path / "scores", params)
    assert time.monotonic() - began < 30


@pytest.fixture
def mlflow_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    """A server that a test may stop, with a finished training of the settings in params.yaml."""
    server = MlflowServer(tmp_path / "mlflow")
    server.start()
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path / "params.yaml")
    with using(server.uri, **{VARIABLE: "120"}):
        runs.finish_run(runs.open_run(tmp_path / "run.json", "tiny", "data", "settings"))
        yield server
    server.stop()


def test_register_and_promote_wait_for_mlflow(
    mlflow_away: MlflowServer, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = load_params(tmp_path / "params.yaml")
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    client = MlflowClient(mlflow_away.uri)
    capsys.readouterr()

    mlflow_away.stop()
    thread = back(mlflow_away.start)
    with tasks.task():
        uri = register(model, tmp_path / "metrics.json", tmp_path / "run.json", tmp_path / "out", params)
    thread.join()
    assert uri == "models:/tiny/1"
    assert len(client.search_model_versions("name = 'tiny'")) == 1
    said(capsys, f"MLflow at {mlflow_away.uri}")

    mlflow_away.stop()
    thread = back(mlflow_away.start)
    with tasks.task():
        promote("tiny", params.promote, version=1)
    thread.join()
    assert client.get_model_version_by_alias("tiny", "production").version == "1"
    said(capsys, f"MLflow at {mlflow_away.uri}")


def test_a_version_is_made_once_though_its_answer_is_lost(
    mlflow_away: MlflowServer,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = load_params(tmp_path / "params.yaml")
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    create = MlflowClient.create_model_version
    threads: list[threading.Thread] = []

    def lose_the_answer(*given: Any, **named: Any) -> Any:
        made = create(*given, **named)
        if not threads:
            mlflow_away.stop()
            threads.append(back(mlflow_away.start))
            raise AwayError("the answer was lost")
        return made

    monkeypatch.setattr(MlflowClient, "create_model_version", lose_the_answer)
    with tasks.task():
        uri = register(model, tmp_path / "metrics.json", tmp_path / "run.json", tmp_path / "out", params)
    threads[0].join()
    assert uri == "models:/tiny/1"
    assert len(MlflowClient(mlflow_away.uri).search_model_versions("name = 'tiny'")) == 1


def test_a_patience_that_is_no_number_is_one_line(
    s3_away: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "long")
    with pytest.raises(SystemExit) as caught, tasks.task():
        evaluate([f"{ROOT}/prepared"], Path("model"), Path("scores"), load_params(Path("params.yaml")))
    assert caught.value.code == f"PatienceError: ${VARIABLE}: found 'long', expected seconds such as 600. Correct it."

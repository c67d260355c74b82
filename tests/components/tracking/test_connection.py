"""MLflow that is away, or is none: each step that needs it ends within seconds, with one line."""

import json
import socket
from contextlib import suppress
from http.client import parse_headers
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException

from components.tracking import connection, registry, runs
from components.tracking.connection import AwayError, TrackingError
from tests.conftest import assert_one_line, run_step
from tests.servers.mlflow_server import using
from tests.servers.ports import free_port


@pytest.mark.slow
def test_a_server_that_is_away_at_the_start_ends_train_with_one_line(
    prepared: Path, params_file: Path, tmp_path: Path
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    result = run_step(
        "train", "--params", params_file, "--data", prepared, "--out", "out", cwd=tmp_path, MLFLOW_TRACKING_URI=uri
    )
    assert_one_line(result, uri, "Connection refused", "Start its server or correct MLFLOW_TRACKING_URI")
    assert not (tmp_path / "out").exists()


def test_a_host_that_is_not_there_is_away(tmp_path: Path) -> None:
    with using("http://mlflow.invalid:5000"), pytest.raises(AwayError) as caught:
        runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    assert str(caught.value).startswith("http://mlflow.invalid:5000: MLflow does not answer there (")
    assert "HTTPConnectionPool" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_server_that_takes_requests_and_never_answers_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent, using(f"http://127.0.0.1:{silent.getsockname()[1]}"):
        with pytest.raises(AwayError, match="no answer in time"):
            runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    assert not list(tmp_path.iterdir())


def test_a_local_store_that_cannot_be_made_is_not_proposed_again(
    prepared: Path, params_file: Path, tmp_path: Path
) -> None:
    """As in the image, whose file system is read-only."""
    (tmp_path / "mlflow.db").mkdir()
    result = run_step("promote", "--params", params_file, "--data", prepared, cwd=tmp_path)
    assert_one_line(result, f"This is the file mlflow.db in {tmp_path}", "Set that to the address of a server")
    assert "Start its server" not in result.stderr


@pytest.mark.parametrize(
    ("uri", "finding"),
    [
        ("127.0.0.1:5000", "filesystem tracking backend"),
        ("ftp://127.0.0.1", "unsupported URI 'ftp://127.0.0.1'"),
        ("postgresql+nodriver://127.0.0.1/mlflow", "nodriver"),
    ],
)
def test_an_address_that_is_none_of_mlflow_is_one_line(tmp_path: Path, uri: str, finding: str) -> None:
    with using(uri), pytest.raises(TrackingError) as caught:
        runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(uri)
    assert finding in str(caught.value)
    assert "Correct MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("This is no database, but quite a long text.\n" * 100, encoding="utf-8")
    with using(f"sqlite:///{tmp_path / 'mlflow.db'}"), pytest.raises(AwayError, match="file is not a database"):
        runs.open_run(tmp_path / "run.json", "outage", "data", "settings")


@pytest.mark.parametrize("question", ["run", "version", "model"])
def test_nothing_is_called_unknown_by_a_server_that_is_away(tmp_path: Path, question: str) -> None:
    content = {"run_id": "0" * 32, "experiment": "outage", "prepared_version": "data", "settings_hash": "settings"}
    (tmp_path / "run.json").write_text(json.dumps(content), encoding="utf-8")
    with using(f"http://127.0.0.1:{free_port()}"), pytest.raises(AwayError, match="Connection refused"):
        if question == "run":
            runs.read_run(tmp_path / "run.json")
        elif question == "version":
            registry.find_version("tiny", alias="production")
        else:
            registry.download_model("models:/tiny@production")


def test_errors_do_not_print_a_password(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with using(f"http://user:secret@{address}"), pytest.raises(AwayError) as caught:
        runs.open_run(tmp_path / "run.json", "outage", "data", "settings")
    assert f"http://{address}: " in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["http://[secret", "postgresql://user@host:secret/mlflow", "http://user:sec/ret@host"])
def test_an_address_that_cannot_be_taken_apart_is_not_repeated(uri: str) -> None:
    with using(uri), pytest.raises(TrackingError, match=r"^MLFLOW_TRACKING_URI: its host or port") as caught:
        connection.reach()
    assert "sec" not in str(caught.value)


def test_mlflow_keeps_its_own_patience_outside_of_our_requests() -> None:
    retries: Any = MLFLOW_HTTP_REQUEST_MAX_RETRIES
    timeout: Any = MLFLOW_HTTP_REQUEST_TIMEOUT
    with using("http://127.0.0.1"):
        with connection.impatience():
            assert (retries.get(), timeout.get()) == (connection.RETRIES, connection.TIMEOUT)
        assert (retries.get(), timeout.get()) == (7, 120)
    with using("http://127.0.0.1", MLFLOW_HTTP_REQUEST_TIMEOUT="77"), connection.impatience():
        assert timeout.get() == 77  # the user's own setting goes before


CUT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"


@pytest.mark.parametrize(
    ("says", "reasons"),
    [
        (b"", ("Remote end closed connection without response", "Connection reset by peer")),
        (CUT, ("the answer broke off",)),
    ],
)
def test_a_server_that_hangs_up_has_a_reason_of_few_words(says: bytes, reasons: tuple[str, ...]) -> None:
    def hang_up(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                asked = server.accept()[0]
                if says:  # a close with something unread would be a reset
                    with asked.makefile("rb") as request:
                        request.readline()
                        request.read(int(parse_headers(request)["Content-Length"]))
                    asked.sendall(says)
                asked.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=hang_up, args=(server,), daemon=True).start()
        with using(f"http://127.0.0.1:{server.getsockname()[1]}"), connection.impatience():
            with pytest.raises(MlflowException) as caught:
                connection.client().search_experiments()
        server.shutdown(socket.SHUT_RDWR)
    assert connection.reason(caught.value) in reasons

"""What a whole run leaves behind: no credential in any of it, and nothing that executes code when it is loaded."""

import base64
import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
import torch

from tests.commands import exit_line, run_step, step_here
from tests.comparing import tree
from tests.components.storage.s3_objects import put, remote_tree
from tests.scenes import pair
from tests.servers.mlflow_server import MlflowServer, using
from tests.servers.s3_server import KEY, SECRET, S3Server
from tests.tiny import write_params

pytestmark = pytest.mark.endurance

USER, PASSWORD = "mapper", "planted-password-7f3a"
WRONG = "planted-wrong-secret-19c2"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()  # as HTTP carries them
CREDENTIALS = (KEY, SECRET, PASSWORD, BASIC)


def leaks(files: Mapping[str, bytes], credentials: tuple[str, ...] = CREDENTIALS) -> list[tuple[str, str]]:
    """Name of each file that holds a credential, and which."""
    return [(name, one) for name, content in sorted(files.items()) for one in credentials if one.encode() in content]


class Ran(NamedTuple):
    """said: what each step printed; local, remote, tracked: all files on the disk, in S3, and of MLflow's server."""

    said: dict[str, bytes]
    local: dict[str, bytes]
    remote: dict[str, bytes]
    tracked: dict[str, bytes]
    server: MlflowServer


@pytest.fixture(scope="module")
def ran(s3: S3Server, raw: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Every step, in processes of their own, with data and results in S3 and an MLflow reached with a password."""
    folder = tmp_path_factory.mktemp("work")
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    root = "s3://data/secrets"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        for file, content in tree(prepared).items():
            put(s3, f"{root}/prepared/{file}", content)
    write_params(folder / "params.yaml", {"register": {"name": "secrets"}})
    params, data = ["--params", "params.yaml"], ["--data", f"{root}/prepared"]
    model, run = ["--model", f"{root}/train/model"], ["--run", f"{root}/train/run.json"]
    found = {"metrics": f"{root}/evaluate/metrics.json", "history": f"{root}/train/history.csv"}
    steps: dict[str, list[str]] = {
        "train": [*params, *data, "--out", f"{root}/train"],
        "evaluate": [*params, *data, *model, *run, "--history", found["history"], "--out", f"{root}/evaluate"],
        "register": [*params, *model, *run, "--metrics", found["metrics"], "--out", f"{root}/register"],
        "promote": [*params, "--version", "1"],
        "predict": ["--model", "models:/secrets@production", *pair(raw), "--out", f"{root}/predict"],
    }
    settings = s3.environment | {
        "MLFLOW_TRACKING_URI": server.uri.replace("://", f"://{USER}:{PASSWORD}@"),
        "DUAL_HRNET_CACHE": str(folder / "cache"),
    }
    said = {}
    for name, arguments in steps.items():
        result = run_step(name, *arguments, cwd=folder, **settings)
        assert result.returncode == 0, (name, result.stderr)
        said[name] = (result.stdout + result.stderr).encode()
    try:
        yield Ran(said, tree(folder), remote_tree(s3, root), tree(server.folder), server)
    finally:
        server.stop()


def test_no_credential_is_in_anything_that_a_run_leaves(ran: Ran) -> None:
    for files, expected in ((ran.said, 5), (ran.local, 3), (ran.remote, 20), (ran.tracked, 20)):
        assert len(files) >= expected
        assert leaks(files) == []


def test_the_search_finds_a_credential_where_there_is_one(ran: Ran) -> None:
    for credential in CREDENTIALS:
        assert leaks(ran.local | {"x/log": b"at " + credential.encode() + b"\n"}) == [("x/log", credential)]


class Refusing(BaseHTTPRequestHandler):
    """Answers every request as a server does that does not take the password."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: stderr is the tests'."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """Address of a server that takes no password."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        ("SignatureDoesNotMatch", {"AWS_SECRET_ACCESS_KEY": WRONG}),
        ("http://127.0.0.1:9 cannot be reached", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
        ("error code 401", {"MLFLOW_TRACKING_URI": f"http://{USER}:{PASSWORD}@REFUSING"}),
        ("Connection refused", {"MLFLOW_TRACKING_URI": f"http://{USER}:{PASSWORD}@127.0.0.1:9"}),
        ("Connection refused", {"MLFLOW_TRACKING_URI": f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:9/x"}),
        ("Connection refused", {"MLFLOW_TRACKING_URI": f"postgresql+psycopg://127.0.0.1:9/x?password={PASSWORD}"}),
    ],
    ids=["wrong secret", "store away", "wrong password", "MLflow away", "database away", "password as an option"],
)
def test_errors_do_not_tell_credentials(
    found: str,
    settings: dict[str, str],
    ran: Ran,
    s3: S3Server,
    refusing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_params(tmp_path / "params.yaml")
    usual = s3.environment | {"MLFLOW_TRACKING_URI": ran.server.uri, "DUAL_HRNET_CACHE": str(tmp_path / "cache")}
    changed = usual | {name: value.replace("REFUSING", refusing) for name, value in settings.items()}
    uri = changed.pop("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    arguments = ["--params", "params.yaml", "--data", "s3://data/secrets/prepared", "--out", "out"]
    with using(uri, **changed):
        line = exit_line(step_here("train"), *arguments)
    assert found in line
    out, err = capfd.readouterr()
    assert err == ""
    said = line + out + caplog.text  # of the log more than a user sees: urllib3 warns of an attempt that failed
    assert leaks({"said": said.encode()} | tree(tmp_path), (*CREDENTIALS, WRONG)) == []


def is_pickle(content: bytes) -> bool:
    """Whether loading this would run a pickle: one itself, or an archive with one as torch.save writes it."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(io.BytesIO(content)).namelist())
    try:
        return content.startswith(b"\x80") and any(True for _ in pickletools.genops(content))
    except ValueError:
        return False


def test_only_checkpoints_are_pickles_and_these_load_without_running_code(ran: Ran) -> None:
    weights = [name for name in ran.tracked if name.endswith("model.safetensors")]
    assert len(weights) == 1  # the registered version is among the files that are looked at
    files = {**ran.local, **ran.remote, **ran.tracked}
    pickles = [name for name, content in files.items() if is_pickle(content)]
    assert {name.rsplit("/", 1)[1] for name in pickles} == {"state.pt"}
    for name in pickles:
        assert "checkpoints/" in name
        torch.load(io.BytesIO(files[name]), weights_only=True)
    endings = {Path(name).suffix for name in files}
    assert ".safetensors" in endings and not endings & {".pkl", ".pickle", ".joblib", ".pth"}  # no python_model.pkl
    assert is_pickle(pickle.dumps({"a": 1}))

"""A real MLflow server for the tests, which can be killed and started again with the same address and store."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.tracking import connection
from tests.commands import environment
from tests.servers.ports import free_port
from tests.stores import ready_store


class MlflowServer:
    """Keeps its runs and their files in `folder`, over restarts too.

    database, artifacts: where they are kept instead; settings: variables of the server's environment.
    """

    def __init__(
        self, folder: Path, database: str | None = None, artifacts: str | None = None, **settings: str
    ) -> None:
        self.folder, self.settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        # Of this store, for MLFLOW_TRACKING_URI without the server.
        self.database = database or ready_store(folder)
        self.artifacts = artifacts or str(folder / "artifacts")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def uri(self) -> str:
        """For MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.database, "--artifacts-destination", self.artifacts]
        command += ["--workers", "1"]
        # Its job runner would take half a minute more to start, and gigabytes.
        settings = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **self.settings)
        with (self.folder / "server.log").open("ab") as log:
            # A session of its own, so that a signal reaches its worker too.
            self.process = subprocess.Popen(
                command, env=settings, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None, f"mlflow ended with {self.process.returncode}: see {log.name}"
            assert time.monotonic() < deadline, f"mlflow is not ready after two minutes: see {log.name}"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the server, by default as a crash would, and waits until it is gone."""
        if self.process is not None:
            os.killpg(self.process.pid, how)
            self.process.wait(60)
            self.process = None
            while self._accepts():
                time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def using(uri: str, **settings: str) -> Iterator[None]:
    """This process's MLflow is the store of that address, and nothing else of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_RUN_ID", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
            patch.delenv(name, raising=False)
        for name, value in {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", **settings}.items():
            patch.setenv(name, value)
        connection.client.cache_clear()
        yield
    connection.client.cache_clear()

"""A real PostgreSQL server for the tests, in a folder of its own, on a port of its own."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.servers.ports import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))  # where Debian has them, outside of PATH


class PostgresServer:
    """An empty server without a password; skips the test where PostgreSQL is not installed."""

    def __init__(self) -> None:
        if not PROGRAMS:
            pytest.skip("PostgreSQL's programs are not here: /usr/lib/postgresql/*/bin (Debian: postgresql)")
        self.programs = PROGRAMS[-1].parent
        # Not pytest's own folder, which nobody but its user may enter: PostgreSQL refuses to run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self.user = ["--user", "postgres"] if os.getuid() == 0 else []
        if self.user:
            shutil.chown(self.folder, "postgres", "postgres")

    @property
    def uri(self) -> str:
        """For MLflow's store."""
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        self._run("initdb", "-D", "data", "-U", "tester", "--auth=trust", "--no-sync")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Ends the server, if it ever began, and removes what it kept."""
        if (self.folder / "data").exists():
            self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", *self.user, "--"] if self.user else []
        command = [*as_user, str(self.programs / program), *arguments]
        # To a file: the server would keep a pipe open.
        with (self.folder / f"{program}.out").open("w+", encoding="utf-8") as out:
            ended = subprocess.run(command, cwd=self.folder, stdout=out, stderr=out)
            out.seek(0)
            assert ended.returncode == 0, out.read()

"""Steps as the first process of a container, started as the image starts them, and asked to stop."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import environment
from tests.deploy.test_image import arguments_of
from tests.scenes import TRAIN_SCENES
from tests.tiny import write_params

OWN_NUMBERS = ["--pid", "--fork", "--kill-child"]
NAMESPACES = (["unshare", "--user", "--map-root-user", *OWN_NUMBERS], ["unshare", *OWN_NUMBERS])  # the latter as root
PROMPT = 5  # seconds, of the 10 that `docker stop` waits and the 30 of Kubernetes


def entrypoint() -> list[str]:
    """The one of the image; skips the test where it is not here."""
    (line,) = arguments_of("ENTRYPOINT")
    command: list[str] = json.loads(line)
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}, which is the first process of the image: Debian's package {command[0]}")
    return command


def namespace() -> list[str]:
    """What makes a command the first process of a namespace; nothing where this machine lets nobody have one, and the
    command is a process like others, to which the kernel is kinder.
    """
    here = (each for each in NAMESPACES if not subprocess.run([*each, "true"], capture_output=True).returncode)
    return next(here, [])


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def stopped(step: list[str | Path], work: Path, is_busy: Callable[[], bool]) -> tuple[int, float]:
    """Exit code and seconds of a step that gets SIGTERM as soon as it is busy."""
    around = namespace()
    process = subprocess.Popen(
        [*around, *entrypoint(), *step], cwd=work, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: is_busy() or process.poll() is not None)
        assert process.poll() is None
        first = str(process.pid)
        if around:
            (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split()[1] == "1"
        asked = time.monotonic()
        os.kill(int(first), signal.SIGTERM)
        return process.wait(60), time.monotonic() - asked
    finally:
        process.kill()
        process.wait()


def test_a_step_with_workers_ends_at_once_when_asked(raw: Path, tmp_path: Path) -> None:
    data = shutil.copytree(raw, tmp_path / "raw")
    image = data / "train" / "images" / f"{sorted(TRAIN_SCENES)[0]}_pre_disaster.png"
    image.unlink()
    os.mkfifo(image)  # which never comes, so that a worker waits
    params = write_params(tmp_path / "params.yaml", {"prepare": {"workers": 2}})
    step: list[str | Path] = ["components.prepare", "--params", params, "--raw", data, "--out", tmp_path / "out"]
    journal = tmp_path / ".out.partial" / "journal.csv"
    code, seconds = stopped(step, tmp_path, lambda: journal.exists() and len(journal.read_text().splitlines()) > 1)
    assert code == 128 + signal.SIGTERM
    assert seconds < PROMPT
    assert not (tmp_path / "out").exists()


def test_a_step_that_computes_ends_at_once_when_asked(tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"sample": {"train": 9000, "test": 20, "size": 128}})
    step: list[str | Path] = ["components.sample", "--params", params, "--out", tmp_path / "sample"]
    code, seconds = stopped(step, tmp_path, lambda: any(tmp_path.glob(".sample*/**/*.png")))
    assert code == 128 + signal.SIGTERM
    assert seconds < PROMPT
    assert not (tmp_path / "sample").exists()

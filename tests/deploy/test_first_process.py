"""Steps and the nodes of a training as the first process of a container, started as there, and asked to stop."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.cluster.pods import COMMAND
from tests.commands import environment
from tests.deploy.test_image import arguments_of
from tests.paths import ROOT
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


def stopped(command: list[str | Path], work: Path, is_busy: Callable[[Path], bool]) -> tuple[int, float]:
    """Exit code and seconds of a command that gets SIGTERM as soon as it is busy, which is asked with /proc/N of it."""
    around = namespace()
    process = subprocess.Popen(
        [*around, *command], cwd=work, env=environment(PYTHONPATH=str(ROOT)), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        first = str(process.pid)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if around:
            wait_until(lambda: bool(children.read_text()))
            (first,) = children.read_text().split()
        wait_until(lambda: process.poll() is not None or is_busy(Path("/proc", first)))
        assert process.poll() is None
        if around:
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
    code, seconds = stopped(
        [*entrypoint(), *step], tmp_path, lambda _: journal.exists() and len(journal.read_text().splitlines()) > 1
    )
    assert code == 128 + signal.SIGTERM
    assert seconds < PROMPT
    assert not (tmp_path / "out").exists()


def test_a_step_that_computes_ends_at_once_when_asked(tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"sample": {"train": 9000, "test": 20, "size": 128}})
    step: list[str | Path] = ["components.sample", "--params", params, "--out", tmp_path / "sample"]
    code, seconds = stopped([*entrypoint(), *step], tmp_path, lambda _: any(tmp_path.glob(".sample*/**/*.png")))
    assert code == 128 + signal.SIGTERM
    assert seconds < PROMPT
    assert not (tmp_path / "sample").exists()


RANK = """
import os, signal, sys, time
from pathlib import Path

rank = os.environ["RANK"]

def stop(number, frame):
    Path(f"stopped-{rank}").touch()
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, stop)
if os.fork() == 0:
    if os.fork() == 0:  # as a reader of crops whose process was killed, so that the first process has to wait for it
        Path(f"orphan-{rank}").touch()
        time.sleep(0.2)
    os._exit(0)
os.wait()
time.sleep(60)
"""


def below(process: Path) -> list[Path]:
    """Processes that are there below /proc/N, zombies among them, and that one."""
    try:
        children = (process / "task" / process.name / "children").read_text().split()
    except OSError:  # it has ended meanwhile
        return []
    return [process, *(each for child in children for each in below(Path("/proc", child)))]


def test_a_node_of_a_training_hands_the_signal_to_its_ranks_and_leaves_no_zombies(tmp_path: Path) -> None:
    """Pods of both kinds of job have this command in the place of the image's entry point."""
    entrypoint()  # skips where tini is not here
    (tmp_path / "rank.py").write_text(RANK)
    command: list[str | Path] = [*COMMAND[: COMMAND.index("components.launch") + 1], "--standalone"]

    def is_busy(first: Path) -> bool:
        # tini, torchrun and two ranks: the orphans have ended, and nothing of them is left.
        return len(list(tmp_path.glob("orphan-*"))) == 2 and len(below(first)) == 4

    code, seconds = stopped([*command, "--nproc-per-node=2", "rank.py"], tmp_path, is_busy)
    assert code == 128 + signal.SIGTERM
    assert seconds < PROMPT
    assert sorted(path.name for path in tmp_path.glob("stopped-*")) == ["stopped-0", "stopped-1"]

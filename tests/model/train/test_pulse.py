"""A process that hangs ends the run, with one line that names it."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import torch

from base.command_line import HUNG
from model.dual_hrnet import DualHRNet
from model.fast.folding import fold
from model.train.distributed import World
from model.train.pulse import Pulse, diagnose
from tests.commands import environment
from tests.paths import ROOT
from tests.tiny import SMALL
from tests.workers.pulse_worker import SCENES, STUCK_AT, TIMEOUT
from tests.workers.worlds import torchrun_command

WORKER = ROOT / "tests" / "workers" / "pulse_worker.py"
HOSTS = ["a", "a", "b", "b"]
ALL = [True] * 4
ONE = World(0, 1, 0, torch.device("cpu"))
Scenes = dict[str, tuple[list[int | None], list[str]]]


@pytest.mark.parametrize(
    ("beats", "answers", "hanging", "finding"),
    [
        (
            [1240, 1240, 1234, 1240],
            ALL,
            [2],
            "rank 2 of 4 on b: not moved for 600 s, hangs at beat 1234; the others wait at beat 1240.",
        ),
        (
            [7, 9, 7, 9],
            ALL,
            [0, 2],
            "rank 0 of 4 on a, rank 2 of 4 on b: not moved for 600 s, hangs at beat 7; the others wait at beat 9.",
        ),
        (
            [7, 9, 9, 9],
            [True, True, True, False],
            [3],
            "rank 3 of 4 on b: not moved for 600 s, no answer since beat 9; the others wait at beat 9.",
        ),
        (
            [9, 9, 4, 5],
            [True, True, False, False],
            [2, 3],
            "rank 2 of 4 on b, rank 3 of 4 on b: not moved for 600 s, no answer since beat 4, 5; the others wait at "
            "beat 9.",
        ),
        (
            [9, 9, 9, 9],
            ALL,
            [],
            "none of the 4 ranks has moved for 600 s, all are at beat 9: an exchange between them hangs, in the "
            "network or on a GPU.",
        ),
        (
            [9, 9, 9, 9],
            [False] * 4,
            [],
            "rank 1 of 4 on a has not moved for 600 s and hears nothing of the others: rank 0, the torchrun of its "
            "node a or the network between does not answer.",
        ),
    ],
    ids=["behind", "two behind", "silent", "two silent", "none", "alone"],
)
def test_the_finding_names_those_that_hang(
    beats: list[int], answers: list[bool], hanging: list[int], finding: str
) -> None:
    assert diagnose(beats, answers, HOSTS, 1, 600) == (hanging, finding)


def test_a_world_of_one_only_counts() -> None:
    model = DualHRNet(**SMALL).train()
    norms = sum(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    images = torch.randn(2, 2, 3, 64, 64)
    threads = threading.active_count()
    with Pulse(ONE, 0.01) as pulse:
        assert threading.active_count() == threads
        pulse.watch(model)
        model(*images)
        assert (pulse.beats, pulse.signs) == (norms, 0)
        model.eval()(*images)
        assert (pulse.beats, pulse.signs) == (norms, norms)
        pulse.beat()
        pulse.alive()
        assert (pulse.beats, pulse.signs) == (norms + 1, norms + 1)
    counted = pulse.beats
    model.train()(*images)
    assert pulse.beats == counted


def test_a_watched_model_can_be_copied_and_folded() -> None:
    model = DualHRNet(**SMALL, stem_order="published")
    images = torch.randn(2, 1, 3, 64, 64)
    with Pulse(ONE, 1) as pulse, torch.inference_mode():
        pulse.watch(model)
        fold(model)(*images)
        copy.deepcopy(model).eval()(*images)
        assert pulse.beats == 0


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Of every scene, in a world of three: exit codes by rank (None: stopped), and the lines on stderr."""
    out = tmp_path_factory.mktemp("pulse")
    finished = subprocess.run([sys.executable, str(WORKER), str(out)], env=environment(), timeout=120)
    assert finished.returncode == 0
    return {
        scene.__name__: (
            json.loads((out / f"{scene.__name__}.json").read_text(encoding="utf-8")),
            (out / f"{scene.__name__}.txt").read_text(encoding="utf-8").splitlines(),
        )
        for scene in SCENES
    }


@pytest.mark.slow
def test_a_rank_that_waits_for_its_data_is_named_in_one_line(scenes: Scenes) -> None:
    codes, lines = scenes["sleeping_reader"]
    assert codes == [HUNG, HUNG, HUNG]
    (line,) = lines
    assert line.startswith("TrainingError: rank 1 of 3 on ")
    found = f": not moved for {TIMEOUT:g} s, hangs at beat {STUCK_AT}; the others wait at beat {STUCK_AT + 1}. Start"
    assert found in line


@pytest.mark.slow
def test_a_stopped_process_is_named_although_it_is_as_far_as_the_others(scenes: Scenes) -> None:
    codes, (line,) = scenes["stopped_process"]
    assert codes == [HUNG, None, HUNG]
    assert line.startswith("TrainingError: rank 1 of 3 on ")
    assert "no answer since beat" in line


@pytest.mark.slow
def test_where_all_wait_for_each_other_none_is_blamed(scenes: Scenes) -> None:
    codes, (line,) = scenes["lost_exchange"]
    assert codes == [HUNG, HUNG, HUNG]
    assert line.startswith(f"TrainingError: none of the 3 ranks has moved for {TIMEOUT:g} s, all are at beat ")


@pytest.mark.slow
def test_ranks_that_lose_the_store_end_too_each_with_its_line(scenes: Scenes) -> None:
    """Without torchrun the store is in rank 0, and the others cannot agree on who speaks."""
    codes, lines = scenes["stopped_store"]
    assert codes == [None, HUNG, HUNG]
    assert sorted(line.split(" on ")[0] for line in lines) == [f"TrainingError: rank {rank} of 3" for rank in (1, 2)]
    assert all("hears nothing of the others: rank 0" in line for line in lines)


@pytest.mark.slow
def test_a_rank_that_fails_is_not_said_to_hang(scenes: Scenes) -> None:
    codes, lines = scenes["error"]
    assert codes == [141, 1, 141]
    assert "KeyError: 'scene 7'" in lines
    assert not [line for line in lines if "TrainingError" in line]


@pytest.mark.slow
def test_a_rank_with_more_work_than_the_others_is_not_disturbed(scenes: Scenes) -> None:
    assert scenes["uneven_work"] == ([0, 0, 0], [])


@pytest.mark.slow
def test_torchrun_ends_when_rank_0_is_stopped() -> None:
    command = torchrun_command(WORKER, 2, "stopped_store")
    lines = []
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stderr is not None
        for line in launcher.stderr:
            lines.append(line)
            # A stopped process takes no SIGTERM; torchrun would wait 30 s for it, and kill it then.
            if sent := re.search(r"Sending process (\d+) closing signal SIGTERM", line):
                os.kill(int(sent[1]), signal.SIGCONT)
    assert launcher.returncode != 0
    (line,) = [line for line in lines if "TrainingError" in line]
    assert line.startswith("TrainingError: rank 0 of 2 on ")
    assert f": not moved for {TIMEOUT:g} s, no answer since beat " in line

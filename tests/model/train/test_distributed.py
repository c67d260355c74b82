"""Processes that train together: how they find each other, share a batch, exchange, and part."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from model.train import distributed
from model.train.batch import WorldError, share_of_batch
from model.train.distributed import join_world
from tests.commands import environment
from tests.paths import ROOT
from tests.servers.ports import free_port
from tests.workers.distributed_worker import counts
from tests.workers.worlds import members, torchrun

WORKER = ROOT / "tests" / "workers" / "distributed_worker.py"
SIZES = st.integers(1, 40)


@pytest.mark.parametrize(
    ("global_batch", "device_batch", "world", "passes"), [(32, 2, 16, 1), (32, 2, 1, 16), (32, 2, 4, 4), (4, 4, 1, 1)]
)
def test_each_process_makes_its_passes_of_the_batch(
    global_batch: int, device_batch: int, world: int, passes: int
) -> None:
    assert share_of_batch(global_batch, device_batch, world) == passes


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            (32, 3, 4),
            "train.global_batch_size: 32 is not a multiple of train.device_batch_size 3 x 4 processes. "
            "Values of train.device_batch_size that fit 4 processes: 1, 2, 4, 8.",
        ),
        (
            (4, 3, 1),
            "train.global_batch_size: 4 is not a multiple of train.device_batch_size 3 x 1 process. "
            "Values of train.device_batch_size that fit 1 process: 1, 2, 4.",
        ),
        (
            (32, 4, 3),
            "train.global_batch_size: 32 is not a multiple of train.device_batch_size 4 x 3 processes. "
            "No value of train.device_batch_size fits; numbers of processes that do: 1, 2, 4, 8.",
        ),
        (
            (30, 4, 16),
            "train.global_batch_size: 30 is not a multiple of train.device_batch_size 4 x 16 processes. "
            "No value of train.device_batch_size fits; numbers of processes that do: 1, 2, 3, 5, 6, 10, 15, 30.",
        ),
    ],
    ids=str,
)
def test_a_batch_that_cannot_be_shared_names_what_fits(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(WorldError) as caught:
        share_of_batch(*sizes)
    assert str(caught.value) == message


@given(SIZES, SIZES, SIZES)
def test_every_value_named_fits_and_every_share_is_whole(global_batch: int, device_batch: int, world: int) -> None:
    try:
        assert share_of_batch(global_batch, device_batch, world) * device_batch * world == global_batch
    except WorldError as error:
        values = [int(value) for value in re.findall(r"\d+", str(error).rsplit(":", 1)[1])]
        assert values
        for value in values:
            if "Values of" in str(error):
                share_of_batch(global_batch, value, world)
            elif global_batch % device_batch == 0:
                share_of_batch(global_batch, device_batch, value)
            else:
                share_of_batch(global_batch, 1, value)


def test_a_process_that_nothing_started_with_others_is_a_world_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    threads = torch.get_num_threads()
    with join_world(60) as world:
        assert (world.rank, world.size, world.local_rank, world.is_main) == (0, 1, 0, True)
        assert world.device == torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        assert not dist.is_initialized()
        assert torch.equal(world.reduce_sum(counts(0)), counts(0))
        assert (world.any(False), world.any(True)) == (False, True)
        assert (world.gather("a"), world.broadcast("a")) == (["a"], "a")
    assert torch.get_num_threads() == threads


@pytest.mark.endurance
def test_a_world_of_torchrun_exchanges_exactly_also_after_a_restart(tmp_path: Path) -> None:
    variables = environment()
    del variables["OMP_NUM_THREADS"]
    finished = torchrun(WORKER, 2, "report", tmp_path, environment=variables, options=("--max-restarts", "1"))
    assert finished.returncode == 0, finished.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    for rank, record in enumerate(found):
        assert record["world"] == [rank, 2, rank, "cpu", rank == 0]
        assert record["attempt"] == 1
        assert record["sum"] == (counts(0) + counts(1)).tolist()
        assert record["own is kept"] and record["left"]
        assert record["any"] == [False, True, True]
        assert record["gather"] == [{"rank": 0}, {"rank": 1}]
        assert record["broadcast"] == ["from 0"]
        assert record["threads"] == max(1, distributed._cores() // 2)


@pytest.mark.endurance
def test_an_error_ends_all_processes_each_with_one_line() -> None:
    port = free_port()
    command = [sys.executable, str(WORKER), "fail"]
    # Started by something else than torchrun, which would end rank 1 before it finds out for itself.
    processes = [
        subprocess.Popen(command, env=environment(**members(rank, 2, port)), stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 141], errors
    assert errors[0] == "InputError: scene 7 cannot be read\n"
    assert re.fullmatch(r"PeersLost: rank 1 of 2 lost the others: Connection closed by peer .*\n", errors[1]), errors


def test_a_process_whose_others_never_come_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in members(0, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorldError, match=r"^WORLD_SIZE 2: this process did not find the others within 1 s: .*torchrun"):
        with join_world(1):
            raise AssertionError("nobody else came")
    assert not dist.is_initialized()


def test_a_launcher_that_says_half_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in members(0, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(WorldError, match="MASTER_ADDR expected, but not set") as caught, join_world(1):
        raise AssertionError("nobody else came")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("quota", "cores"), [("max", 8), ("400000", 4), ("150000", 1), ("50000", 1), ("1600000", 8), (None, 8)], ids=str
)
def test_a_containers_limit_bounds_the_cores(
    quota: str | None, cores: int, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel writes it, by version 1 or 2 of its control groups."""
    if quota is not None and version == 2:
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n", encoding="ascii")
    if quota is not None and version == 1:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota.replace('max', '-1')}\n", encoding="ascii")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    monkeypatch.setattr(distributed, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert distributed._cores() == cores


@pytest.mark.parametrize(
    ("variable", "processes", "threads"),
    [
        (None, 2, 4),
        (None, 3, 2),
        (None, 16, 1),
        ("1", 2, 4),  # torchrun's default for several processes
        ("1", 1, None),  # where torchrun sets nothing: the user's own
        ("6", 2, None),
    ],
)
def test_the_processes_of_a_node_share_its_cores_unless_the_user_chose(
    variable: str | None, processes: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(distributed, "_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    distributed._share_cores(processes)
    assert chosen == ([] if threads is None else [threads])


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in members(3, 4, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(WorldError, match=r"^LOCAL_RANK 3: this node has 2 GPUs\."), join_world(1):
        raise AssertionError("it has no GPU")

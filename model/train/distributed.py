"""The processes that train together: joining them, sharing the batch among them, and what they tell each other.

torchrun starts one process for each GPU, or for each share of a CPU's cores, and says through the environment who is
who (https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables); this file alone reads it.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from base.command_line import PEERS_LOST
from model.device import choose_device
from model.train.batch import WorldError

T = TypeVar("T")

_LEAVE_SECONDS = 2.0
_CGROUP = Path("/sys/fs/cgroup")  # of this process, where it is in a container


class PeersLost(WorldError):
    """The other processes, or one of them, are gone.

    The exit code lets Kubeflow start the pod again where only the node of another one was lost.
    """

    exit_code = PEERS_LOST


@dataclass(frozen=True)
class World:
    """This process among all that train together, and what they exchange; every process calls the same methods in the
    same order. In a world of one nothing is exchanged.

    rank: 0 to size - 1 over all nodes. local_rank: among the processes of this node. store: where the processes found
    each other, a server that answers while they compute.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    store: TCPStore | None = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and talks."""
        return self.rank == 0

    def reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum of the ranks' tensors of one shape and type, on the device of `tensor`; exact for integers."""
        if self.size == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; the same answer on all of them, at the same step."""
        return bool(self.reduce_sum(torch.tensor(int(flag))) > 0)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return cast(list[T], values)

    def broadcast(self, value: T) -> T:
        """The main process's value; what the others pass is not looked at."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def join_world(timeout_seconds: float) -> Iterator[World]:
    """The world that torchrun started, for the length of the block; a world of one where nothing started several.

    NCCL and one GPU for each process where there are GPUs, otherwise gloo, and the processes of a node share its
    cores. timeout_seconds: how long processes wait for each other, when joining and in each exchange.
    Raises DeviceError where a GPU was asked for and none can be used, WorldError where not all processes come,
    PeersLost where one is lost in the block: its connection broke, or it did not answer in time.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(0, 1, 0, _device(0))
        return
    world = _join(timedelta(seconds=timeout_seconds))
    try:
        yield world
    except BaseException as error:
        _leave_after_error()
        if isinstance(error, dist.DistError) or "gloo/transport" in str(error):
            raise PeersLost(
                f"rank {world.rank} of {world.size} lost the others: {_reason(error)}. The rank that failed first says "
                "why; the same command goes on from the last checkpoint."
            ) from error
        raise
    dist.destroy_process_group()


def is_first_to_say(line: str) -> bool:
    """Whether no other process of this attempt asked this about the line; also true where no store of torchrun's, which
    outlives the processes, answers.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=_LEAVE_SECONDS)))
        return bool(_of_this_attempt(store).add(f"said: {line}", 1) == 1)
    except (ValueError, RuntimeError):  # the latter are those of torch.distributed
        return True


def _of_this_attempt(store: Store) -> PrefixStore:
    """The part of the store for this attempt: torchrun keeps its store over restarts. Without a prefix of their own,
    processes of the second attempt find the addresses of the first one's and fail to connect (seen with torch 2.13).
    """
    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _join(timeout: timedelta) -> World:
    local_rank = dist.get_node_local_rank(fallback_rank=0)
    device = _device(local_rank)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=_of_this_attempt(store),
            rank=rank,
            world_size=size,
            timeout=timeout,
            device_id=device if cuda else None,
        )
    except (ValueError, RuntimeError) as error:  # the latter are those of torch.distributed and of gloo
        raise WorldError(
            f"WORLD_SIZE {os.environ['WORLD_SIZE']}: this process did not find the others within "
            f"{timeout.total_seconds():g} s: {_reason(error)}. Start all of them by torchrun, on every node with the "
            "same --nnodes, --nproc-per-node, --master-addr and --master-port."
        ) from error
    if not cuda:
        _share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return World(rank, size, local_rank, device, store)


def _device(local_rank: int) -> torch.device:
    device = choose_device(local_rank)
    if device.type == "cuda" and local_rank >= torch.cuda.device_count():
        raise WorldError(
            f"LOCAL_RANK {local_rank}: this node has {torch.cuda.device_count()} GPUs. Start as many processes on it, "
            "torchrun --nproc-per-node gpu."
        )
    return device


def _share_cores(processes: int) -> None:
    """Gives this process its share of the node's cores, unless OMP_NUM_THREADS is the user's own.

    torchrun sets it to 1 for several processes of a node, which leaves most cores idle; a 1 that the user wrote
    cannot be told from that.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None or (threads == "1" and processes > 1):
        torch.set_num_threads(max(1, _cores() // processes))


def _cores() -> int:
    """Cores that this process may use: those it may run on, and no more than its container's share of time.

    A pod with a limit of 4 CPUs on a node of 64 sees all 64; with that many threads the kernel stops it for most of
    every tenth of a second.
    """
    cores = len(os.sched_getaffinity(0))
    quota, period = _cpu_limit()
    return cores if quota is None else max(1, min(cores, quota // period))


def _cpu_limit() -> tuple[int | None, int]:
    """Microseconds of CPU time that the container has in each period, None for any, and the period.

    Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max ("400000 100000", or "max 100000"), and
    https://docs.kernel.org/scheduler/sched-bwc.html, cpu.cfs_quota_us (-1 for any), of version 1.
    """
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((_CGROUP / name).read_text(encoding="ascii") for name in names).split()
        except (OSError, ValueError):
            continue
        return (None if quota in ("max", "-1") else int(quota)), int(period)
    return None, 0


def _leave_after_error() -> None:
    """Leaves the group without waiting for exchanges that the other processes may never join: torch would, for as
    long as they live, and the error that ends this process would not be seen until then.
    """
    leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(_LEAVE_SECONDS)


def _reason(error: BaseException) -> str:
    """The first sentence of an error, without the source file that gloo puts before it."""
    return re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0].rstrip(".")

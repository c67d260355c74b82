"""The device to compute on: a GPU where there is one, else the CPU, unless a GPU was asked for."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from base.errors import InputError

if TYPE_CHECKING:
    import torch

# Set in the containers for which Kubernetes was asked for GPUs. NVIDIA_VISIBLE_DEVICES does not say it: an image
# may set it to "all" wherever it runs.
NEEDS_GPU = "DUAL_HRNET_NEEDS_GPU"
DRIVER = Path("/proc/driver/nvidia/version")  # of the node, also in a container
# The oldest driver by major version of the CUDA of a torch build.
# Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1
OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}


class DeviceError(InputError):
    """A GPU was asked for, and none can be used."""


def choose_device(local_rank: int = 0) -> "torch.device":
    """The GPU of that number where torch can use GPUs, else the CPU; raises DeviceError as `require_gpu` does."""
    import torch

    require_gpu()
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def require_gpu(driver_file: Path = DRIVER) -> None:
    """Raises DeviceError where a GPU was asked for and torch can use none, so that days of training do not begin on
    the node's CPUs. Where nothing was asked for, whatever is there will do.
    """
    import torch

    if not os.environ.get(NEEDS_GPU) or torch.cuda.is_available():
        return
    driver, oldest = driver_version(driver_file), _oldest_driver()
    if torch.version.cuda is None:
        build, remedy = "for CPUs", "Build the image without the TORCH_INDEX of CPUs"
    else:
        build = f"for CUDA {torch.version.cuda}" + (f", which needs driver {oldest} or newer" if oldest else "")
        if driver is None:
            remedy = "Choose nodes with GPUs and their driver by cluster.node_selector"
        elif oldest is not None and int(driver.split(".")[0]) < oldest:
            remedy = "Update the node's driver, or build the image with the TORCH_INDEX of an older CUDA"
        else:
            remedy = "Look at what nvidia-smi says on the node"
    raise DeviceError(
        f"{NEEDS_GPU}: a GPU was asked for, and torch can use none: {_reason()}. Found NVIDIA "
        f"driver {driver or 'none'}, torch {torch.__version__} {build}. {remedy}, or set cluster.device_resource to "
        "null for CPUs; see docs/cluster.md."
    )


def describe_device(device: "torch.device", driver_file: Path = DRIVER) -> str:
    """`device: cuda:0 NVIDIA H100, driver 580.65.06`, or `device: cpu, 8 threads`, with the reason where a driver is
    there all the same.
    """
    import torch

    driver = driver_version(driver_file)
    if device.type == "cuda":
        return f"device: {device} {torch.cuda.get_device_name(device)}, driver {driver or 'unknown'}"
    threads = torch.get_num_threads()
    text = f"device: {device}, {threads} thread{'s' if threads > 1 else ''}"
    return text if driver is None else f"{text}; NVIDIA driver {driver} is there, but torch uses no GPU: {_reason()}"


def driver_version(path: Path) -> str | None:
    """The version in a file as the NVIDIA driver writes it, None where there is none.

    Its first line: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 ...`.
    """
    try:
        found = re.search(r"\b\d+(\.\d+)+\b", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else found[0]


def _oldest_driver() -> int | None:
    import torch

    return OLDEST_DRIVER.get(str(torch.version.cuda).split(".")[0])


def _reason() -> str:
    """Why torch uses no GPU: `torch.cuda.is_available` knows it and does not tell."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        return re.split(r"\. |\n", str(error))[0].rstrip(".")
    return "it sees no GPU"

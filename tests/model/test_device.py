"""The device: the GPU that was asked for, or one line that says why not, by files as drivers write them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.device import NEEDS_GPU, DeviceError, choose_device, describe_device, driver_version, require_gpu
from tests.conftest import ROOT, environment

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  12.3\n"
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder)\nGCC version:  12.3\n"
)
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
STEP = ["--params", str(ROOT / "params.yaml"), "--data", "data", "--out", "OUT"]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def driver(tmp_path: Path, text: str = CLOSED) -> Path:
    path = tmp_path / "version"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NEEDS_GPU, "1")


@pytest.fixture
def cuda_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch of the image, whose driver is too old; what it raises then is its own text of torch 2.13."""

    def refuse() -> None:
        raise RuntimeError(TOO_OLD)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", refuse)


@pytest.mark.parametrize(("text", "version"), [(CLOSED, "550.54.15"), (OPEN, "580.65.06"), ("nothing\n", None)])
def test_the_driver_is_read_as_nvidias_two_modules_write_it(text: str, version: str | None, tmp_path: Path) -> None:
    assert driver_version(driver(tmp_path, text)) == version
    assert driver_version(tmp_path / "missing") is None


def test_without_a_wish_the_cpu_will_do_and_the_line_counts_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (None, ""):
        monkeypatch.delenv(NEEDS_GPU, raising=False)
        if value is not None:
            monkeypatch.setenv(NEEDS_GPU, value)
        assert choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert describe_device(torch.device("cpu"), tmp_path / "missing") == "device: cpu, 8 threads"


@pytest.mark.usefixtures("cuda_13")
def test_a_driver_that_torch_cannot_use_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    line = describe_device(torch.device("cpu"), driver(tmp_path))
    assert line.endswith(
        "; NVIDIA driver 550.54.15 is there, but torch uses no GPU: The NVIDIA driver on your system is too old (found "
        "version 12040)"
    )


def test_a_gpu_is_called_by_its_name_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    gpu = torch.device("cuda", 1)
    assert describe_device(gpu, driver(tmp_path, OPEN)) == "device: cuda:1 NVIDIA H100, driver 580.65.06"
    assert describe_device(gpu, tmp_path / "missing") == "device: cuda:1 NVIDIA H100, driver unknown"


@pytest.mark.usefixtures("asked", "cuda_13")
@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        (CLOSED, "driver 550.54.15,", "Update the node's driver, or build the image with the TORCH_INDEX of an older"),
        (OPEN, "driver 580.65.06,", "Look at what nvidia-smi says on the node"),
        (None, "driver none,", "Choose nodes with GPUs and their driver by cluster.node_selector"),
    ],
)
def test_a_gpu_that_was_asked_for_and_cannot_be_used_is_an_error_with_driver_and_remedy(
    text: str | None, found: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError) as caught:
        require_gpu(tmp_path / "missing" if text is None else driver(tmp_path, text))
    line = str(caught.value)
    assert line.startswith(f"{NEEDS_GPU}: a GPU was asked for, and torch can use none: The NVIDIA driver on your")
    assert found in line and "for CUDA 13.0, which needs driver 580 or newer. " in line and remedy in line
    assert "\n" not in line and "http" not in line


@pytest.mark.usefixtures("asked")
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built with CUDA")
def test_an_image_for_cpus_says_so() -> None:
    with pytest.raises(
        DeviceError, match=r"not compiled with CUDA enabled.* for CPUs.* without the TORCH_INDEX of CPU"
    ):
        choose_device()


@pytest.mark.parametrize(
    "command",
    [
        ["components.launch", "--nproc-per-node", "2", "-m", "components.train", *STEP],
        ["components.train", *STEP],
        ["components.evaluate", *STEP, "--model", "model"],
        ["components.predict", "--model", "model", "--pre", "a.png", "--post", "b.png", "--out", "OUT"],
        ["components.predict", "--model", "model", "--pre", "a.tif", "--post", "b.tif", "--out", "OUT"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_command_that_was_promised_a_gpu_ends_with_one_line_and_writes_nothing(
    command: list[str], tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):  # predict looks for its images first
        (tmp_path / name).touch()
    found = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=environment() | {NEEDS_GPU: "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1 and found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"DeviceError: {NEEDS_GPU}: a GPU was asked for, and torch can use none: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]

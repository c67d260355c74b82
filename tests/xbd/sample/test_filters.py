"""The sample is the same on every processor: its filters, and all that is made with them."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.paths import ROOT
from xbd.sample.filters import blur, moved, normals, on_steps, smooth

# Of decoded pixels, of labels, and of prepared arrays. The bytes of a PNG depend on the library that packs it, too,
# whose version is locked; those are only compared with each other.
PUBLISHED = (
    "d1ce9f19d4439c44e89622ae5c0c1ba87864537104242e94e54bcf7788bf9450",
    "68e149b20c2fccb5d795e56a4b0112aa618d875c5e39c1225189e75cde5eb5ab",
    "6b159aca4713f1278ac2377b436e428a2f1f192bd14055d06f470003109c47a2",
)
# What OpenCV, NumPy, OpenBLAS and the C library choose by the processor, held to the oldest one.
OLDEST = {
    "OPENCV_CPU_DISABLE": "SSE4.1,SSE4.2,AVX,FP16,AVX2,FMA3",
    "OPENCV_IPP": "disabled",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    "OPENBLAS_CORETYPE": "Prescott",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX,-AVX512F,-FMA4",
}
THREADS = ("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def made(folder: Path, **settings: str) -> list[str]:
    """The hashes of a sample that a process with these settings makes in `folder`."""
    command = [sys.executable, "-m", "tests.workers.sample_worker", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_processor_and_any_number_of_threads_make_the_published_sample(tmp_path: Path) -> None:
    widest = made(tmp_path / "widest", **dict.fromkeys(THREADS, "2"))
    oldest = made(tmp_path / "oldest", **OLDEST, **dict.fromkeys(THREADS, "1"))
    assert tuple(widest[:3]) == PUBLISHED
    assert oldest == widest


@pytest.mark.parametrize(("size", "target"), [((5, 7), (40, 61)), ((9, 9), (9, 9)), ((4, 3), (5, 17))])
@pytest.mark.parametrize("cubic", [True, False])
def test_smooth_is_the_interpolation_of_opencv(size: tuple[int, int], target: tuple[int, int], cubic: bool) -> None:
    field = normals(np.random.default_rng(1), size)
    kind = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    np.testing.assert_allclose(
        smooth(field, target, cubic=cubic), cv2.resize(field, target[::-1], interpolation=kind), atol=1e-5
    )


@pytest.mark.parametrize("sigma", [0.5, 0.8, 2.6, 5])
def test_blur_is_the_gaussian_of_opencv(sigma: float) -> None:
    image = np.random.default_rng(2).uniform(0, 255, (50, 60, 3))
    side = 2 * int(np.ceil(4 * sigma)) + 1
    expected = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
    np.testing.assert_allclose(blur(image, sigma), expected, atol=0.01)
    np.testing.assert_allclose(blur(image[..., 0], sigma), expected[..., 0], atol=0.01)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.25, -0.5), (-2.75, 3.0), (0.4, 0.9)])
def test_moved_is_the_translation_of_opencv(shift: tuple[float, float]) -> None:
    image = np.random.default_rng(3).uniform(0, 255, (30, 40, 3))
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    expected = cv2.warpAffine(image, matrix, (40, 30), borderMode=cv2.BORDER_REFLECT)
    np.testing.assert_allclose(moved(image, shift), expected, atol=4)  # OpenCV moves by 32nds of a pixel


def test_steps_are_powers_of_two() -> None:
    assert on_steps([0.3, -1.9999999999], 4).tolist() == [0.3125, -2.0]

"""What tests compare: files as other readers see them, and tensors but for rounding."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

# How far two ways to the same logits may be apart, as a share of the largest: the network is some 60 layers deep, and
# each rounds to float32 once, by up to 2**-24.
LOGITS = 64 * 2**-24


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal but for rounding, whose size is that of the largest number: the share of it that may be wrong.

    CPUs sum in different orders, so that a bound in absolute numbers holds on one of them only.
    """
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes an image as it is, by Pillow."""
    with Image.open(path) as image:
        return np.asarray(image)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file by column name."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder: relative path to content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}

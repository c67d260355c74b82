"""The expected calibration error against a loop over bins."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.calibration.errors import Calibration


def error_by_loop(confidence: list[float], right: list[bool]) -> float:
    """Guo et al., equation 3, with M = 15 bins ((m - 1) / 15, m / 15]."""
    total = 0.0
    for m in range(1, 16):
        inside = [i for i, value in enumerate(confidence) if (m - 1) / 15 < value <= m / 15]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    return total


@given(st.integers(0, 2**20), st.lists(st.integers(0, 200), max_size=4))
def test_parts_of_any_size_give_the_error_of_the_whole(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(200).astype(np.float32) + np.float32(1e-4)
    confidence[:3] = 1, 0.5, 0.25
    confidence = confidence.clip(max=1)
    right = rng.random(200) < confidence**2
    calibration = Calibration()
    for part in np.split(np.arange(200), sorted(cuts)):
        calibration.add(torch.from_numpy(confidence[part]), torch.from_numpy(right[part]))
    assert calibration.error() == pytest.approx(error_by_loop(confidence.tolist(), right.tolist()), rel=0, abs=1e-9)


def test_sure_and_right_has_no_error_and_sure_and_wrong_has_all() -> None:
    for right, expected in ((True, 0.0), (False, 1.0)):
        calibration = Calibration()
        calibration.add(torch.ones(7), torch.full((7,), right))
        assert calibration.error() == expected


def test_nothing_added_is_no_error() -> None:
    assert Calibration().error() == 0

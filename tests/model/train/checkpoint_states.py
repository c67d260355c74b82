"""Checkpoints of one number, and what can happen to their files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from model.train.checkpoints import Checkpoints

IDENTITY: dict[str, Any] = {
    "train": {"learning_rate": 0.02, "network": {"width": 4, "modules": (1, 4, 3)}},
    "prepared_version": "abc",
}
Said = pytest.CaptureFixture[str]


def state(number: float, size: int = 1000) -> dict[str, Any]:
    return {"model": {"weight": torch.full((size,), float(number))}, "history": [{"loss": 1.0}]}


def number(loaded: Mapping[str, Any]) -> float:
    """The number that `state` was made of; every value is it."""
    weight = loaded["model"]["weight"]
    assert (weight == weight[0]).all()
    return float(weight[0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, *steps: int, keep: int = 9, identity: Mapping[str, Any] = IDENTITY) -> Checkpoints:
    """Checkpoints of these steps, each of the state of its number."""
    checkpoints = Checkpoints(folder, identity, keep)
    for step in steps:
        checkpoints.save(step, step // 10, state(step))
    checkpoints.wait()
    assert checkpoints.errors == []
    return checkpoints


def one_line(said: Said) -> str:
    """What was printed, which is one line on stderr."""
    out, err = said.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return str(err)


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)

"""A place for checkpoints, and a gate before their writing."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import model.train.checkpoint_folder
import model.train.checkpoints
from model.train.checkpoint_folder import write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checkpoints are written when it is set."""
    event = threading.Event()

    def write_when_open(*arguments: Any, **named: Any) -> None:
        event.wait()
        write_checkpoint(*arguments, **named)

    monkeypatch.setattr(model.train.checkpoints, "write_checkpoint", write_when_open)
    yield event
    event.set()

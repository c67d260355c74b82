"""The state of a training run on disk: complete, written atomically, loaded without executing anything."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass
class Checkpoint:
    """State after a number of whole epochs.

    identity: everything that must be equal for a resumed run to be the same run (settings, data version).
    history: one record for each epoch so far. rng: state of torch's CPU generator.
    """

    identity: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[dict[str, float]]
    rng: torch.Tensor


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes beside the target, then renames: a kill leaves the old checkpoint or the new one, never a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        torch.save(vars(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint at `path` if it is whole and belongs to the same run, else None."""
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"{path}: cannot be used ({reason}); training starts anew.")
        return None
    if checkpoint.identity != identity:
        print(f"{path}: belongs to a run with other parameters or data; training starts anew.")
        return None
    return checkpoint

"""The logits of finished tiles as files, so that a run that was ended goes on with what is left."""

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

CHANNELS = 6  # logits of localization (2) and of damage (4)
PLAN = "plan.json"
Logits = npt.NDArray[np.float32]


class TileStore:
    """Tiles in `folder`, each of which appears whole or not at all.

    plan: what they are tiles of; those that `folder` holds are kept if it is equal and `resume` asks for it, else they
    are removed.
    """

    def __init__(self, folder: Path, plan: str, *, resume: bool) -> None:
        self.folder = folder
        path = folder / PLAN
        if folder.exists() and not (resume and path.exists() and path.read_text(encoding="utf-8") == plan):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, plan.encode())

    def __contains__(self, number: int) -> bool:
        return self._path(number).exists()

    def save(self, number: int, logits: Logits | None, valid: npt.NDArray[np.bool_]) -> None:
        """logits: float32 [6, h, w], None for a tile without data; valid: bool [H, W]."""
        path = self._path(number)
        temporary = path.with_suffix(".partial")
        with temporary.open("wb") as file:
            stored = np.zeros((CHANNELS, 0, 0), np.float32) if logits is None else logits
            np.savez(file, logits=stored, valid=np.packbits(valid, axis=1), width=np.int64(valid.shape[1]))
        os.replace(temporary, path)

    def load(self, number: int) -> tuple[Logits | None, npt.NDArray[np.bool_]]:
        """What was saved."""
        with np.load(self._path(number)) as stored:
            logits = stored["logits"]
            valid = np.unpackbits(stored["valid"], axis=1, count=int(stored["width"])).astype(bool)
        return (logits if logits.size else None), valid

    def _path(self, number: int) -> Path:
        return self.folder / f"tile_{number:06}.npz"


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)

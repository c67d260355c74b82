"""Logits and features of finished tiles as files, so that a run that was ended goes on with what is left."""

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from base.files import new_file, write_file

CHANNELS = 6  # logits of localization (2) and of damage (4)
PLAN = "plan.json"
CLASSES = "classes.tif"  # what is made of them
OURS = (PLAN, "tile_*.npz", "*.partial", CLASSES)
Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Maps = Sequence[npt.NDArray[np.float16]]  # [h, w, C] each: the features of a tile, see `PairNetwork.with_features`
_FEATURES = "features_"


class TileStore:
    """Tiles in `folder`, each of which appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, plan: str, *, resume: bool) -> None:
        """Makes the folder ready for tiles. plan: what they are tiles of; those that the folder holds are kept if it is
        equal and `resume` asks for it, else they are removed, and no other file.
        """
        path = self.folder / PLAN
        found = path.read_text(encoding="utf-8") if path.exists() else None
        if resume and found not in (None, plan):
            print(f"{self.folder}: is of other images, settings or another model: starting anew.", file=sys.stderr)
        if found != plan or not resume:
            self.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(path, plan)

    def clear(self) -> None:
        """Removes the tiles, what was made of them, and the folder, unless it holds something else."""
        for path in [path for pattern in OURS for path in self.folder.glob(pattern)]:
            path.unlink()
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def __contains__(self, number: int) -> bool:
        return zipfile.is_zipfile(self._path(number))  # one cut by a power failure has no end

    def numbers(self) -> list[int]:
        """Of the tiles that the folder holds, in their order."""
        return sorted(int(path.stem.removeprefix("tile_")) for path in self.folder.glob("tile_*.npz"))

    def has_data(self) -> bool:
        """Whether any of the tiles has."""
        return any(self.load(number) is not None for number in self.numbers())

    def save(self, number: int, logits: Logits | None, valid: Mask, features: Maps = ()) -> None:
        """logits: float32 [6, h, w], None for a tile without data, of which nothing but this is kept; valid: [H, W]."""
        content: dict[str, Any] = {}
        if logits is not None:
            content = {"logits": logits, "valid": np.packbits(valid, axis=1), "width": np.int64(valid.shape[1])}
            content |= {f"{_FEATURES}{place}": features_map for place, features_map in enumerate(features)}
        with new_file(self._path(number)) as partial, partial.open("wb") as file:
            np.savez(file, **content)

    def load(self, number: int) -> tuple[Logits, Mask] | None:
        """What was saved; None for a tile without data."""
        with np.load(self._path(number)) as stored:
            if "logits" not in stored:
                return None
            valid = np.unpackbits(stored["valid"], axis=1, count=int(stored["width"])).astype(bool)
            return stored["logits"], valid

    def load_features(self, number: int) -> Maps | None:
        """The features that were saved, from fine to coarse; None for a tile without data."""
        with np.load(self._path(number)) as stored:
            if "logits" not in stored:
                return None
            count = sum(name.startswith(_FEATURES) for name in stored)
            return [stored[f"{_FEATURES}{place}"] for place in range(count)]

    def _path(self, number: int) -> Path:
        return self.folder / f"tile_{number:06}.npz"

"""Predictions and targets as files of the challenge's scorer, so that it can confirm our numbers.

Source of names and folders: https://github.com/DIUx-xView/xView2_scoring, revision ea0793d.
"""

from collections import Counter
from pathlib import Path

from torch import Tensor

from base.grades import UNCLASSIFIED
from base.images import encode_png
from model.inference import Prediction
from xbd.scenes import SceneRecord


class SubmissionWriter:
    """Writes the files of scene after scene below a folder: predictions/ and targets/."""

    def __init__(self, folder: Path, unclassified_as: int) -> None:
        self.folder, self.unclassified_as = folder, unclassified_as
        self.numbers = Counter[str]()

    def add(self, record: SceneRecord, prediction: Prediction, target: Tensor) -> None:
        """Writes the four files of a scene; numbers count up from 0 within each split, in the order of the calls.

        prediction: [1, H, W]; target: [1, H, W] of 0-4 and 255.
        """
        number = self.numbers[record.split]
        self.numbers[record.split] += 1
        official = target.masked_fill(target == UNCLASSIFIED, self.unclassified_as)
        for kind, masks in (("prediction", prediction), ("target", ((official > 0).to(official.dtype), official))):
            (self.folder / f"{kind}s").mkdir(exist_ok=True)
            for name, mask in zip(("localization", "damage"), masks, strict=True):
                path = self.folder / f"{kind}s" / f"{record.split}_{name}_{number:05}_{kind}.png"
                path.write_bytes(encode_png(mask[0].numpy()))


def is_submission_file(path: Path) -> bool:
    """Whether a path, relative to the folder, is of the writer's making."""
    return path.parent.name in ("predictions", "targets") and path.stem.endswith(("_prediction", "_target"))

"""Grades as if all were as frequent: by how much a model's damage logits are moved, by the labels of its training."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from base.grades import KEYS
from model.networks.pair_network import GradeOffsets
from xbd.scenes import MASK, SceneRecord, open_scene


def count_grades(data: Path, records: Iterable[SceneRecord], alive: Callable[[], None] = lambda: None) -> Tensor:
    """Pixels of each grade 1-4 in the masks of scenes of the prepared data set `data`: int64 [4].

    alive: called after each scene, of which there may be many. Raises SceneError.
    """
    counts = torch.zeros(256, dtype=torch.int64)
    for record in records:
        counts += torch.bincount(torch.tensor(open_scene(data, record)[..., MASK]).flatten(), minlength=256)
        alive()
    return counts[1 : len(KEYS) + 1]


def grade_offsets(pixels: Tensor, strength: float) -> GradeOffsets | None:
    """Strength x - log of each grade's share: at strength 1 the model grades as if all were as frequent. None where
    nothing is to be raised, as at strength 0.

    pixels: of each grade, [4]. One that has none gets 0: nothing was learned that could be raised. A new event's shares
    are others than those of the events before it, and the score is a harmonic mean over the grades. Source: see
    `GradeOffsets`.
    """
    counts = pixels.tolist()
    total = sum(counts)
    found = {key: strength * math.log(total / count) if count else 0.0 for key, count in zip(KEYS, counts, strict=True)}
    return GradeOffsets(**found) if any(found.values()) else None

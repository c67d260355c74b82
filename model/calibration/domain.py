"""What a model's training data looked like, scene by scene, and how far other imagery lies from it.

A model says of imagery unlike all that it learned from as surely what it sees, so somebody has to say it beforehand.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from torch import Tensor

from base.tensors import reading_tensors
from model.inference import DOMAIN, ModelError, Predictor
from model.networks.pair_network import PairNetwork
from xbd.dataset import Sample

SCENES = 64  # of the training data: more of them hardly come nearer to anything
FEWEST = 4  # scenes, for a distance that says something
USUAL = 0.95  # of the scenes lie no farther from the others than what is called usual
_SPREAD = 1e-3  # of the largest deviation: the least by which a number is divided
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Domain:
    """Of each of S scenes: features [S, C], the mean of what the head of damage reads, C = 0 for a network that offers
    none; colours [S, 12], the mean and the deviation of pre's and of post's red, green and blue; gsd, metres of a
    pixel, and off_nadir, degrees, [S], NaN where not known.
    """

    features: Floats
    colours: Floats
    gsd: Floats
    off_nadir: Floats


class Distance(NamedTuple):
    """distance: of the imagery's middle part to the nearest scene; usual: that which USUAL of the scenes keep to."""

    distance: float
    usual: float

    @property
    def is_unlike(self) -> bool:
        """Whether the imagery lies farther away than scenes of the training data from one another."""
        return self.distance > self.usual


def summarize(
    model: PairNetwork, scenes: Iterable[Sample], gsd: Sequence[float], off_nadir: Sequence[float],
    alive: Callable[[], None],
) -> Domain:  # fmt: skip
    """The domain of these scenes, batches of one, which the model was trained on. alive: called after each."""
    predictor = Predictor(model)
    features, colours = [], []
    for sample in scenes:
        maps = predictor.with_features(sample.pre, sample.post)[1]
        features.append(mean_of_maps([part[0].permute(1, 2, 0).float().cpu().numpy() for part in maps]))
        colours.append(colours_of(sample.pre[0].numpy(), sample.post[0].numpy()))
        alive()
    return Domain(np.stack(features), np.stack(colours), np.array(gsd, np.float32), np.array(off_nadir, np.float32))


def mean_of_maps(maps: Sequence[npt.NDArray[np.floating]]) -> Floats:
    """The mean of each channel of maps [h, w, C], one after the other, [sum of C]."""
    means = [part.mean((0, 1), dtype=np.float64) for part in maps]
    return np.concatenate([np.zeros(0), *means]).astype(np.float32)


def colours_of(pre: npt.NDArray[np.uint8], post: npt.NDArray[np.uint8]) -> Floats:
    """Mean and deviation of each channel, [12]. pre, post: [3, ...]."""
    both = np.stack([pre, post]).reshape(6, -1)
    return np.concatenate([both.mean(1), both.std(1)]).astype(np.float32)


def distance_in_features(known: Floats, own: Floats) -> Distance | None:
    """By the angle between standardized features: 1 - cosine, from 0 to 2. known: [S, C]; own: [T, C], of parts of the
    imagery that are as large as a scene. None where there are too few scenes, or no features.

    Of the distances tried it told scenes of new events apart best, which is not well: docs/benchmarks.md.
    """

    def between(one: Floats, other: Floats) -> Floats:
        unit, others = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (one, other))
        return np.asarray(1 - unit @ others.T, np.float32)

    return _distance(known, own, between)


def distance_in_colours(known: Floats, own: Floats) -> Distance | None:
    """By the root of the mean square of what standardized colours differ by; for the rest see above."""

    def between(one: Floats, other: Floats) -> Floats:
        return np.asarray(np.sqrt(((one[:, None] - other) ** 2).mean(2)), np.float32)

    return _distance(known, own, between)


def _distance(known: Floats, own: Floats, between: Callable[[Floats, Floats], Floats]) -> Distance | None:
    if len(known) < FEWEST or not len(own) or not 0 < known.shape[1] == own.shape[1]:
        return None
    spread = known.std(0)
    by = np.maximum(spread, max(float(spread.max()) * _SPREAD, 1e-12))
    scenes, parts = (known - known.mean(0)) / by, (own - known.mean(0)) / by
    among = between(scenes, scenes)
    np.fill_diagonal(among, np.inf)
    nearest = between(parts, scenes).min(1)
    return Distance(float(np.median(nearest)), float(np.quantile(among.min(1), USUAL)))


def to_tensors(domain: Domain) -> dict[str, Tensor]:
    """What the file DOMAIN of a model directory holds."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(domain).items()}


def read_domain(directory: Path) -> Domain | None:
    """The domain of a model directory, None where it has none; raises ModelError where its file is damaged."""
    path = directory / DOMAIN
    if not path.exists():
        return None
    remedy = "Fetch or train the model again."
    with reading_tensors(path, ModelError, remedy):
        found = load_file(path)
    shapes = {name: found[name].shape for name in ("features", "colours", "gsd", "off_nadir") if name in found}
    scenes = len(found["colours"]) if "colours" in found else 0
    fits = len(shapes) == len(found) == 4 and [*map(len, shapes.values())] == [2, 2, 1, 1]
    if not fits or {shape[0] for shape in shapes.values()} != {scenes} or shapes["colours"][1] != 12:
        raise ModelError(f"{path}: found the shapes {shapes}, expected features, colours, gsd and off_nadir. {remedy}")
    return Domain(**{name: value.astype(np.float32) for name, value in found.items()})

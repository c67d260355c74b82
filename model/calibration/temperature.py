"""Calibration at the end of a training: the temperatures with which a model is as often right as it is sure.

Source: Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, section 4.2.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from base.grades import UNCLASSIFIED
from model.calibration.errors import Confidence
from model.inference import Predictor, at_full_size
from model.networks.pair_network import PairNetwork, Temperatures
from xbd.dataset import Sample

SCENES = 64  # more of them change a temperature by less than it matters
PIXELS = 4096  # of a scene and a part: neighbours say the same
_LIMIT = math.log(20.0)  # of a temperature, and its inverse


class Calibrated(NamedTuple):
    """temperatures: what was found. errors: the expected calibration error before and after, of localization, of
    damage and of each grade, each in [0, 1].
    """

    temperatures: Temperatures
    errors: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        parts = (
            f"{part.replace('_', ' ')} {before:.3f} -> {after:.3f}" for part, (before, after) in self.errors.items()
        )
        temperatures = f"localization {self.temperatures.localization:g}, damage {self.temperatures.damage:g}"
        return f"temperatures: {temperatures}; calibration error: {', '.join(parts)}"


def calibrate(model: PairNetwork, scenes: Iterable[Sample], alive: Callable[[], None]) -> Calibrated:
    """The temperatures by which the model's logits explain the labels of whole scenes best.

    scenes: batches of one, which the model was not trained on. alive: called after each. The localization learns from
    the labelled pixels, the damage from those of labelled buildings; where there are none the temperature is 1.
    """
    predictor = Predictor(model)
    parts: tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]] = ([], [])
    for sample in scenes:
        mask = sample.mask[0].flatten()
        logits = predictor.logits(sample.pre, sample.post)
        known, graded = mask != UNCLASSIFIED, (mask != UNCLASSIFIED) & (mask > 0)
        size = (sample.mask.shape[-2], sample.mask.shape[-1])
        for found, head, chosen, labels in zip(
            parts, logits, (known, graded), (mask.clamp(max=1), mask - 1), strict=True
        ):
            places = _spread(chosen)
            found.append((at_full_size(head, size)[0].flatten(1).cpu()[:, places].T.double(), labels[places].long()))
        alive()
    (localization, buildings), (damage, grades) = (map(torch.cat, zip(*part, strict=True)) for part in parts)
    temperatures = Temperatures(
        localization=_best_temperature(localization, buildings), damage=_best_temperature(damage, grades)
    )
    before, after = (
        _errors(localization / by.localization, buildings, damage / by.damage, grades)
        for by in (Temperatures(localization=1.0, damage=1.0), temperatures)
    )
    return Calibrated(temperatures, {part: (before[part], after[part]) for part in before})


def _spread(chosen: Tensor) -> Tensor:
    """Up to PIXELS of the chosen places, evenly spread over them."""
    places = chosen.nonzero()[:, 0]
    return places[torch.linspace(0, len(places) - 1, min(PIXELS, len(places))).long()]


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """That of the smallest cross-entropy, to four digits; 1 without a label.

    logits: float64 [N, C]; labels: int64 [N].
    """
    if not len(labels):
        return 1.0
    power = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([power], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(logits * (-power.clamp(-_LIMIT, _LIMIT)).exp(), labels)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return float(f"{math.exp(max(-_LIMIT, min(_LIMIT, power.item()))):.4g}")


def _errors(localization: Tensor, buildings: Tensor, damage: Tensor, grades: Tensor) -> dict[str, float]:
    confidence = Confidence()
    confidence.add_buildings(localization.softmax(1)[:, 1], buildings == 1)
    confidence.add_grades(damage.softmax(1).T, grades + 1)
    return confidence.errors()

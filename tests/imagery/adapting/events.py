"""Made events whose truth is known: what the network says of the grades, and what its features hold."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imagery.adapting.evidence import Evidence
from imagery.sampling.draw import Draw, draw_buildings
from imagery.sampling.judged import Judgement, Prefix, prefix

CHANNELS = 60


class Event(NamedTuple):
    """All in the order of the draw. truth: [N] of JUDGEMENTS."""

    draw: Draw
    truth: npt.NDArray[np.int64]
    evidence: Evidence

    def judged(self, count: int) -> Prefix:
        rows, strata = self.draw.order.tolist(), self.draw.strata.tolist()
        return prefix(
            self.draw,
            [Judgement(int(self.truth[rank]), rows[rank], rank, strata[rank]) for rank in range(count)],
        )

    def with_features(self, features: npt.NDArray[np.floating] | None) -> "Event":
        return self._replace(evidence=self.evidence._replace(features=features))


def event(
    *, sharp: float, telling: float, shares: tuple[float, ...] = (0.0, 0.55, 0.2, 0.1, 0.15), count: int = 1200,
    seed: int = 0,
) -> Event:  # fmt: skip
    """sharp: how well the network's probabilities tell the grades, telling: how well its features do, 0 for not at all;
    shares: of what is no building, and of the grades.
    """
    generator = np.random.default_rng(seed)
    truth = generator.choice(len(shares), count, p=shares)
    hot = np.eye(5)[truth]
    evidence = generator.normal(0, 1, (count, 4)) + sharp * hot[:, 1:]
    probabilities = np.exp(evidence) / np.exp(evidence).sum(1, keepdims=True)
    directions = generator.normal(0, 1, (5, CHANNELS))
    features = generator.normal(0, 2, (count, CHANNELS)) + telling * hot @ directions
    scales = generator.gamma(2, 3, CHANNELS)  # as channels of a network differ
    draw = draw_buildings(probabilities[:, 1:].sum(1), generator.random((count, 2)) * 1000, seed, "m")
    kept = Evidence(probabilities, (features * scales + 5).astype(np.float16)).at(draw.order)
    return Event(draw, truth[draw.order].astype(np.int64), kept)

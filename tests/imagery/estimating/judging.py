"""A made town whose truth is known, judged by it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imagery.estimating.frame import Frame
from imagery.sampling.draw import Draw, draw_buildings
from imagery.sampling.judged import CANNOT_TELL, Judgement, Prefix, prefix


class Town(NamedTuple):
    """All in the order of the draw. truth: [N] of 0 to 4 and CANNOT_TELL; probabilities: [N, 4] of the grades."""

    draw: Draw
    frame: Frame
    truth: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    def judged(self, count: int) -> Prefix:
        return prefix(
            self.draw,
            [
                Judgement(int(grade), int(row), rank, int(stratum))
                for rank, (grade, row, stratum) in enumerate(
                    zip(self.truth[:count], self.draw.order, self.draw.strata, strict=False)
                )
            ],
        )


def town(count: int = 600, seed: int = 0) -> Town:
    generator = np.random.default_rng(seed)
    truth = generator.choice([0, 1, 2, 3, 4, CANNOT_TELL], count, p=[0.05, 0.6, 0.1, 0.08, 0.12, 0.05])
    evidence = generator.normal(0, 0.7, (count, 4)) + 2.0 * (truth[:, None] == np.arange(1, 5))
    evidence[:, 0] += 1
    probabilities = np.exp(evidence) / np.exp(evidence).sum(1, keepdims=True)
    places = generator.random((count, 2)) * 1000
    draw = draw_buildings(probabilities[:, 1:].sum(1), places, seed, "m")
    areas = {"west": places[:, 0] < 400, "none": np.zeros(count, bool)}
    frame = Frame(probabilities.argmax(1) + 1, generator.gamma(3, 40, count), areas).in_order(draw)
    return Town(draw, frame, truth[draw.order], probabilities[draw.order])

"""The draw: an order of all that can be judged, of which a person judges as much as there is time for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagery.sampling.places import spread
from imagery.sampling.strata import share_out, stratify


@dataclass(frozen=True, eq=False)
class Draw:
    """An order without repetition. order: [N] row of the map's table of what is judged first, second, ...; strata: [N]
    the stratum of each of these, 0 to H - 1, none of them empty; seed: of the lot; map_hash: of what was drawn from.

    The first n of the order are a stratified random sample, for every n.
    """

    order: npt.NDArray[np.int64]
    strata: npt.NDArray[np.int64]
    seed: int
    map_hash: str

    def __len__(self) -> int:
        """How many there are to judge."""
        return len(self.order)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many each stratum holds, N_h, [H]."""
        return np.bincount(self.strata)

    def taken(self, judged: int) -> npt.NDArray[np.int64]:
        """How many of each stratum are among the first `judged`, n_h, [H]."""
        return np.bincount(self.strata[:judged], minlength=len(self.sizes))

    def inclusion(self, judged: int) -> npt.NDArray[np.float64]:
        """The probability of each of the order to be among the first `judged`, n_h / N_h of its stratum, [N]."""
        return (self.taken(judged) / self.sizes)[self.strata]

    @property
    def fewest(self) -> int:
        """The first number judged that allows an interval: two of each stratum, or all of it."""
        last = [np.flatnonzero(self.strata == stratum)[:2][-1] for stratum in range(len(self.sizes))]
        return int(max(last, default=-1)) + 1


def draw_buildings(scores: npt.NDArray[np.float64], places: npt.NDArray[np.float64], seed: int, map_hash: str) -> Draw:
    """Draws buildings by score and place; those without a score, which no image shows, are left out.

    scores: [N] predicted probability of damage, grades 2 to 4, NaN where not visible; places: [N, 2] x and y in metres.
    """
    generator = np.random.default_rng(seed)
    seen = np.flatnonzero(np.isfinite(scores))
    strata = stratify(scores[seen], generator)
    return in_turn(seen, strata, places[seen], generator, seed, map_hash)


def in_turn(
    rows: npt.NDArray[np.int64],
    strata: npt.NDArray[np.int64],
    places: npt.NDArray[np.float64],
    generator: np.random.Generator,
    seed: int,
    map_hash: str,
) -> Draw:
    """Draws the rows in an order that is spread over places and shared out over strata. rows, strata: [N]; places:
    [N, 2] x and y.
    """
    if not len(rows):
        return Draw(np.zeros(0, np.int64), np.zeros(0, np.int64), seed, map_hash)
    turns = share_out(np.bincount(strata))
    order = np.empty(len(rows), np.int64)
    for stratum in range(int(strata.max()) + 1):
        members = np.flatnonzero(strata == stratum)
        order[turns == stratum] = rows[members[spread(places[members], generator)]]
    return Draw(order, turns, seed, map_hash)

"""What the map says of all that could be judged, and sums over what was."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imagery.estimating.interval import Floats, Sums
from imagery.sampling.draw import Draw
from imagery.sampling.judged import Prefix


@dataclass(frozen=True, eq=False)
class Frame:
    """The buildings of a draw, in its order. grades: [N] of 1 to 4, the map's; area_m2: [N], above 0; areas: for each
    area by its name, which buildings lie in it, [N]; they may overlap.
    """

    grades: npt.NDArray[np.int64]
    area_m2: Floats
    areas: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def in_order(self, draw: Draw) -> "Frame":
        """The frame of a draw, from columns of the map's table."""
        areas = {name: inside[draw.order] for name, inside in self.areas.items()}
        return Frame(self.grades[draw.order], self.area_m2[draw.order], areas)


def by_stratum(prefix: Prefix, values: Floats) -> Floats:
    """Sums over the judged of each stratum, [..., H]. values: [..., n]."""
    strata = prefix.strata[:, None] == np.arange(len(prefix.draw.sizes))
    sums: Floats = values @ strata.astype(np.float64)
    return sums


def sums_of(prefix: Prefix, amounts: Floats, hits: npt.NDArray[np.bool_]) -> Sums:
    """amounts: a of each judged, 0 outside of the domain, [n] or [C, n]; hits: which have what is asked for, [C, n]."""
    amounts = np.broadcast_to(amounts, hits.shape)
    return Sums(
        np.broadcast_to(by_stratum(prefix, np.ones(len(prefix))), (*hits.shape[:-1], len(prefix.draw.sizes))),
        *(by_stratum(prefix, values) for values in (amounts, amounts**2, amounts * hits, amounts**2 * hits)),
    )

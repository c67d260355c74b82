"""What a file says of where it has data, held against its pixels: an alpha band that is none, a collar untagged."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

LOOK = 1024  # pixels of the longer side of what is looked at
OTHERS = 0.1  # share of an alpha band's pixels above 0 that may differ from the most frequent of them: soft edges
BORDER, LEAST = 0.1, 0.01  # shares of the border, and of all pixels, from which on one value is taken for a collar
Seen = npt.NDArray[np.bool_]


class Collar(NamedTuple):
    """Pixels of one value from the border of an image on. value: of all bands; where: bool [H, W]."""

    value: float
    where: Seen

    @property
    def share(self) -> float:
        """Of all pixels."""
        return float(self.where.mean())


def is_mask(alpha: npt.NDArray[Any]) -> bool:
    """Whether values of an alpha band tell where there is data, and are no measurements, such as near infrared."""
    values, counts = np.unique(alpha[alpha > 0], return_counts=True)
    return len(values) < 2 or bool(counts.max() >= (1 - OTHERS) * counts.sum())


def find_collar(values: npt.NDArray[Any], valid: Seen) -> Collar | None:
    """The collar of an image whose file tells of none, None where it has none.

    values: [bands, H, W]; valid: bool [H, W], false where nothing lies, as between tiles, where a collar may go on.
    """
    border = np.ones(valid.shape, bool)
    border[1:-1, 1:-1] = False
    edge = values[:, border & valid]
    edge = edge[0, (edge == edge[0]).all(0)]  # NaN is no data already
    # What programs fill with: 0, -9999, or the highest value. Clouds may have one value, too.
    full = np.iinfo(edge.dtype).max if np.issubdtype(edge.dtype, np.integer) else np.finfo(edge.dtype).max
    edge = edge[(edge <= 0) | (edge == full)]
    if not edge.size:
        return None
    found, counts = np.unique(edge, return_counts=True)
    value = found[counts.argmax()]
    if counts.max() < BORDER * border.sum():
        return None
    alike = (values == value).all(0) | ~valid
    _, parts = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
    outer = np.unique(parts[border & alike])
    where = np.isin(parts, outer) & alike & valid
    return Collar(float(value), where) if where.mean() >= LEAST else None


def smaller(height: int, width: int) -> tuple[int, int]:
    """The shape in which an image is looked at."""
    scale = min(1.0, LOOK / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))

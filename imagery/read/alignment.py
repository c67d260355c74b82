"""How far the image after lies beside the one before, as a whole and from place to place."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

Floats = npt.NDArray[np.float32]


class Alignment(NamedTuple):
    """What is known of how post lies. mode: one of `imagery.settings.ALIGNMENTS`. x, y: pixels that what pre shows lies
    further right and down in post, 0 where none was found. certainty: how far that stands out, see
    `imagery.read.registration`. found: whether it is enough. places: for mode local, what is added to x and y at
    `rows` x `columns` pixels of the grid, float32 [2, len(rows), len(columns)]. compared: whether there was enough to
    see to look for a shift at all.
    """

    mode: str = "off"
    x: float = 0.0
    y: float = 0.0
    certainty: float = 0.0
    found: bool = False
    places: Floats | None = None
    rows: tuple[float, ...] = ()
    columns: tuple[float, ...] = ()
    compared: bool = False

    def at(self, window: Window) -> tuple[Floats, Floats]:
        """What is added to x and y for the pixels of a window, each float32 [H, W]: linear between places."""
        assert self.places is not None
        y = window.row_off + 0.5 + np.arange(window.height)
        x = window.col_off + 0.5 + np.arange(window.width)
        across, down = np.meshgrid(_between(self.columns, x), _between(self.rows, y))
        found = np.stack([cv2.remap(part, across, down, cv2.INTER_LINEAR) for part in self.places])
        return found[0], found[1]

    def facts(self, gsd: float) -> dict[str, Any]:
        """Fit for JSON, with a sentence for people. gsd: metres of a pixel."""
        known: dict[str, Any] = {"mode": self.mode, "said": self._said(gsd)}
        if self.mode == "off":
            return known
        known["compared"] = self.compared
        known |= {"x_px": round(self.x, 2), "y_px": round(self.y, 2), "certainty": round(self.certainty, 1)}
        return known if self.places is None else known | {"further_px": round(self._furthest(), 2)}

    def _said(self, gsd: float) -> str:
        if self.mode == "off":
            return "off: the images were taken as they lie"
        if not self.found and not self.compared:
            return (
                "unknown: nothing was compared, too little of the images has data in both; they were taken as they lie"
            )
        if not self.found:
            return "none: no shift between the images stood out, they were taken as they lie"
        metres = gsd * float(np.hypot(self.x, self.y))
        said = (
            f"what the image before shows lay {abs(self.x):.1f} pixels further {'right' if self.x >= 0 else 'left'} "
            f"and {abs(self.y):.1f} further {'down' if self.y >= 0 else 'up'} in the image after ({metres:.1f} m)"
        )
        if self.places is not None:
            said += f", and up to {self._furthest():.1f} pixels more in places"
        return f"{said}; this was corrected"

    def _furthest(self) -> float:
        assert self.places is not None
        return float(np.hypot(*self.places).max())


def _between(places: tuple[float, ...], pixels: npt.NDArray[np.float64]) -> Floats:
    """Where pixels lie among places, counted in places; those outside at the nearest."""
    return np.interp(pixels, places, np.arange(len(places))).astype(np.float32)

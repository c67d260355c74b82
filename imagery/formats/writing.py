"""What of a map is written on request, beside the files that every map has."""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import rasterio

from imagery.formats.stac import MadeBy, write_item
from imagery.formats.tiles import refuse_poles, write_tiles
from imagery.formats.vector_tiles import write_pmtiles
from imagery.give.look import Read
from imagery.give.names import FLATGEOBUF, GEOPARQUET, PMTILES
from imagery.give.rasters import DAMAGE
from imagery.give.table import Table
from imagery.read.grid import Grid
from imagery.read.vectors import write_flatgeobuf, write_geoparquet


class Formats(NamedTuple):
    """names: of `imagery.settings.FORMATS`; read: the images, for tiles; made_by: the model, for the STAC item."""

    names: Collection[str]
    read: Read
    made_by: MadeBy

    def write(self, folder: Path, table: Table) -> None:
        """Writes the formats of the map in a folder that holds all else of it. Raises what
        `imagery.give.outputs.give_out` does, and OutputError where web maps cannot show it.
        """
        if "flatgeobuf" in self.names:
            write_flatgeobuf(table.frame, folder / FLATGEOBUF)
        if "geoparquet" in self.names:
            write_geoparquet(table.frame, folder / GEOPARQUET)
        if "pmtiles" in self.names:
            write_pmtiles(table.frames, folder / PMTILES)
        if "tiles" in self.names:
            with rasterio.open(folder / DAMAGE) as dataset:
                grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
            write_tiles(folder, self.read, grid)
        if "stac" in self.names:  # the last: it names what is there
            write_item(folder, self.made_by, datetime.now(UTC))


def check_formats(names: Collection[str], grid: Grid) -> None:
    """Raises OutputError where a map of this grid cannot be had in these formats: what a run should know before its
    work.
    """
    for name in ("pmtiles", "tiles"):
        if name in names:
            refuse_poles(grid, name)

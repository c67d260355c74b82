"""The images of a plan, opened again: the files that a part of the grid is read from, and none that has changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio.windows import Window

from imagery.read.image import KnownImage
from imagery.read.mosaic import renamed
from imagery.read.raster import ImagePair, KnownPair, Tile
from imagery.settings import Sources
from imagery.shards.indexing import Fetch, checksum
from imagery.shards.plan import Plan, PlanError, PlannedFile, PlannedImage

# Pixels around a window from which it may be read: GDAL warps in blocks, and post lies a shift beside pre.
MARGIN = 1024


class PlannedImages:
    """Both images of a plan, of which only what is read is fetched. Each file is fetched once, and held against its
    checksum. Raises PlanError where a file is another one than the plan was made of.
    """

    def __init__(self, plan: Plan, fetch: Fetch) -> None:
        self._plan, self._fetch = plan, fetch
        self._paths: dict[str, Path] = {}

    @contextmanager
    def opened(self, part: Window) -> Iterator[ImagePair]:
        """The pair, to be read within a window of the grid."""
        plan = self._plan
        known = KnownPair(
            self._known(plan.pre, part), self._known(plan.post, part), plan.grid.grid, plan.ranges,
            plan.alignment.alignment,
        )  # fmt: skip
        paths = (tuple(Path(file.location) for file in image.files) for image in (plan.pre, plan.post))
        with ImagePair(Sources(*paths, **vars(plan.reading)), known) as pair:
            yield pair

    def read(self, window: Window) -> Tile:
        """Both images in a window of the grid, see `ImagePair.read`."""
        with self.opened(window) as pair:
            return pair.read(window)

    def _known(self, image: PlannedImage, part: Window) -> KnownImage:
        for file in image.files:
            if (image.vrt is None or _is_near(file, part)) and file.location not in self._paths:
                self._paths[file.location] = self._bring(file)
        paths = {file.location: str(self._paths.get(file.location, file.location)) for file in image.files}
        source = paths[image.files[0].location] if image.vrt is None else renamed(image.vrt, paths)
        return KnownImage(image.name, image.bands, tuple(paths.values()), source)

    def _bring(self, file: PlannedFile) -> Path:
        path = self._fetch(file.location)
        found = checksum(path)
        if found != file.sha256:
            raise PlanError(
                f"{file.location}: has changed since the plan was made: found SHA-256 {found[:12]}, expected "
                f"{file.sha256[:12]}. Bring the file back, or make the plan again."
            )
        return path


def _is_near(file: PlannedFile, part: Window) -> bool:
    if file.box is None:
        return False
    left, top, right, bottom = file.box
    columns, rows = part.col_off, part.row_off
    return bool(
        left < columns + part.width + MARGIN and right > columns - MARGIN
        and top < rows + part.height + MARGIN and bottom > rows - MARGIN
    )  # fmt: skip

"""The images of a plan, opened again: the files that a part of the grid is read from, and none that has changed."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

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
    """Both images of a plan, a context manager. Only files around what is read are fetched, each once, and held against
    their checksums. Raises PlanError where a file is another one than the plan was made of.
    """

    def __init__(self, plan: Plan, fetch: Fetch) -> None:
        self._plan, self._fetch = plan, fetch
        self._paths: dict[str, Path] = {}
        self._stack = ExitStack()
        self._pair: ImagePair | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pair(self, part: Window) -> ImagePair:
        """The pair, to be read within a window of the grid; one that was given before may be closed by then."""
        images = self._plan.pre, self._plan.post
        needed = [file for image in images for file in image.files if image.vrt is None or _is_near(file, part)]
        missing = [file for file in needed if file.location not in self._paths]
        self._paths |= {file.location: self._bring(file) for file in missing}
        if self._pair is None or missing:
            self._stack.close()
            self._pair = self._stack.enter_context(self._open())
        return self._pair

    def read(self, window: Window) -> Tile:
        """Both images in a window of the grid, see `ImagePair.read`."""
        return self.pair(window).read(window)

    def _open(self) -> ImagePair:
        plan = self._plan
        known = self._known(plan.pre), self._known(plan.post)
        paths = (tuple(Path(file.location) for file in image.files) for image in (plan.pre, plan.post))
        return ImagePair(
            Sources(*paths, **vars(plan.reading)),
            KnownPair(*known, plan.grid.grid, plan.ranges, plan.alignment.alignment),
        )

    def _known(self, image: PlannedImage) -> KnownImage:
        paths = {file.location: str(self._paths.get(file.location, file.location)) for file in image.files}
        source = paths[image.files[0].location] if image.vrt is None else renamed(image.vrt, paths)
        return KnownImage(image.name, image.bands, tuple(paths.values()), source)

    def _bring(self, file: PlannedFile) -> Path:
        path = self._fetch(file.location)
        refuse_changed(file.location, checksum(path), file.sha256)
        return path


def refuse_changed(location: str, found: str, expected: str) -> None:
    """Raises PlanError where the checksum of a file is not that of the plan."""
    if found != expected:
        raise PlanError(
            f"{location}: has changed since the plan was made: found SHA-256 {found[:12]}, expected {expected[:12]}. "
            "Bring the file back, or make the plan again."
        )


def _is_near(file: PlannedFile, part: Window) -> bool:
    if file.box is None:
        return False
    left, top, right, bottom = file.box
    columns, rows = part.col_off, part.row_off
    return bool(
        left < columns + part.width + MARGIN and right > columns - MARGIN
        and top < rows + part.height + MARGIN and bottom > rows - MARGIN
    )  # fmt: skip

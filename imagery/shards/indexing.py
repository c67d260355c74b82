"""The files of an image for a plan: what each is and where it lies; what cannot be used is left out, and said."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from base.errors import InputError
from imagery.read.bands import Numbers
from imagery.read.file import open_raster
from imagery.read.grid import Grid
from imagery.read.image import Image
from imagery.read.mosaic import Kind, check_alike, check_between, kind_of
from imagery.shards.plan import LeftOut, PlanError

Fetch = Callable[[str], Path]  # brings what lies at a location; raises InputError
_CHUNK = 2**20


class Indexed(NamedTuple):
    """A file that can be used. kind: what all files of an image have in common."""

    location: str
    path: Path
    sha256: str
    grid: Grid
    gsd: float
    kind: Kind


def index(
    option: str, locations: Sequence[str], fetch: Fetch, bands: Numbers | None, nodata: float | None
) -> tuple[list[Indexed], list[LeftOut]]:
    """The files of one image, in their order, and what was left out: what cannot be read, and what is of another kind
    than most. Raises PlanError where nothing is left; option: by which the locations were given.
    """
    found, left = list[Indexed](), list[LeftOut]()
    for location in locations:
        path = Path(location)
        try:
            path = fetch(location)
            found.append(_look(location, path, bands, nodata))
        except InputError as error:
            left.append(LeftOut(what=location, why=str(error).replace(str(path), location)))
    if not found:
        more = f" {len(left) - 1} more cannot be used either." if len(left) > 1 else ""
        raise PlanError(f"{option}: has no image that can be used. {left[0].why}{more}")
    most = Counter(file.kind for file in found).most_common(1)[0][0]
    first = next(file for file in found if file.kind == most)
    fitting = []
    for file in found:
        try:
            check_alike(file.location, file.kind, first.location, first.kind)
            check_between(file.location, _corner(first.grid, file.grid), first.location)
            fitting.append(file)
        except InputError as error:
            left.append(LeftOut(what=file.location, why=str(error)))
    return fitting, left


def checksum(path: Path) -> str:
    """SHA-256 of a raster's bytes and of those of the files beside it that GDAL reads with it. Raises RasterError,
    OSError.
    """
    digest = hashlib.sha256()
    with ExitStack() as stack:
        files = open_raster(path, stack).files
    for name in sorted({str(path), *files}, key=lambda name: (name != str(path), name)):
        if Path(name).is_file():
            with open(name, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def _look(location: str, path: Path, bands: Numbers | None, nodata: float | None) -> Indexed:
    with Image((path,), bands, nodata) as image, ExitStack() as stack:
        image.read_end()
        kind = kind_of(open_raster(path, stack))
        return Indexed(location, path, checksum(path), image.grid, image.gsd, kind)


def _corner(grid: Grid, other: Grid) -> tuple[float, float]:
    """The first corner of another grid, in pixels of this one."""
    x, y = ~grid.transform @ (other.transform.c, other.transform.f)
    return float(x), float(y)

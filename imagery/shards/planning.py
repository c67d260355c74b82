"""A plan is made: files to an index, the common grid, the shift of post, and the shards."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.windows import Window

from imagery.give.event import Event
from imagery.mapping import align_pair, look_over, tell_event
from imagery.read.grid import Grid, meet
from imagery.read.image import KnownImage
from imagery.read.mosaic import renamed
from imagery.read.raster import ImagePair
from imagery.settings import ALIGN, CACHE, Reading, Sources, Windows
from imagery.shards.division import divide, weigh
from imagery.shards.footprints import index_footprints
from imagery.shards.indexing import Fetch, Indexed, index
from imagery.shards.plan import (
    LeftOut,
    Plan,
    PlannedAlignment,
    PlannedDomain,
    PlannedEvent,
    PlannedFile,
    PlannedGrid,
    PlannedImage,
)
from imagery.shards.reading import MARGIN
from model.calibration.domain import Domain
from model.inference import Origin, Views


class PlannedModel(NamedTuple):
    """location: of a model directory, as the map names it; network: where shards get it; identity: see
    `imagery.predict.inference.identity_of`; origin: what it was trained on; domain: what that looked like, None where
    that is not known; event: the model of an event that grades the buildings, if any; stated: see
    `imagery.mapping.stated_by`.
    """

    location: str
    network: str
    identity: str
    origin: Origin
    domain: Domain | None
    event: Event | None
    stated: Mapping[str, bool]


def make_plan(
    load: Callable[[], PlannedModel], pre: Sequence[str], post: Sequence[str], fetch: Fetch, shards: int, *,
    reading: Reading, windows: Windows, features: bool, views: Views = 1, align: str = ALIGN,
    names: Mapping[str, Sequence[str]], taken: Mapping[str, Sequence[str]] | None = None,
    footprints: tuple[str, str] | None = None,
) -> Plan:  # fmt: skip
    """Looks at the files and how they lie to each other, and divides what both images show into shards.

    load: what is known of the model; it is called when the files were found good. pre, post: locations of files. fetch:
    brings one. names: what the report calls the images. taken: when the first and the last of each was, by "before" and
    "after". footprints: the name, as it was given, and the location of a file of buildings. The rest: see
    `imagery.mapping.make_map`.
    Prints what it works on, and as warnings what is left out. Raises PlanError, RasterError, VectorError,
    OutputError, and what `load` raises.
    """
    files, left = dict[str, list[Indexed]](), list[LeftOut]()
    for option, locations, place in (("--pre", pre, 0), ("--post", post, -1)):
        found = index(option, locations, fetch, reading.bands[place], reading.nodata[place])
        files[option], left = found[0], [*left, *found[1]]
    for each in left:
        print(f"warning: left out: {each.why}", file=sys.stderr, flush=True)
    paths = [tuple(file.path for file in found) for found in files.values()]
    with rasterio.Env(GDAL_CACHEMAX=CACHE), ImagePair(Sources(*paths, **vars(reading))) as pair:
        look_over(pair)
        buildings = None if footprints is None else index_footprints(*footprints, fetch, pair.grid)
        model = load()
        if model.event is not None:
            tell_event(model.event, features=features)
        facts = align_pair(pair, align, model.origin, model.stated)
        facts["event"] = model.event and model.event.facts
        grid, known = pair.grid, pair.known
    if taken is not None:
        facts["taken"] = dict(taken)
    images = [
        _planned(found, image, grid) for found, image in zip(files.values(), (known.pre, known.post), strict=True)
    ]
    boxes = [[file.box for file in image.files if file.box is not None] for image in images]
    plan = Plan(
        model=model.location, network=model.network, identity=model.identity,
        domain=model.domain and PlannedDomain.of(model.domain), event=model.event and PlannedEvent.of(model.event),
        views=views, reading=reading, tile=windows.tile, overlap=windows.overlap, features=features,
        footprints=buildings, pre=images[0], post=images[1], grid=PlannedGrid.of(grid), ranges=known.ranges,
        alignment=PlannedAlignment.of(known.alignment), facts={**names, **facts},
        shards=divide(grid.width, grid.height, weigh(grid.width, grid.height, *boxes), shards), left_out=tuple(left),
    )  # fmt: skip
    used = " and ".join(f"{len(own)} of {len(image.files)}" for own, image in zip(boxes, images, strict=True))
    print(f"files that lie in what both images show: {used}; shards: {len(plan.shards)}")
    return plan


def _planned(files: Sequence[Indexed], known: KnownImage, grid: Grid) -> PlannedImage:
    locations = {str(Path(file.path).absolute()): file.location for file in files}
    is_vrt = known.source.lstrip().startswith("<")
    first = files[0].location
    return PlannedImage(
        name=first if len(files) == 1 else f"{first} and {len(files) - 1} more",
        bands=known.bands,
        vrt=renamed(known.source, locations) if is_vrt else None,
        files=tuple(
            PlannedFile(
                location=file.location, sha256=file.sha256, crs=file.grid.crs.to_string(), gsd_m=round(file.gsd, 4),
                extent=file.grid.extent, box=_box(grid, file.grid),
            )
            for file in files
        ),
    )  # fmt: skip


def _box(grid: Grid, other: Grid) -> tuple[int, int, int, int] | None:
    """What another grid covers of this one and of what is around it, in pixels of it."""
    around = grid.cut(Window(-MARGIN, -MARGIN, grid.width + 2 * MARGIN, grid.height + 2 * MARGIN))
    found = meet(around, other)
    if found is None:
        return None
    left, top = found.col_off - MARGIN, found.row_off - MARGIN
    return left, top, left + found.width, top + found.height

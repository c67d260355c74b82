"""The shards of a plan become one map: the same as one machine makes, or a part of it where shards are missing."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from base.files import write_file
from base.processes import ALONE, Crew
from imagery.errors import RasterError
from imagery.find.features import Means
from imagery.find.footprints import Footprints, grade_part
from imagery.find.joining import Pieces, join_shards, nothing_known
from imagery.find.pixels import Numbers
from imagery.formats.stac import MadeBy
from imagery.formats.writing import Formats, check_formats
from imagery.give.features import Judged
from imagery.give.found import Found, of_buildings, of_footprints
from imagery.give.look import Look, factor_of, look_of, reduced
from imagery.give.outputs import check_outputs, give_out
from imagery.give.summary import Summary
from imagery.mapping import tell_likeness
from imagery.predict.blending import compose_nothing
from imagery.predict.domain import Likeness, Parts, compare
from imagery.predict.tile_features import carried, mean
from imagery.read.file import open_raster
from imagery.read.mosaic import mosaic
from imagery.read.vectors import Polygons
from imagery.settings import CACHE, CELL
from imagery.shards.footprints import join_footprints, planned_footprints
from imagery.shards.indexing import Fetch
from imagery.shards.plan import LeftOut, Plan, PlanError
from imagery.shards.reading import PlannedImages
from imagery.shards.stored import StoredShard

COMPLETE, PARTIAL = "complete", "partial"
_ROWS = 8192  # of the features of a shard, in memory at once


def merge_shards(
    plan: Plan, shards: Sequence[StoredShard], missing: Sequence[LeftOut], fetch: Fetch, out: Path, work: Path, *,
    areas: Polygons | None = None, cell: float = CELL, formats: Collection[str] = (), made_by: MadeBy | None = None,
    crew: Crew = ALONE,
) -> tuple[Summary, str]:  # fmt: skip
    """Writes the map of the shards into the folder `out`, as `imagery.give.outputs.give_out` does; returns the summary,
    and COMPLETE, or PARTIAL where files or shards were left out, which the summary and the report name.

    missing: the other shards of the plan, by their numbers, and why. fetch: brings an image, for the pictures of the
    buildings to judge. work: a folder for what is needed on the way, with room for the outlines of all buildings, of
    which a part is in memory at a time. areas, cell: as there. formats: of `imagery.settings.FORMATS`, to write the map
    as these, too; made_by: the model with its STAC item, for them.
    crew: shares the work on many buildings.
    Raises PlanError where no shard is there or an image or the file of footprints is another one than the plan was made
    of, RasterError where no shard has data, VectorError, and what `give_out` and `fetch` raise.
    """
    check_outputs(out, cell)
    check_formats(formats, plan.grid.grid)
    if not shards:
        raise PlanError(f"no shard is there: {missing[0].why} Predict the shards first.")
    left_out = [*plan.left_out, *missing]
    for each in missing:
        print(f"warning: shard {each.what} is missing: {each.why}", file=sys.stderr, flush=True)
    if not any(shard.has_data for shard in shards):
        raise RasterError(
            f"{plan.post.name}: has no data where {plan.pre.name} has some. Give two images of the same place."
        )
    by_number, given = {shard.number: shard for shard in shards}, planned_footprints(plan, fetch)
    ordered = [by_number[number] for number in sorted(by_number)]
    with rasterio.Env(GDAL_CACHEMAX=CACHE), PlannedImages(plan, fetch) as images:
        classes = _lay_together(plan, by_number, work)

        def finding() -> Found:
            found, parts = _join(plan, by_number, given, work, crew)
            scales = next((shard.scales for shard in shards if shard.scales), ())
            means = _means(ordered, parts) if scales else ()
            return found._replace(seen=found.seen._replace(scales=scales, means=means))

        judged = Judged(plan.identity, plan.model, images.read) if plan.features else None
        look = tell_likeness(_look(plan, by_number, left_out), _likeness(plan, ordered))
        further = Formats(formats, images.read, made_by or MadeBy(plan.model)).write
        summary = give_out(
            classes, finding, out, look, areas=areas, cell=cell, judged=judged,
            event=None if plan.event is None else plan.event.event, further=further, crew=crew,
        )  # fmt: skip
    for note in summary.notes:
        print(f"warning: {note}", file=sys.stderr)
    return summary, PARTIAL if left_out else COMPLETE


def _join(
    plan: Plan, shards: Mapping[int, StoredShard], given: Footprints | None, work: Path, crew: Crew
) -> tuple[Found, Numbers]:
    """The buildings of the map; and the numbers in it of those whose features one shard after the other has."""
    grid = plan.grid.grid
    if given is None:
        found = join_shards(_pieces(plan, shards), work)
        return of_buildings(found, grid, work, crew), found.parts
    graded, parts = join_footprints(given, (shards[number].footprints() for number in sorted(shards)))
    for number in set(range(len(plan.shards))) - set(shards):
        shard = plan.shards[number]
        nothing = grade_part(given, _nothing(work, number), grid, (shard.column, shard.row))
        graded = graded._replace(partly=graded.partly | nothing.partly)
    return of_footprints(graded, grid), parts


def _pieces(plan: Plan, shards: Mapping[int, StoredShard]) -> Iterator[tuple[Window, Pieces]]:
    """The buildings of all shards, one shard after the other."""
    for number, part in enumerate(plan.shards):
        shard = shards.get(number)
        yield part.window, nothing_known(part.width, part.height) if shard is None else shard.pieces()


def _lay_together(plan: Plan, shards: Mapping[int, StoredShard], work: Path) -> Path:
    """The classes of all shards as one raster, without copying a pixel; where one is missing, nothing has data."""
    work.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, part in enumerate(plan.shards):
        if number in shards:
            paths.append(shards[number].classes)
        else:
            paths.append(_nothing(work, number))
            compose_nothing(plan.grid.grid.cut(part.window), paths[-1])
    with ExitStack() as stack:
        rasters = [(path, open_raster(path, stack)) for path in paths]
        write_file(work / "classes.vrt", mosaic(rasters, masked=False))
    return work / "classes.vrt"


def _nothing(work: Path, number: int) -> Path:
    """The classes of a shard that is missing."""
    return work / f"nothing-{number}.tif"


def _look(plan: Plan, shards: Mapping[int, StoredShard], left_out: Sequence[LeftOut]) -> Look:
    grid = plan.grid.grid
    factor = factor_of(grid)
    images = np.zeros((2, -(-grid.height // factor), -(-grid.width // factor), 3), np.uint8)
    for number, shard in shards.items():
        images[:, *reduced(plan.shards[number].window, factor).toslices()] = shard.images()
    model = {**plan.facts["model"], "location": plan.model, "identity": plan.identity}
    made_by = {"sha256": plan.digest, "shards": len(plan.shards)}
    facts: dict[str, Any] = {**plan.facts, "model": model, "plan": made_by}
    if left_out:
        facts |= {"state": PARTIAL, "left_out": [each.model_dump() for each in left_out]}
        facts["doubts"] = [*facts["doubts"], *(f"The map is made without {each.what}: {each.why}" for each in left_out)]
    return look_of(list(images), grid, facts)


def _likeness(plan: Plan, shards: Sequence[StoredShard]) -> Likeness | None:
    """By the parts that lie in shards which are there, each once, as a part may lie in several."""
    if plan.domain is None:
        return None
    parts = Parts({}, {})
    for shard in shards:
        own = shard.compared()
        parts = Parts(parts.features | own.features, parts.colours | own.colours)
    return compare(plan.domain.domain, plan.grid.grid.gsd, parts)


def _means(shards: Sequence[StoredShard], parts: Numbers) -> Iterator[Means]:
    """The features of the buildings: those of one shard as it has them, else the means of the sums of several. parts:
    the numbers of those of one shard after the other.
    """
    pieces = np.bincount(parts)
    left, waiting, known = pieces.copy(), dict[int, Numbers](), 0
    for shard in shards:
        means, going_on, sums = shard.features()
        own = parts[known : known + len(means)]
        known += len(means)
        alone = np.flatnonzero(pieces[own] == 1)
        for start in range(0, len(alone), _ROWS):
            some = alone[start : start + _ROWS]
            yield own[some], means[some]
        for number, part in zip(own[going_on].tolist(), sums, strict=True):
            if pieces[number] > 1:
                waiting[number] = carried(waiting.get(number, 0) + part)
                left[number] -= 1
        done = [number for number in waiting if left[number] == 0]
        if done:
            yield np.array(done), mean(np.stack([waiting.pop(number) for number in done]), shard.scales)

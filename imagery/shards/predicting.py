"""One shard of a plan: the tiles that its blocks are put together from, its buildings, and its part of the images."""

import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from base.files import new_folder, refuse_to_replace_others
from imagery.find.buildings import DAMAGE_BAND, SIDE, building_pixels, find_pieces
from imagery.find.features import sum_features
from imagery.find.footprints import Footprints, footprint_pixels, grade_part, reach_beyond
from imagery.find.pixels import Numbers, Pixels
from imagery.find.votes import Votes
from imagery.give.look import factor_of, reduce
from imagery.give.writing import write_errors
from imagery.predict.blending import NODATA, reaching
from imagery.predict.domain import Parts, look_at_parts
from imagery.predict.inference import predict_part
from imagery.predict.tile_features import TileFeatures, channels_of, mean
from imagery.predict.tile_store import CLASSES
from imagery.predict.windows import plan as plan_windows
from imagery.read.grid import blocks
from imagery.settings import CACHE, Windows
from imagery.shards import stored
from imagery.shards.footprints import Graded, planned_footprints
from imagery.shards.indexing import Fetch
from imagery.shards.plan import Plan, PlanError
from imagery.shards.reading import PlannedImages
from model.fast.allocator import give_back_freed_memory, share_one_heap
from model.inference import Predictor


def predict_shard(
    plan: Plan,
    number: int,
    load: Callable[[], tuple[Predictor, str]],
    fetch: Fetch,
    out: Path,
    work: Path,
    *,
    batch: int,
    workers: int,
) -> None:
    """Predicts a shard into the folder `out`, see `imagery.shards.stored`.

    load: gives the network, and what tells it from others. fetch: brings an image. work: a folder for finished windows,
    with which the next call goes on after this one was ended; the caller removes it when the result is safe. batch,
    workers: as of `Windows`.
    Raises PlanError where the model, an image or the file of footprints is another one than the plan was made of;
    RasterError, VectorError, OutputError, and what `load` and `fetch` raise.
    """
    share_one_heap()
    part = plan.shard(number).window
    refuse_to_replace_others(out, stored.is_ours)
    windows, grid = Windows(plan.tile, plan.overlap, batch, workers), plan.grid.grid
    given = planned_footprints(plan, fetch)
    predictor, identity = load()
    if identity != plan.identity:
        raise PlanError(
            f"{plan.network}: is another model than the plan was made with: found {identity[:12]}, expected "
            f"{plan.identity[:12]}. Give the plan a version that stays, or make it again."
        )
    tiles = reaching(part, (grid.height, grid.width), plan_windows(grid.width, grid.height, plan.tile, plan.overlap))
    with rasterio.Env(GDAL_CACHEMAX=CACHE), PlannedImages(plan, fetch) as images:
        pair = images.pair(_around(tiles.values()))
        of = f"shard {number} of plan {plan.digest}"
        classes = predict_part(predictor, of, pair, part, work, windows, features=plan.features, resume=True)
        del predictor
        give_back_freed_memory()
        small = reduce(pair, part, factor_of(grid))
        features = TileFeatures(work, grid.width, grid.height, windows)
        compared = Parts({}, {}) if plan.domain is None else look_at_parts(pair, features)
    with new_folder(out, stored.is_ours) as folder, write_errors(out):
        pixels, votes, going_on = _list_buildings(folder, classes, plan, part, given)
        _write_features(folder, pixels, votes, going_on, features)
        stored.write_images(folder, small)
        stored.write_compared(folder, compared)
        shutil.copyfile(classes, folder / CLASSES)
        stored.write_facts(folder, plan, number, has_data=_has_data(classes), scales=features.scales)


def _around(windows: Collection[Window]) -> Window:
    """The smallest window around some."""
    left, top = (min(start) for start in zip(*((each.col_off, each.row_off) for each in windows), strict=True))
    right = max(each.col_off + each.width for each in windows)
    bottom = max(each.row_off + each.height for each in windows)
    return Window(left, top, right - left, bottom - top)


def _has_data(classes: Path) -> bool:
    with rasterio.open(classes) as dataset:
        windows = blocks(dataset.width, dataset.height, SIDE)
        return any((dataset.read(DAMAGE_BAND, window=window) != NODATA).any() for window in windows)


def _list_buildings(
    folder: Path, classes: Path, plan: Plan, part: Window, given: Footprints | None
) -> tuple[Iterator[Pixels], Votes, Numbers]:
    """Writes the buildings of the shard, those found or, where there are any, those `given`; returns the pixels of
    those that are seen, their votes, [N, 2, 4], and the numbers of those that may go on in other shards.
    """
    corner = part.col_off, part.row_off
    if given is None:
        pieces = find_pieces(classes, corner=corner, width=plan.grid.width)
        stored.write_buildings(folder, pieces)
        going_on = np.unique(np.concatenate(pieces.edges))
        pixels = building_pixels(classes, pieces.buildings, corner=corner)
        return pixels, pieces.buildings.votes, going_on[going_on > 0] - 1
    graded = grade_part(given, classes, plan.grid.grid, corner)
    listed = Graded.of(graded)
    stored.write_footprints(folder, listed)
    here = graded.at(listed.seen)
    return footprint_pixels(classes, here, corner), here.votes, np.flatnonzero(reach_beyond(here.placed, part))


def _write_features(
    folder: Path, pixels: Iterator[Pixels], votes: Votes, going_on: Numbers, tiles: TileFeatures
) -> None:
    channels = channels_of(tiles.scales)
    sums = np.zeros((len(going_on), 2, 1 + channels), np.int64)
    means = np.zeros((len(votes), channels), np.float16)
    if channels:
        for numbers, found in sum_features(pixels, votes[:, 1].sum(1), tiles):
            means[numbers] = mean(found, tiles.scales)
            places = np.searchsorted(going_on, numbers)
            open_ = np.append(going_on, -1)[places] == numbers
            sums[places[open_]] = found[open_]
    np.save(folder / stored.MEANS, means)
    np.savez_compressed(folder / stored.SUMS, going_on=going_on, sums=sums)

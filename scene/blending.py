"""Blocks of a scene put together from the tiles that overlap there, their logits blended by a cosine."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.windows import Window
from tqdm import tqdm

from model.dual_hrnet import DualLogits
from model.inference import estimate
from scene.grid import Grid
from scene.tile_store import CHANNELS, TileStore
from scene.windows import STRIDE, weights

NODATA = 255
BLOCK = 512  # pixels of a block of the result
BANDS = ("damage", "confidence", "no damage", "minor damage", "major damage", "destroyed")


def compose(grid: Grid, tiles: Sequence[Window], store: TileStore) -> Path:
    """Writes classes.tif beside the tiles, block by block; see `predict_scene` for its bands."""
    path = store.folder / "classes.tif"
    temporary = path.with_name("classes.partial.tif")
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": len(BANDS), "crs": grid.crs, "transform": grid.transform,
        "width": grid.width, "height": grid.height, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "compress": "deflate", "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(temporary, "w", **profile) as out:
        for number, name in enumerate(BANDS, start=1):
            out.set_band_description(number, name)
        for block in tqdm(list(_blocks(grid)), "compose", unit="block", disable=None):
            out.write(_block(block, grid, tiles, store), window=block)
    os.replace(temporary, path)
    return path


def _blocks(grid: Grid) -> Iterator[Window]:
    for y in range(0, grid.height, BLOCK):
        for x in range(0, grid.width, BLOCK):
            yield Window(x, y, min(BLOCK, grid.width - x), min(BLOCK, grid.height - y))


def _block(block: Window, grid: Grid, tiles: Sequence[Window], store: TileStore) -> npt.NDArray[np.uint8]:
    """The six bands of one block, [6, H, W]."""
    # In logits, with one more on each side where the scene goes on: bilinear upsampling looks that far.
    top, left = max(0, block.row_off // STRIDE - 1), max(0, block.col_off // STRIDE - 1)
    bottom = min(-(-grid.height // STRIDE), -(-(block.row_off + block.height) // STRIDE) + 1)
    right = min(-(-grid.width // STRIDE), -(-(block.col_off + block.width) // STRIDE) + 1)
    total = np.zeros((CHANNELS, bottom - top, right - left), np.float32)
    weight = np.zeros(total.shape[1:], np.float32)
    valid = np.zeros((int(block.height), int(block.width)), bool)
    for number, tile in enumerate(tiles):
        y, x = int(tile.row_off) // STRIDE, int(tile.col_off) // STRIDE
        height, width = -(-int(tile.height) // STRIDE), -(-int(tile.width) // STRIDE)
        rows, columns = _overlap(top, bottom, y, height), _overlap(left, right, x, width)
        if rows is None or columns is None:
            continue
        part, own = store.load(number)
        _lay(valid, own, tile, block)
        if part is not None:
            share = weights(height, width)[rows[1], columns[1]]
            total[:, rows[0], columns[0]] += part[:, rows[1], columns[1]] * share
            weight[rows[0], columns[0]] += share
    seen = weight > 0
    total /= np.where(seen, weight, 1)
    total[0, ~seen] = 1  # background, where no tile has data
    logits = torch.from_numpy(total)[None]
    size = STRIDE * total.shape[1], STRIDE * total.shape[2]
    prediction, probabilities = estimate(DualLogits(logits[:, :2], logits[:, 2:]), size)
    dy, dx = int(block.row_off) - STRIDE * top, int(block.col_off) - STRIDE * left
    inside = np.s_[dy : dy + int(block.height), dx : dx + int(block.width)]
    grades = probabilities.damage[0].numpy()[(slice(None), *inside)]
    building, classes = probabilities.building[0].numpy()[inside], prediction.damage[0].numpy()[inside]
    chosen = np.take_along_axis(grades, np.maximum(classes, 1)[None].astype(np.int64) - 1, axis=0)[0]
    confidence = np.where(classes > 0, building * chosen, 1 - building)
    bands = np.concatenate([confidence[None], grades])
    return np.concatenate(
        [np.where(valid, classes, NODATA)[None].astype(np.uint8), np.rint(255 * bands * valid).astype(np.uint8)]
    )


def _overlap(first: int, last: int, start: int, size: int) -> tuple[slice, slice] | None:
    """Where [start, start + size) and [first, last) meet: within the latter, and within the former."""
    low, high = max(first, start), min(last, start + size)
    return None if high <= low else (slice(low - first, high - first), slice(low - start, high - start))


def _lay(valid: npt.NDArray[np.bool_], own: npt.NDArray[np.bool_], tile: Window, block: Window) -> None:
    """Marks in `valid`, of the block, what the tile's own mask (padded to whole bytes) has."""
    rows = _overlap(int(block.row_off), int(block.row_off + block.height), int(tile.row_off), int(tile.height))
    columns = _overlap(int(block.col_off), int(block.col_off + block.width), int(tile.col_off), int(tile.width))
    if rows is not None and columns is not None:
        valid[rows[0], columns[0]] |= own[rows[1], columns[1]]

"""Blocks of the result put together from the tiles that overlap there, their logits blended by a cosine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
import torch.nn.functional as F
from rasterio.errors import RasterioError
from rasterio.windows import Window
from torch import Tensor
from tqdm import tqdm

from base.files import new_file
from imagery.errors import RasterError
from imagery.predict.tile_store import CHANNELS, CLASSES, Logits, Mask, TileStore
from imagery.predict.windows import weights
from imagery.read.grid import Grid, blocks
from model.dual_hrnet import DualLogits
from model.inference import estimate

NODATA = 255
PIXELS = 4  # of a logit
BLOCK = 1024  # pixels of a side of what is put together at once: 70 MB of logits and probabilities
BANDS = ("damage", "confidence", "no damage", "minor damage", "major damage", "destroyed")
_NOTHING = np.array([[[NODATA]]] + [[[0]]] * (len(BANDS) - 1), np.uint8)  # of a pixel without data
Span = tuple[int, int]  # first and one behind the last


def reaching(part: Window, size: tuple[int, int], tiles: Sequence[Window]) -> dict[int, Window]:
    """Those of the tiles, by their number, that a part of imagery of `size` (height, width) is put together from."""
    rows, columns = _logits_of(part, size)
    return {
        number: tile
        for number, tile in enumerate(tiles)
        if all(_shared(own, other) for own, other in zip(_spans(tile), (rows, columns), strict=True))
    }


def compose(grid: Grid, part: Window, tiles: Mapping[int, Window], store: TileStore) -> Path:
    """Writes classes.tif of a part of the grid beside the tiles, block by block; see `predict_part` for its bands.

    tiles: by their number, those of `reaching`.
    """
    path = store.folder / CLASSES
    if path.exists():  # complete, and of the same tiles
        return path
    with classes_file(path, grid.cut(part)) as out:
        for own in tqdm(list(blocks(part.width, part.height, BLOCK)), "compose", unit="block", disable=None):
            block = Window(part.col_off + own.col_off, part.row_off + own.row_off, own.width, own.height)
            out.write(put_together(block, (grid.height, grid.width), tiles, store.load), window=own)
    return path


def compose_nothing(grid: Grid, path: Path) -> None:
    """Writes the file of a grid of which nothing is known: no pixel has data."""
    with classes_file(path, grid) as out:
        for block in blocks(grid.width, grid.height, BLOCK):
            out.write(np.broadcast_to(_NOTHING, (len(BANDS), block.height, block.width)), window=block)


@contextmanager
def classes_file(path: Path, grid: Grid) -> Iterator[Any]:
    """A classes.tif to write, which appears when it is complete; raises RasterError."""
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": len(BANDS), "crs": grid.crs, "transform": grid.transform,
        "width": grid.width, "height": grid.height, "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "deflate", "zlevel": 1, "bigtiff": "yes",
    }  # fmt: skip
    try:
        with new_file(path) as partial, rasterio.open(partial, "w", **profile) as out:
            out.descriptions = BANDS
            yield out
    except RasterioError as error:
        raise RasterError(f"{path}: cannot be written ({error}). Check the folder and the disk.") from error


def put_together(
    block: Window, size: tuple[int, int], tiles: Mapping[int, Window],
    load: Callable[[int], tuple[Logits, Mask] | None],
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """The six bands of one block, [6, H, W], of imagery of `size` (height, width). tiles: by their number; load: gives
    one, as `TileStore.load`.
    """
    (top, bottom), (left, right) = _logits_of(block, size)
    total = np.zeros((CHANNELS, bottom - top, right - left), np.float32)
    weight = np.zeros((1, *total.shape[1:]), np.float32)
    valid = np.zeros((block.height, block.width), bool)
    for number, tile in tiles.items():
        down, across = _spans(tile)
        rows, columns = _shared((top, bottom), down), _shared((left, right), across)
        found = load(number) if rows and columns else None
        if not (rows and columns and found):
            continue
        share = weights(down[1] - down[0], across[1] - across[0])[rows[1], columns[1]]
        total[:, rows[0], columns[0]] += found[0][:, rows[1], columns[1]] * share
        weight[0, rows[0], columns[0]] += share
        _mark(valid, block, found[1], tile)
    logits = _spread(torch.from_numpy(total)[None], torch.from_numpy(weight)[None])
    y, x = block.row_off - PIXELS * top, block.col_off - PIXELS * left
    inside = np.s_[..., y : y + block.height, x : x + block.width]
    return np.where(valid, _bands(logits)[inside], _NOTHING)


def _spans(tile: Window) -> tuple[Span, Span]:
    """Rows and columns of a tile's logits."""
    y, x = tile.row_off // PIXELS, tile.col_off // PIXELS
    return (y, y - (-tile.height // PIXELS)), (x, x - (-tile.width // PIXELS))


def _logits_of(block: Window, imagery: tuple[int, int]) -> tuple[Span, Span]:
    """Rows and columns of the logits behind a block: one more on each side where the imagery goes on, because bilinear
    upsampling looks that far.
    """
    spans = []
    for start, size, whole in zip(
        (block.row_off, block.col_off), (block.height, block.width), imagery, strict=True
    ):  # fmt: skip
        first, last = start // PIXELS - 1, -(-(start + size) // PIXELS) + 1
        spans.append((max(0, first), min(last, -(-whole // PIXELS))))
    return spans[0], spans[1]


def _shared(one: Span, other: Span) -> tuple[slice, slice] | None:
    """What two spans share, counted from the start of each."""
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (slice(low - one[0], high - one[0]), slice(low - other[0], high - other[0])) if high > low else None


def _mark(valid: npt.NDArray[np.bool_], block: Window, own: npt.NDArray[np.bool_], tile: Window) -> None:
    """Marks in the block what the tile knows to have data."""
    rows, columns = (
        _shared((start, start + size), (other, other + extent))
        for start, size, other, extent in (
            (block.row_off, block.height, tile.row_off, tile.height),
            (block.col_off, block.width, tile.col_off, tile.width),
        )
    )
    if rows and columns:
        valid[rows[0], columns[0]] |= own[rows[1], columns[1]]


def _spread(total: Tensor, weight: Tensor) -> Tensor:
    """Blended logits [1, 6, h, w]. Where there is no tile, those beside it, as at the border of the imagery: upsampling
    mixes them in.
    """
    blended = total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    corner = 1e-6  # only where nothing lies beside
    kernel = torch.tensor([[corner, 1, corner], [1, 0, 1], [corner, 1, corner]])[None, None]
    seen = F.conv2d((weight > 0).float(), kernel, padding=1)
    near = F.conv2d(blended.transpose(0, 1), kernel, padding=1).transpose(0, 1) / seen.clamp(min=corner)
    return torch.where(weight > 0, blended, near)


def _bands(logits: Tensor) -> npt.NDArray[np.uint8]:
    """[1, 6, h, w] to the bands of the result, [6, 4h, 4w]."""
    size = PIXELS * logits.shape[-2], PIXELS * logits.shape[-1]
    prediction, probabilities = estimate(DualLogits(logits[:, :2], logits[:, 2:]), size)
    classes, building, grades = prediction.damage, probabilities.building, probabilities.damage
    chosen = grades.gather(1, classes[:, None].long().sub_(1).clamp_(min=0))[:, 0]
    confidence = torch.where(classes > 0, building * chosen, 1 - building)
    shares = torch.cat([confidence, grades[0]]).mul_(255).round_().to(torch.uint8)
    return torch.cat([classes, shares]).numpy()

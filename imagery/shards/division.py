"""A grid in shards: rectangles of whole blocks with about as much to do in each, and short borders between them."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from imagery.predict.blending import BLOCK
from imagery.shards.plan import PlanError, Shard

Weights = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


def weigh(width: int, height: int, pre: Iterable[Box], post: Iterable[Box]) -> Weights:
    """For each block of a grid 1 where files of both images lie, else 0, [rows, columns]: there is nothing to do. pre,
    post: what their files cover.
    """
    found = np.ones((-(-height // BLOCK), -(-width // BLOCK)), bool)
    for boxes in (pre, post):
        own = np.zeros_like(found)
        for left, top, right, bottom in boxes:
            if right > 0 and bottom > 0:
                own[max(0, top) // BLOCK : -(-bottom // BLOCK), max(0, left) // BLOCK : -(-right // BLOCK)] = True
        found &= own
    return found.astype(np.int64)


def divide(width: int, height: int, weights: Weights, count: int) -> tuple[Shard, ...]:
    """`count` shards of a grid, row by row; weights: of its blocks, see `weigh`. Raises PlanError where there are fewer
    blocks than shards.

    The grid is cut in two, along its longer side where it can be, so that both have their share of the work, and so on.
    """
    blocks = weights.size
    if count > blocks:
        raise PlanError(
            f"--shards: found {count}, expected at most {blocks}: the images have so many blocks of {BLOCK} x {BLOCK} "
            "pixels in common. Give fewer."
        )
    parts = _cut(Window(0, 0, weights.shape[1], weights.shape[0]), weights, count)
    shards = []
    for part in sorted(parts, key=lambda part: (part.row_off, part.col_off)):
        column, row = part.col_off * BLOCK, part.row_off * BLOCK
        shards.append(
            Shard(
                column=column, row=row, width=min(part.width * BLOCK, width - column),
                height=min(part.height * BLOCK, height - row),
            )
        )  # fmt: skip
    return tuple(shards)


def _cut(part: Window, weights: Weights, count: int) -> Iterator[Window]:
    """part: in blocks, at least `count` of them."""
    if count == 1:
        yield part
        return
    along = 0 if part.height >= part.width else 1
    work = weights[part.toslices()].sum(1 - along)
    length, across = len(work), part.width * part.height // len(work)
    # How many shards lie before the cut: half of them, or as near to it as leaves a block for each on both sides.
    first, least, most = next(
        (own, least, length - rest)
        for own in sorted(range(1, count), key=lambda own: abs(2 * own - count))
        for least, rest in [(-(-own // across), -(-(count - own) // across))]
        if least + rest <= length
    )
    shares = np.cumsum(work) / work.sum() if work.any() else np.arange(1, length + 1) / length
    at = least + int(np.abs(shares[least - 1 : most] - first / count).argmin())
    before, behind = slice(0, at), slice(at, length)
    for side, own in ((before, first), (behind, count - first)):
        rows, columns = (side, slice(0, part.width)) if along == 0 else (slice(0, part.height), side)
        inner = Window.from_slices(rows, columns)
        moved = Window(part.col_off + inner.col_off, part.row_off + inner.row_off, inner.width, inner.height)
        yield from _cut(moved, weights, own)

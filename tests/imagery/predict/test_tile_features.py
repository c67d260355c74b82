"""Features out of tiles: each pixel's from the nearest one, in sums that are exact, against plain NumPy and torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagery.predict.tile_features import LARGEST, TileFeatures, carried, mean
from imagery.predict.tile_store import TileStore
from imagery.predict.windows import plan
from imagery.settings import Windows

CHANNELS = (3, 5, 2)  # of maps of 4, 8 and 32 pixels
FACTORS = (1, 2, 8)


def write_tiles(
    folder: Path, size: tuple[int, int], windows: Windows, channels: tuple[int, ...] = CHANNELS
) -> list[Any]:
    """Tiles with random features; returns them, [h, w, C] each, by tile."""
    rng, store, written = np.random.default_rng(0), TileStore(folder), []
    store.begin("plan", resume=False)
    for number, tile in enumerate(plan(size[1], size[0], windows.tile, windows.overlap)):
        height, width = (-(-side // 32) * 8 for side in (tile.height, tile.width))
        maps = [
            rng.gamma(1, 2, (height // factor, width // factor, count)).astype(np.float16)
            for factor, count in zip(FACTORS, channels, strict=False)
        ]
        store.save(number, np.zeros((6, 1, 1), np.float32), np.ones((1, 1), bool), maps)
        written.append(maps)
    return written


def features_of_all_pixels(maps: list[Any], size: tuple[int, int], windows: Windows) -> Any:
    """[H, W, C] by the definition, over all tiles and pixels."""
    rows, columns = np.indices(size)
    nearest, found = np.full(size, np.inf), np.zeros((*size, sum(CHANNELS)))
    for tile, own in zip(plan(size[1], size[0], windows.tile, windows.overlap), maps, strict=True):
        quarter = [
            torch.nn.functional.interpolate(
                torch.from_numpy(part.astype(np.float64)).permute(2, 0, 1)[None],
                size=own[0].shape[:2],
                mode="bilinear",
                align_corners=False,
            )[0].numpy()
            for part in own
        ]
        whole = np.concatenate(quarter).repeat(4, axis=1).repeat(4, axis=2)[:, : tile.height, : tile.width]
        part = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
        far = np.hypot(
            rows[part] + 0.5 - tile.row_off - tile.height / 2, columns[part] + 0.5 - tile.col_off - tile.width / 2
        )
        nearer = far < nearest[part]
        nearest[part][nearer] = far[nearer]
        found[part][nearer] = whole.transpose(1, 2, 0)[nearer]
    return found


@pytest.mark.parametrize(
    ("size", "overlap"), [((100, 130), 0), ((200, 264), 64), ((128, 128), 32), ((70, 300), 32)], ids=str
)
def test_a_mean_is_that_of_each_pixel_from_the_tile_with_the_nearest_centre(
    size: tuple[int, int], overlap: int, tmp_path: Path
) -> None:
    windows = Windows(tile=128, overlap=overlap)
    expected = features_of_all_pixels(write_tiles(tmp_path, size, windows), size, windows)
    tiles = TileFeatures(tmp_path, size[1], size[0], windows)
    assert [tuple(scale) for scale in tiles.scales] == [(4, 3), (8, 5), (32, 2)]
    rng = np.random.default_rng(1)
    owners = rng.integers(0, 6, size)
    owners[owners == 3] = 2  # a building without pixels
    rows, columns = np.indices(size).reshape(2, -1)
    sums = tiles.sums(owners.ravel(), rows, columns, 6)
    assert sums[:, 1, 0].tolist() == np.bincount(owners.ravel(), minlength=6).tolist()
    means = mean(sums, tiles.scales)
    assert means.dtype == np.float16 and np.isnan(means[3]).all()
    for number in (0, 1, 2, 4, 5):
        np.testing.assert_allclose(means[number], expected[owners == number].mean(0), rtol=2**-10)
    # A few pixels, where single ones show; and in parts, which add up to the last bit.
    few = rng.choice(owners.size, 40, replace=False)
    singles = tiles.sums(np.arange(40), rows[few], columns[few], 40)
    np.testing.assert_allclose(mean(singles, tiles.scales), expected.reshape(-1, 10)[few], rtol=2**-10, atol=1e-6)
    np.testing.assert_array_equal(carried(singles.sum(0)), tiles.sums(0 * few, rows[few], columns[few], 1)[0])


def test_sums_have_room_for_the_largest_numbers_and_the_largest_building(tmp_path: Path) -> None:
    windows, size = Windows(tile=64, overlap=0), (64, 64)
    store = TileStore(tmp_path)
    store.begin("plan", resume=False)
    maps = [np.full((16 // factor, 16 // factor, 2), LARGEST, np.float16) for factor in FACTORS]
    store.save(0, np.zeros((6, 1, 1), np.float32), np.ones((1, 1), bool), maps)
    tiles = TileFeatures(tmp_path, *size, windows)
    rows, columns = np.indices(size).reshape(2, -1)
    once, often = (tiles.sums(0 * rows.repeat(n), rows.repeat(n), columns.repeat(n), 1) for n in (1, 16))
    assert once[0, 1, 0] == 4096 and (once[0, 0, 1:] > 0).all()
    np.testing.assert_array_equal(often, carried(16 * once))  # too many pixels for sums in one piece
    many = carried(carried(2**18 * often))  # 2**34 pixels
    assert (mean(many, tiles.scales) == LARGEST).all()
    assert (many[0, 0].astype(object) * 2**20 + many[0, 1]).tolist() == [2**34, *[2**34 * share for share in (
        LARGEST * 2**24, LARGEST * 2**24, LARGEST * 2**28, LARGEST * 2**28, LARGEST * 2**32, LARGEST * 2**32
    )]]  # fmt: skip


def test_pixels_of_tiles_without_data_do_not_count(tmp_path: Path) -> None:
    windows, size = Windows(tile=64, overlap=0), (64, 128)
    write_tiles(tmp_path, size, windows)
    left = TileFeatures(tmp_path, 128, 64, windows)
    rows, columns = np.array([3, 3, 3]), np.array([2, 60, 100])
    alone = left.sums(np.zeros(2, np.int64), rows[:2], columns[:2], 1)
    TileStore(tmp_path).save(1, None, np.zeros((64, 64), bool))
    found = TileFeatures(tmp_path, 128, 64, windows).sums(np.zeros(3, np.int64), rows, columns, 1)
    np.testing.assert_array_equal(found, alone)
    assert found[0, 1, 0] == 2

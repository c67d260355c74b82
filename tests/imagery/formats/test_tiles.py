"""Tiles of the web's maps: each shows the place that its numbers say, at every level."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

from base.images import read_image
from imagery.formats.tiles import pyramid_of, write_tiles
from imagery.give.names import is_requested
from imagery.give.writing import OutputError
from imagery.read.grid import Grid
from imagery.read.raster import Tile
from tests.imagery.geotiff import ORIGIN, UTM, landscape

AROUND = 40_075_016.68557849  # metres of the equator in Web Mercator
GRID = Grid(CRS.from_string(UTM), ORIGIN, 700, 420)


def reading(grid: Grid) -> Callable[[Window], Tile]:
    """Pre shows the ground, post its negative; a corner of both has no data."""
    ground = landscape(grid.crs.to_string(), grid.transform, grid.height, grid.width)
    valid = np.ones((grid.height, grid.width), bool)
    valid[: grid.height // 3, : grid.width // 3] = False

    def read(window: Window) -> Tile:
        rows, columns = window.toslices()
        seen = valid[rows, columns]
        return Tile(ground[:, rows, columns] * seen, (255 - ground[:, rows, columns]) * seen, seen)

    return read


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    write_tiles(folder, reading(GRID), GRID)
    return folder / "tiles"


def paths(folder: Path) -> dict[tuple[int, int, int], Path]:
    return {tuple(map(int, (*path.parts[-3:-1], path.stem))): path for path in folder.rglob("*.jpg")}  # type: ignore[misc]


def expected(zoom: int, column: int, row: int) -> Any:
    """What the ground looks like in the tile, by the formulas of its numbers, [H, W, 3]."""
    side = AROUND / 2**zoom
    transform = Affine(side / 256, 0, column * side - AROUND / 2, 0, -side / 256, AROUND / 2 - row * side)
    return landscape("EPSG:3857", transform, 256, 256).transpose(1, 2, 0), transform


def in_grid(transform: Affine) -> Any:
    """Which pixels of a tile lie well within the part of the grid with data."""
    columns, rows = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    x, y = Transformer.from_crs("EPSG:3857", UTM, always_xy=True).transform(*(transform @ (columns, rows)))
    column, row = ~ORIGIN @ (x, y)
    margin = 8
    inside = (column > margin) & (column < 700 - margin) & (row > margin) & (row < 420 - margin)
    return inside & ~((column < 233 + margin) & (row < 140 + margin))


def test_each_tile_of_the_finest_level_shows_its_place_before_and_after(tiles: Path) -> None:
    before, after = paths(tiles / "before"), paths(tiles / "after")
    assert before.keys() == after.keys()
    finest = max(zoom for zoom, _, _ in before)
    assert finest == 18  # 0.48 m of ground a pixel, of which the images have 0.5
    compared = 0
    for number in (number for number in before if number[0] == finest):
        ground, transform = expected(*number)
        inside = in_grid(transform)
        compared += int(inside.sum())
        if inside.any():
            for image, truth in ((before, ground), (after, 255 - ground)):
                difference = np.abs(read_image(image[number]).astype(int) - truth)[inside]
                assert difference.mean() < 2.5  # JPEG and interpolation
    assert compared > 0.8 * (700 * 420 - 233 * 140)


def test_coarser_tiles_are_what_lies_below_them(tiles: Path) -> None:
    before = paths(tiles / "before")
    levels = sorted({zoom for zoom, _, _ in before})
    assert levels == list(range(levels[0], 19)) and levels[0] <= 17
    for zoom, column, row in before:
        if zoom < 18:
            below = [(zoom + 1, 2 * column + right, 2 * row + down) for down in (0, 1) for right in (0, 1)]
            assert any(child in before for child in below)
        assert zoom == levels[0] or (zoom - 1, column // 2, row // 2) in before
    zoom, column, row = next(number for number in sorted(before) if number[0] == 17)
    whole = np.zeros((512, 512, 3), np.float64)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        child = before.get((18, 2 * column + right, 2 * row + down))
        if child is not None:
            whole[256 * down :, 256 * right :][:256, :256] = read_image(child)
    mean = whole.reshape(256, 2, 256, 2, 3).mean((1, 3))
    full = (whole.reshape(256, 2, 256, 2, 3).max(4) > 40).all((1, 3))  # no edge of the data within
    assert np.abs(read_image(before[zoom, column, row]) - mean)[full].mean() < 3


def test_tiles_without_data_are_not_there_and_pixels_without_are_black(tiles: Path) -> None:
    before = paths(tiles / "before")
    pyramid = pyramid_of(GRID)
    assert len([number for number in before if number[0] == 18]) < pyramid.columns * pyramid.rows
    assert all(is_requested(path.relative_to(tiles.parent)) for path in tiles.rglob("*") if path.is_file())
    darkest = min(float(read_image(path).mean()) for path in before.values())
    assert darkest < 100


def test_a_tilejson_tells_levels_and_bounds(tiles: Path) -> None:
    content = json.loads((tiles / "after.json").read_text(encoding="utf-8"))
    levels = {zoom for zoom, _, _ in paths(tiles / "after")}
    assert (content["minzoom"], content["maxzoom"]) == (min(levels), max(levels))
    west, south, east, north = content["bounds"]
    (left, right), (lower, upper) = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(
        [500_000, 500_350], [3_999_790, 4_000_000]
    )
    np.testing.assert_allclose([west, south, east, north], [left, lower, right, upper], atol=2e-5)
    assert content["tiles"] == ["./after/{z}/{x}/{y}.jpg"]


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:4326", "EPSG:3857"])
def test_a_map_across_the_antimeridian_has_tiles_on_both_sides(crs: str, tmp_path: Path) -> None:
    if crs == "EPSG:32660":
        east, north = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(180, -17)
        grid = Grid(CRS.from_string(crs), Affine(1, 0, east - 150, 0, -1, north), 300, 150)
    elif crs == "EPSG:4326":
        grid = Grid(CRS.from_string(crs), Affine(1e-5, 0, 179.9985, 0, -1e-5, -17), 300, 150)
    else:
        grid = Grid(CRS.from_string(crs), Affine(1, 0, AROUND / 2 - 150, 0, -1, -1_900_000), 300, 150)

    def white(window: Window) -> Tile:
        bright = np.full((3, window.height, window.width), 200, np.uint8)
        return Tile(bright, bright, np.ones(bright.shape[1:], bool))

    write_tiles(tmp_path, white, grid)
    before = paths(tmp_path / "tiles" / "before")
    finest = max(zoom for zoom, _, _ in before)
    columns = {column for zoom, column, _ in before if zoom == finest}
    assert {0, 2**finest - 1} <= columns
    inner = [number for number in before if number[0] == finest and number[1] in (0, 2**finest - 1)]
    for column in (0, 2**finest - 1):
        assert (
            max(read_image(before[number])[:, -1 if column else 0].max() for number in inner if number[1] == column)
            > 190
        )


def test_a_map_that_web_maps_cannot_show_is_refused(tmp_path: Path) -> None:
    grid = Grid(CRS.from_string("EPSG:32661"), Affine(1, 0, 2_000_000, 0, -1, 2_000_000), 100, 100)
    with pytest.raises(OutputError, match=r"--formats tiles: found a map that reaches beyond 85\.05 degrees"):
        write_tiles(tmp_path, lambda window: Tile(*[np.zeros(0)] * 3), grid)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

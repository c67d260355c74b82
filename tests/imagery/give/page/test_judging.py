"""What a page needs for judging, by itself: who is drawn, what the pictures show, where north is."""

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.windows import Window

from imagery.find.ground import place, to_degrees
from imagery.give.look import CHARACTERS, CHIP, Square, chips
from imagery.give.page.judging import Judging, draw_table, for_page
from imagery.give.table import tabulate
from imagery.read.grid import Grid
from imagery.read.raster import Tile
from imagery.sampling.draw import draw_buildings
from tests.imagery.geotiff import ORIGIN, UTM, noise

GRID = Grid(CRS.from_string(UTM), ORIGIN, 900, 700)
HASH = "00000010" + "ab" * 28


def reader(pictures: Any) -> Any:
    """pictures: [2, 3, H, W]."""

    def read(window: Window) -> Tile:
        part = pictures[(..., *window.toslices())]
        return Tile(part[0], part[1], np.ones(part.shape[2:], bool))

    return read


def table_of(boxes: Any, votes: Any, grid: Grid = GRID, given: Any = None) -> Any:
    polygons = to_degrees(place(np.array(boxes, object), grid.transform), grid.crs)
    return tabulate(polygons, votes, given)


def shown(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))).astype(int)


def test_buildings_are_drawn_by_their_summed_probabilities_and_place_but_for_those_not_seen() -> None:
    generator = np.random.default_rng(0)
    count = 60
    corners = generator.integers(0, 600, (count, 2))
    boxes = [shapely.box(x, y, x + 20, y + 20) for x, y in corners.tolist()]
    votes = np.stack([generator.integers(0, 9000, (count, 4)), np.ones((count, 4), int)], axis=1)
    votes[[3, 40]] = 0
    table = table_of(boxes, votes)
    draw = draw_table(HASH, table, votes, (15.0, 36.0))
    assert (draw.seed, draw.map_hash, len(draw)) == (16, HASH, count - 2)
    with np.errstate(invalid="ignore"):
        scores = votes[:, 0, 1:].sum(1) / votes[:, 0].sum(1)
    metres = 500_000 + (corners[:, 0] + 10) * 0.5, 4_000_000 - (corners[:, 1] + 10) * 0.5
    expected = draw_buildings(scores, np.stack(metres, axis=1), 16, HASH)
    assert draw.strata.tolist() == expected.strata.tolist()
    assert draw.order.tolist() == expected.order.tolist()


def test_a_picture_shows_its_square_and_black_beyond_the_images() -> None:
    pictures = noise(22, 29, bands=6).reshape(2, 3, 22, 29).repeat(32, axis=2).repeat(32, axis=3)[..., :700, :900]
    squares = [Square(200, 100, CHIP), Square(-160, 540, CHIP), Square(100, 0, 2 * CHIP)]
    for (pre, post), square in zip(chips(reader(pictures), squares, 900, 700), squares, strict=True):
        factor = square.side // CHIP
        for uri, image in ((pre, pictures[0]), (post, pictures[1])):
            padded = np.pad(image, ((0, 0), (0, 900), (160, 900))).transpose(1, 2, 0)
            expected = padded[square.top :, square.left + 160 :][: square.side : factor, : square.side : factor]
            assert np.abs(shown(uri) - expected).mean() < 9  # of JPEG


def test_pictures_stay_below_40_mb_whatever_they_show() -> None:
    (pair,) = chips(reader(noise(CHIP, CHIP, bands=6).reshape(2, 3, CHIP, CHIP)), [Square(0, 0, CHIP)], CHIP, CHIP)
    assert all(len(uri) <= CHARACTERS for uri in pair)
    assert shown(pair[0]).shape == (CHIP, CHIP, 3)


def test_a_page_knows_every_building_and_where_its_picture_lies() -> None:
    boxes = [shapely.box(100, 50, 120, 90), shapely.box(700, 500, 900, 600), shapely.box(-4000, 600, 50, 700)]
    votes = np.ones((3, 2, 4), int)
    given = pd.DataFrame({"Id": ["</script>", None, "a"]})
    table = table_of(boxes, votes, given=given)
    draw = draw_buildings(np.full(3, 0.5), np.zeros((3, 2)), 1, HASH)
    page = for_page(
        Judging(draw, reader(noise(700, 900, bands=6).reshape(2, 3, 700, 900))), table, np.array(boxes), GRID
    )
    known = json.loads(page.known)
    assert "<" not in "".join(page)
    assert (known["ids"], known["unseen"]) == (["</script>", None, "a"], 0)
    assert known["metres"] == pytest.approx(0.5, rel=0.001)
    squares = dict(zip(draw.order.tolist(), [tuple(own[:3]) for own in json.loads(page.pictures)], strict=True))
    assert squares == {0: (-50, -90, 320), 1: (550, 300, 500), 2: (-135, 490, 320)}
    rings = [shapely.from_geojson(json.dumps(own)) for own in json.loads(page.polygons)]
    assert shapely.hausdorff_distance(rings, table.polygons[:]).max() < 1e-7
    assert shapely.is_ccw(shapely.get_exterior_ring(rings)).all()


@pytest.mark.parametrize("value", [7, 7.0, "7", 2**60, float("nan")])
def test_ids_are_such_as_javascript_has(value: Any) -> None:
    boxes, votes = [shapely.box(100, 50, 120, 90)], np.ones((1, 2, 4), int)
    table = table_of(boxes, votes, given=pd.DataFrame({"id": [value]}))
    draw = draw_buildings(np.full(1, 0.5), np.zeros((1, 2)), 1, HASH)
    page = for_page(
        Judging(draw, reader(noise(700, 900, bands=6).reshape(2, 3, 700, 900))), table, np.array(boxes), GRID
    )
    (found,) = json.loads(page.known)["ids"]
    assert found == {"7": "7", 2**60: str(2**60)}.get(value, 7 if value == 7 else None)
    assert type(found) in (int, str, type(None))


@pytest.mark.parametrize("turn", [0, 90, -90, 150])
def test_north_is_where_the_pole_is(turn: int) -> None:
    """Around the pole up is another direction at each longitude: EPSG:3413 has its own up at 45 degrees west."""
    angle = math.radians(-45 + turn)  # of the longitude
    x, y = 1_500_000 * math.sin(angle + math.pi / 4), -1_500_000 * math.cos(angle + math.pi / 4)
    grid = Grid(CRS.from_epsg(3413), Affine(1, 0, x, 0, -1, y), 400, 400)
    boxes = [shapely.box(100, 50, 120, 90)]
    table = table_of(boxes, np.ones((1, 2, 4), int), grid)
    draw = draw_buildings(np.full(1, 0.5), np.zeros((1, 2)), 1, HASH)
    page = for_page(
        Judging(draw, reader(noise(400, 400, bands=6).reshape(2, 3, 400, 400))), table, np.array(boxes), grid
    )
    assert json.loads(page.known)["north"] == pytest.approx(-turn, abs=0.1)

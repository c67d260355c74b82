"""What people need to judge a map in its page: the order of the buildings, and pictures of the first of them."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from imagery.find.ground import Geometries, from_degrees, metric_crs, place, points_from_degrees, to_degrees
from imagery.find.pixels import Numbers
from imagery.find.shapes import Shapes
from imagery.find.votes import Votes
from imagery.give.look import CHIP, Read, Square, chips
from imagery.give.page.squares import PICTURED as SQUARES
from imagery.give.page.squares import Boxes, squares_for_page
from imagery.give.table import Table
from imagery.read.grid import Grid
from imagery.sampling.draw import Draw, draw_buildings
from imagery.sampling.form import to_plain
from imagery.sampling.judgements_file import name_of_id
from imagery.sampling.squares import Squares
from model.judge.page import path_of

PICTURED = 500  # of the order, of which the page has pictures
AROUND = 2.5  # a picture's side over that of its building
LARGEST = 2048  # pixels of a picture's side, in the images
_EXACT = 2**53  # beyond which JavaScript has no whole numbers
_SOUTH = 1e-4  # degrees, some ten metres


class Judging(NamedTuple):
    """draw: the buildings of the map, in the order in which they are judged; read: the images, to cut pictures of;
    squares: where people look for what the map missed, None where its buildings were given.
    """

    draw: Draw
    read: Read
    squares: Squares | None = None


class ForPage(NamedTuple):
    """JSON for the page's script. order: judge.json; known: of the map and its rows; polygons: of each row, in degrees;
    pictures: of the first of the order, left, top, side in pixels, and both images as data URIs; squares: see
    `squares_for_page`, null where there are none.
    """

    order: Markup
    known: Markup
    polygons: Markup
    pictures: Markup
    squares: Markup


def draw_table(map_hash: str, table: Table, votes: Votes, middle: tuple[float, float]) -> Draw:
    """The draw of a map's buildings, by the summed probabilities of their grades; who has none of these is left out.

    votes: [N, 2, 4]. middle: longitude and latitude of the map. The seed is of the map's hash: a map has one draw, and
    nobody can choose among several.
    """
    sums = votes[:, 0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        scores = sums[:, 1:].sum(1) / sums.sum(1)
    places = points_from_degrees(table.points, metric_crs(*middle), middle[0])
    return draw_buildings(scores, places, int(map_hash[:8], 16), map_hash)


def draw_as_text(judging: Judging) -> Markup:
    """The content of judge.json."""
    return _json(to_plain(judging.draw, judging.squares))


def for_page(judging: Judging, table: Table, pixels: Geometries, grid: Grid) -> ForPage:
    """What the page's script reads. pixels: the outlines of the table's rows, in pixels of the grid, [N]."""
    return ForPage(
        draw_as_text(judging),
        _json({"ids": _ids(table, slice(None)), **_known(judging, table, grid)}),
        Markup(f"[{','.join(_in_degrees(table.polygons[:]))}]"),
        _json(_pictures(judging, pixels, grid)),
        _json(
            judging.squares
            and squares_for_page(judging.squares, judging.read, pixels, shapely.bounds(pixels).reshape(-1, 4), grid)
        ),
    )


def drawn_for_page(judging: Judging, table: Table, pixels: Shapes, around: Boxes, grid: Grid) -> dict[str, Any]:
    """The same of a map with too many buildings to hold all of them, fit for JSON: of the draw what there are pictures
    of, and of the buildings those that are drawn or lie in drawn squares, by their rows. outlines: as paths, in pixels;
    of the squares `count` is how many are drawn in all. around: boxes of the outlines, or larger ones, in pixels.
    """
    draw, first = judging.draw, judging.draw.order[:PICTURED]
    squares = judging.squares and squares_for_page(judging.squares, judging.read, pixels, around, grid)
    order = to_plain(draw, judging.squares) | {"order": first.tolist(), "strata": draw.strata[:PICTURED].tolist()}
    if judging.squares is not None:
        drawn = judging.squares.draw.order
        count = {"order": drawn[:SQUARES].tolist(), "count": len(drawn)}
        order["squares"] = {"side": judging.squares.side, "columns": judging.squares.columns, **count}
    in_squares = [np.array(own, np.int64) for own in squares["rows"]] if squares else []
    outlined = np.unique(np.concatenate([first, *in_squares]))
    polygons = _in_degrees(table.polygons[first])
    return {
        "order": order,
        "known": _known(judging, table, grid) | {"ids": _by_row(first, _ids(table, first))},
        "polygons": _by_row(first, [json.loads(own) for own in polygons]),
        "pictures": _pictures(judging, pixels, grid),
        "squares": squares,
        "outlines": _by_row(outlined, [path_of(own) for own in pixels[outlined]]),
    }


def _by_row(rows: Numbers, values: Sequence[Any]) -> dict[int, Any]:
    return dict(zip(rows.tolist(), values, strict=True))


def _ids(table: Table, rows: slice | Numbers) -> list[int | str | None]:
    return [_plain(value) for value in table.ids.iloc[rows].tolist()]


def _in_degrees(polygons: Geometries) -> list[str]:
    """As GeoJSON."""
    rounded = shapely.transform(shapely.orient_polygons(polygons), lambda points: points.round(7))
    return [str(own) for own in shapely.to_geojson(rounded)]


def _known(judging: Judging, table: Table, grid: Grid) -> dict[str, Any]:
    """Of the map."""
    return {
        "metres": round(grid.sides[0], 4),
        "north": round(_north(grid), 1),
        "unseen": len(table) - len(judging.draw),
    }


def _pictures(judging: Judging, pixels: Shapes, grid: Grid) -> list[list[Any]]:
    """Of the first of the order: left, top, side in pixels, and both images as data URIs."""
    bounds = shapely.bounds(pixels[judging.draw.order[:PICTURED]]).clip(0, [grid.width, grid.height] * 2)
    squares = [_square(*own) for own in bounds.tolist()]
    images = chips(judging.read, squares, grid.width, grid.height)
    return [[*square, *pair] for square, pair in zip(squares, images, strict=True)]


def _json(value: object) -> Markup:
    return htmlsafe_json_dumps(value, separators=(",", ":"))


def _square(left: float, top: float, right: float, bottom: float) -> Square:
    """The part of the images to show of a building, around its middle."""
    side = round(min(max(AROUND * max(right - left, bottom - top), CHIP), LARGEST))
    return Square(round((left + right - side) / 2), round((top + bottom - side) / 2), side)


def _plain(value: Any) -> int | str | None:
    """An id as JSON and JavaScript have it."""
    name = name_of_id(value)
    is_number = isinstance(value, int | float) and name.lstrip("-").isdecimal() and abs(int(name)) <= _EXACT
    return int(name) if is_number else name or None


def _north(grid: Grid) -> float:
    """Degrees by which north lies to the right of up, at the middle of the grid."""
    middle = to_degrees(place(shapely.points([[grid.width / 2, grid.height / 2]]), grid.transform), grid.crs)
    around = float(shapely.get_coordinates(middle)[0, 0])
    two = np.append(middle, shapely.transform(middle, lambda points: points - (0, _SOUTH)))
    north, south = shapely.get_coordinates(place(from_degrees(two, grid.crs, around), ~grid.transform))
    return math.degrees(math.atan2(north[0] - south[0], south[1] - north[1]))

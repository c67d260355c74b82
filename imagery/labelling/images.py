"""The images of a map, opened once more as predict read them, and held to what the map says of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from pydantic import TypeAdapter, ValidationError

from base.access import unreadable
from base.errors import printable
from base.problems import first_problem
from imagery.assessing.judged_map import MapError
from imagery.errors import RasterError
from imagery.give.rasters import DAMAGE
from imagery.give.summary import SUMMARY_FILES
from imagery.read.grid import Grid
from imagery.read.raster import ImagePair
from imagery.read.registration import register
from imagery.settings import CACHE, Reading, Sources

# The registration of the same images finds the same, but for the rounding of another machine's sums: pixels, and a
# share of the certainty.
PIXELS, SHARE = 0.05, 0.05
_SAME = "Give the images that the map was made of"


@contextmanager
def open_images(folder: Path, pre: Sequence[Path], post: Sequence[Path], names: Sequence[str]) -> Iterator[ImagePair]:
    """The pair of the map in `folder`, aligned as the map is; a map tells how its images were read.

    names: what the user calls the two images. Raises MapError where the map does not say what it should, RasterError
    where the images cannot be read or are not those of the map.
    """
    scene = _scene(folder / SUMMARY_FILES[1])
    sources = Sources(tuple(pre), tuple(post), **_reading(folder, scene))
    with rasterio.Env(GDAL_CACHEMAX=CACHE), ImagePair(sources) as pair:
        _check_grid(folder / DAMAGE, pair, names)
        mode = scene["alignment"].get("mode", "off")
        pair.align(register(pair, mode))
        _check_facts(folder / SUMMARY_FILES[1], scene, pair, names)
        yield pair


def _scene(path: Path) -> Mapping[str, Any]:
    """What summary.json says of the images."""
    try:
        scene = json.loads(path.read_text(encoding="utf-8"))["scene"]
        if not isinstance(scene["alignment"], dict) or not isinstance(scene["bands"], dict):
            raise TypeError("alignment and bands are no objects")
    except OSError as error:
        remedy = ", expected what predict says of a map. Correct --map."
        raise MapError(f"{path}: {unreadable(path, error, remedy)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MapError(
            f"{path}: does not say how the images were read ({printable(str(error))[:100]}), expected the summary.json "
            "of predict. Make the map again."
        ) from error
    return scene  # type: ignore[no-any-return]


def _reading(folder: Path, scene: Mapping[str, Any]) -> dict[str, Any]:
    """Of a map from before they said it, what predict does by default."""
    try:
        return TypeAdapter(Reading).validate_python(scene.get("reading", {})).facts()
    except ValidationError as error:
        problem = first_problem(error, "scene", "reading")
        raise MapError(
            f"{folder / SUMMARY_FILES[1]}: {problem.place}: {problem.said}, expected what predict wrote. Make the map "
            "again."
        ) from error


def _check_grid(damage: Path, pair: ImagePair, names: Sequence[str]) -> None:
    try:
        with rasterio.open(damage) as dataset:
            grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    except rasterio.errors.RasterioIOError as error:
        raise MapError(f"{damage}: cannot be read ({printable(str(error))}), expected a map. Correct --map.") from error
    own, size = pair.grid, max(grid.width, grid.height)
    lies = own.crs == grid.crs and own.transform.almost_equals(grid.transform, abs(grid.transform.a) / 100 / size)
    if not lies or (own.width, own.height) != (grid.width, grid.height):
        raise RasterError(
            f"{' and '.join(names)}: cover {own.width} x {own.height} pixels from {own.extent} degrees (west, south, "
            f"east, north), expected {grid.width} x {grid.height} from {grid.extent}, as {damage}. {_SAME}."
        )


def _check_facts(summary: Path, scene: Mapping[str, Any], pair: ImagePair, names: Sequence[str]) -> None:
    """Raises RasterError where bands or the shift between the two images are others than when the map was made: other
    pictures of the place have another one.
    """
    found, known = pair.alignment.facts(pair.grid.gsd), scene["alignment"]
    for key, tolerance in (("x_px", PIXELS), ("y_px", PIXELS), ("certainty", SHARE * known.get("certainty", 0) + 0.1)):
        if key in known and not abs(found.get(key, 0) - known[key]) <= tolerance:
            raise RasterError(
                f"{' and '.join(names)}: the shift between them has {key} {found.get(key)}, expected {known[key]}, as "
                f"{summary} says. {_SAME}, --pre the one before."
            )
    bands = {"before": str(pair.pre.bands), "after": str(pair.post.bands)}
    if bands != scene["bands"]:
        raise RasterError(
            f"{' and '.join(names)}: have the bands {bands}, expected {scene['bands']}, as {summary} says. {_SAME}."
        )

"""Maps with their images, whose buildings are known polygons."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from tests.imagery.geotiff import ORIGIN, UTM, noise, pair, write_tif
from tests.imagery.predicted import FACTS, draw, give_out, write_classes

NAMES = ("no-damage", "minor-damage", "major-damage", "destroyed")


class Made(NamedTuple):
    """A map's folder and its two images. ground: of each building, in metres of UTM, by the map's rows."""

    folder: Path
    pre: Path
    post: Path
    ground: npt.NDArray[np.object_]

    @property
    def gpkg(self) -> Path:
        return self.folder / "buildings.gpkg"


def houses(count: int, size: tuple[int, int], seed: int = 0) -> npt.NDArray[np.object_]:
    """Turned rectangles all over an image of (height, width) pixels, on the ground; some overlap."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform((20, 20), (size[1] - 20, size[0] - 20), (count, 2))
    sides = generator.uniform(6, 30, (count, 2))
    made = []
    for centre, side, angle in zip(centres, sides, generator.uniform(0, 180, count), strict=True):
        corners = shapely.affinity.rotate(shapely.box(*(centre - side / 2), *(centre + side / 2)), angle)
        made.append(shapely.affinity.affine_transform(corners, _numbers(ORIGIN)))
    return np.array(made, dtype=object)


def _numbers(transform: Affine) -> list[float]:
    return [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]


def make(folder: Path, ground: npt.NDArray[np.object_], grades: Any, size: tuple[int, int]) -> Made:
    """The map of these footprints, graded so; images of (height, width) noise."""
    folder.mkdir(exist_ok=True)
    pre, post = (write_tif(folder / f"{name}.tif", noise(*size, seed)) for seed, name in enumerate(("pre", "post")))
    footprints = geopandas.GeoDataFrame({"name": [f"house {n}" for n in range(len(ground))]}, geometry=ground, crs=UTM)
    footprints.to_file(folder / "footprints.gpkg")
    damage = draw(list(zip(ground, grades, strict=True)), size)
    give_out(write_classes(folder / "classes.tif", damage), folder / "map", footprints=folder / "footprints.gpkg")
    tell(folder / "map", pre, post)
    return Made(folder / "map", pre, post, ground)


def tell(folder: Path, pre: Path, post: Path, **changes: Any) -> None:
    """Lets the summary of a map say how its images were read, as predict does."""
    with pair(pre, post) as images:
        bands = {"before": str(images.pre.bands), "after": str(images.post.bands)}
        facts = {**FACTS, "bands": bands, "alignment": images.alignment.facts(images.grid.gsd)} | changes
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(json.dumps(summary | {"scene": facts}), encoding="utf-8")


def edit(made: Made, to: Path, **columns: dict[int, Any]) -> Any:
    """A copy of the map's GeoPackage with other values, by column and row; a column that is new is text."""
    frame = geopandas.read_file(made.gpkg, layer="buildings")
    for name, values in columns.items():
        if name not in frame:
            frame[name] = None
        for row, value in values.items():
            frame.loc[row, name] = value
    frame.to_file(to, layer="buildings")
    return frame

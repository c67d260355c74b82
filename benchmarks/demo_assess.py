"""From a first map to numbers that can be defended, on synthetic scenes whose labels judge in the place of a person.

python -m benchmarks.demo_assess --model LOCATION [--raw DIR] [--judged N] --out DIR

Joins scenes to one pair of GeoTIFFs, in an invented place on the equator; predict makes the map of them; the labels say
what the first N buildings of its order are, and what the map missed in some squares; assess estimates from these. As
the labels know of all buildings, it then tells whether the interval holds the truth.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from shapely import affinity

from base.errors import InputError
from base.images import read_image
from benchmarks.demonstration import write_tile
from benchmarks.labels_as_judge import judge_by_labels, write_judgements
from components.assess import assess
from components.cli import errors_in_one_line
from components.predict import predict_imagery
from imagery.assessing.judged_map import read_map
from imagery.estimating.totals import ALL, DAMAGED
from imagery.read.grid import Grid
from imagery.sampling.judgements_file import JUDGEMENTS_FILE
from xbd.labels import Building, read_buildings
from xbd.names import LABEL, file_name, scene_files

PLACE = "EPSG:32631", Affine(0.5, 0, 500_000, 0, -0.5, 3_000)
JUDGED = 60
LOOKED = 30  # squares in which what the map missed is counted
JUDGE = "labels"


class Joined(NamedTuple):
    """The pair as files, its grid, and the labels in its pixels."""

    pre: Path
    post: Path
    grid: Grid
    labels: list[Building]


def join_scenes(folders: Sequence[Path], out: Path, disaster: str = "") -> Joined:
    """Lays the scenes side by side in rows, as near to a square as they come, and writes the pair of them.

    folders: each with images/ and labels/, of which scenes are taken whose names begin with `disaster`. Raises
    InputError where there is none, or scenes of several sizes.
    """
    scenes = [
        (folder, found.scene)
        for folder in folders
        for found in scene_files(folder / "images")
        if found.moment == "pre" and found.scene.startswith(disaster)
    ]
    places = " and ".join(map(str, folders))
    if not scenes:
        wanted = f"scenes of {disaster}. Give a folder that has them." if disaster else "scenes. Run `make demo` first."
        raise InputError(f"{places}: found no image pair in images/, expected {wanted}")
    images = {
        moment: [read_image(folder / "images" / file_name(name, moment)) for folder, name in scenes]
        for moment in ("pre", "post")
    }
    sizes = {image.shape for both in images.values() for image in both}
    if len(sizes) > 1:
        raise InputError(f"{places}: found images of {len(sizes)} sizes, expected one. Give scenes of one data set.")
    ((height, width, _),) = sizes
    columns = math.ceil(math.sqrt(len(scenes)))
    corners = [divmod(number, columns) for number in range(len(scenes))]
    size = (corners[-1][0] + 1) * height, columns * width
    pair = []
    for moment, tiles in images.items():
        whole = np.zeros((3, *size), np.uint8)
        for (row, column), tile in zip(corners, tiles, strict=True):
            part = np.s_[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
            whole[part] = tile.transpose(2, 0, 1)
        pair.append(write_tile(out / f"{moment}.tif", whole, *PLACE))
    labels = []
    for (row, column), (folder, name) in zip(corners, scenes, strict=True):
        for label in read_buildings(folder / "labels" / file_name(name, "post", LABEL)):
            moved = affinity.translate(label.polygon, column * width, row * height)
            labels.append(replace(label, polygon=moved))
    return Joined(pair[0], pair[1], Grid(CRS.from_string(PLACE[0]), PLACE[1], size[1], size[0]), labels)


def demonstrate(model: str, raw: Path, out: Path, judged: int = JUDGED) -> None:
    """Writes the pair, map/, judgements.geojson and map-assessed/ into the folder `out`, and tells what they say."""
    out.mkdir(parents=True, exist_ok=True)
    joined = join_scenes([raw], out)
    folder, judgements, assessed = out / "map", out / JUDGEMENTS_FILE, out / "map-assessed"
    predict_imagery(model, [str(joined.pre)], [str(joined.post)], str(folder))
    given = read_map(folder)
    truth = judge_by_labels(given, joined.grid, joined.labels)
    judged = min(judged, len(given.draw))
    looked = 0 if given.squares is None else min(LOOKED, len(given.squares.draw))
    write_judgements(judgements, given, joined.grid, truth, judged, looked, JUDGE)
    found = assess(str(folder), [str(judgements)], str(assessed))
    table = found.estimates.table
    whole = table["headline"] & (table["area"] == ALL) & (table["unit"] == "buildings")
    (row,) = table[whole & (table["category"] == "damaged")].to_dict("records")
    low, high = float(row["low"]), float(row["high"])
    actual = int(np.isin(truth.judgements[given.draw.order], DAMAGED).sum())
    mapped = int(np.isin(given.grades, DAMAGED).sum())
    print()
    print(f"The map says:       {mapped} of its {len(given.grades)} buildings are damaged")
    print(f"The estimate:       {found.headline}")
    print(f"The truth:          {actual}, which the interval {'holds' if low <= actual <= high else 'does NOT hold'}")
    if found.missed is not None:
        low, high = found.missed.buildings[1:3]
        holds = "holds" if low <= len(truth.missed) <= high else "does NOT hold"
        print(
            f"Missed by the map:  {found.missed.buildings}; the truth: {len(truth.missed)}, which the interval {holds}"
        )
    print(f"The grades:         {found.said}")
    print(f"Judge yourself:     {folder}/report.html, button Judge")
    print(f"Assessment:         {assessed}/assessment.html")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the demonstration."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_assess", description=__doc__)
    parser.add_argument("--model", required=True, metavar="LOCATION", help="model directory, or models:/NAME@ALIAS")
    parser.add_argument("--raw", type=Path, default=Path("data/sample/test"), metavar="DIR", help="images/ and labels/")
    parser.add_argument("--judged", type=int, default=JUDGED, metavar="N", help=f"buildings to judge ({JUDGED})")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        demonstrate(arguments.model, arguments.raw, arguments.out, arguments.judged)


if __name__ == "__main__":
    main()

"""How predict grows with the size of the imagery: GeoTIFFs put together from real tiles, again and again.

python -m benchmarks.imagery_growth --raw XBD --model DIR [--sides 2048 8192 16384]

The image after lies half a pixel beside the one before, so that it is warped as it is read. Memory is the sum of the
peaks of the process and of those it starts. Needs 40 bytes of disk a pixel.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rasterio
from affine import Affine
from rasterio.windows import Window

from base.images import read_image
from benchmarks.growth import run
from imagery.predict.windows import plan

GSD, TILE, OVERLAP = 0.5, 1024, 256
CORNER = Affine(GSD, 0, 500_000, 0, -GSD, 4_000_000)


def mosaic(images: Sequence[Path], path: Path, side: int, shift: float) -> None:
    """A GeoTIFF of side x side pixels that shows the images in turns; shift: pixels that it lies to the right."""
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "width": side, "height": side, "crs": "EPSG:32633",
        "transform": CORNER @ Affine.translation(shift, 0), "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 90,
    }  # fmt: skip
    number = 0
    with rasterio.open(path, "w", **profile) as out:
        for row in range(0, side, TILE):
            for column in range(0, side, TILE):
                image = read_image(images[number % len(images)]).transpose(2, 0, 1)
                height, width = min(TILE, side - row), min(TILE, side - column)
                out.write(image[:, :height, :width], window=Window(column, row, width, height))
                number += 1


def measure(raw: Path, model: Path, side: int, work: Path) -> str:
    """A line of the table."""
    images = sorted(raw.glob("*/images/*_pre_disaster.png"))
    posts = [Path(str(path).replace("_pre_", "_post_")) for path in images]
    mosaic(images, work / "pre.tif", side, 0)
    mosaic(posts, work / "post.tif", side, 0.5)
    images_given: list[str | Path] = ["--pre", work / "pre.tif", "--post", work / "post.tif"]
    settings: list[str | Path] = ["--model", model, "--overlap", str(OVERLAP), "--out", work / "out"]
    wall, peak, _ = run([sys.executable, "-m", "components.predict", *images_given, *settings])
    windows = len(plan(side, side, TILE, OVERLAP))
    buildings = json.loads((work / "out" / "summary.json").read_text(encoding="utf-8"))["total"]["buildings"]
    page = (work / "out" / "report.html").stat().st_size / 1e6
    area = (side * GSD / 1000) ** 2
    return (
        f"| {side:,} | {area:.1f} | {windows} | {buildings:,} | {wall:.0f} | {wall / windows:.2f} | "
        f"{3600 * area / wall:.1f} | {peak:.0f} | {page:.1f} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imagery_growth", description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a model directory")
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 8192, 16384], help="pixels of a side")
    arguments = parser.parse_args(argv)
    print("| pixels of a side | km² | windows | buildings | s | s a window | km² an hour | peak MB | report MB |")
    print("|" + "---|" * 9)
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as work:
            print(measure(arguments.raw, arguments.model, side, Path(work)), flush=True)


if __name__ == "__main__":
    main()

"""Tiles of xBD as a pair of GeoTIFFs, placed by their labels, to see what responders see.

python -m benchmarks.demonstration --raw XBD --scenes SCENE [SCENE ...] --out DIR

Writes DIR/pre.tif and DIR/post.tif. Every label has its outline in pixels and in degrees, from which the geotransform
of a tile follows to a ten-thousandth of a pixel in the UTM zone that the tile was cut out in. Tiles lie where they were
cut out: gaps between them have no data.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.merge import merge

from base.images import read_image
from imagery.find.ground import metric_crs
from xbd.overview import Image


def geotransform(label: Path) -> tuple[str, Affine]:
    """The UTM zone of the tile, and from its columns and rows to metres there, by least squares."""
    features = json.loads(label.read_text(encoding="utf-8"))["features"]
    pixels, degrees = (
        {one["properties"]["uid"]: shapely.get_coordinates(shapely.from_wkt(one["wkt"])) for one in features[kind]}
        for kind in ("xy", "lng_lat")
    )
    both = [uid for uid in pixels if uid in degrees and len(pixels[uid]) == len(degrees[uid])]
    here = np.concatenate([pixels[uid] for uid in both])
    there = np.concatenate([degrees[uid] for uid in both])
    zone = metric_crs(*there.mean(0))
    placed = np.stack(Transformer.from_crs("EPSG:4326", zone, always_xy=True).transform(*there.T), axis=1)
    (a, d), (b, e), (c, f) = np.linalg.lstsq(np.c_[here, np.ones(len(here))], placed)[0].tolist()
    assert max(abs(b), abs(d)) < 1e-6 * a, f"{label} was cut out in another zone than {zone}"
    return zone, Affine(a, 0, c, 0, e, f)


def write_tile(path: Path, colours: Image, crs: str, transform: Affine, nodata: int | None = None) -> Path:
    """A GeoTIFF of uint8 [3, H, W]."""
    bands, height, width = colours.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width, "nodata": nodata}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as out:
        out.write(colours)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the two GeoTIFFs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demonstration", description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--scenes", nargs="+", required=True, metavar="SCENE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for time in ("pre", "post"):
            tiles = []
            for scene in arguments.scenes:
                (label,) = arguments.raw.glob(f"*/labels/{scene}_post_disaster.json")
                image = read_image(label.parent.parent / "images" / f"{scene}_{time}_disaster.png").transpose(2, 0, 1)
                tiles.append(write_tile(Path(work) / f"{scene}_{time}.tif", image, *geotransform(label), nodata=0))
            blocks = {"compress": "deflate", "tiled": True, "blockxsize": 512, "blockysize": 512}
            merge(tiles, dst_path=arguments.out / f"{time}.tif", dst_kwds=blocks)


if __name__ == "__main__":
    main()

"""GeoTIFFs made by the tests, and pairs of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.windows import Window

from imagery.read.raster import ImagePair, Tile
from imagery.settings import Sources

UTM = "EPSG:32633"
ORIGIN = Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)  # half a metre a pixel


def write_tif(
    path: Path, image: npt.NDArray[Any], crs: str | None = UTM, transform: Affine = ORIGIN, **more: Any
) -> Path:
    """image: [bands, H, W]."""
    bands, height, width = image.shape
    profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": image.dtype}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, **more) as out:
        out.write(image)
    return path


def noise(height: int, width: int, seed: int = 0, bands: int = 3) -> npt.NDArray[np.uint8]:
    """Random values from 1 on, so that 0 is what nobody wrote."""
    return np.random.default_rng(seed).integers(1, 256, (bands, height, width), dtype=np.uint8)


def moved(columns: float, rows: float, transform: Affine = ORIGIN) -> Affine:
    """The transform of a window that begins there."""
    return transform @ Affine.translation(columns, rows)


def values(path: Path, bands: Sequence[int] | None = None) -> npt.NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        found: npt.NDArray[np.uint8] = dataset.read(bands)
    return found


def landscape(crs: str, transform: Affine, height: int, width: int, ground: str = UTM) -> npt.NDArray[np.uint8]:
    """A smooth picture of the ground: a value for each place, whatever the raster that shows it. [3, H, W]."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform @ (columns, rows)
    east, north = Transformer.from_crs(crs, ground, always_xy=True).transform(x, y)
    waves = [np.sin(east / scale) * np.cos(north / scale) for scale in (17.0, 23.0, 31.0)]
    picture: npt.NDArray[np.uint8] = np.rint(127 + 100 * np.stack(waves)).astype(np.uint8)
    return picture


def pair(pre: Path | list[Path], post: Path | list[Path], **settings: Any) -> ImagePair:
    paths = [tuple(one) if isinstance(one, list) else (one,) for one in (pre, post)]
    return ImagePair(Sources(paths[0], paths[1], **settings))


def whole(opened: ImagePair) -> Tile:
    with opened:
        return opened.read(Window(0, 0, opened.grid.width, opened.grid.height))

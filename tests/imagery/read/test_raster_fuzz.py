"""GeoTIFFs of odd kinds, and damaged ones: pixels fit for the network, or one line that says why not."""

import warnings
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from imagery.errors import RasterError
from tests.imagery.geotiff import ORIGIN, UTM, noise, pair, whole, write_tif

SIZE = 40, 50
numbers = count()
transforms = st.sampled_from(
    [ORIGIN] * 6
    + [ORIGIN @ Affine.rotation(40), ORIGIN @ Affine.scale(1, -1), ORIGIN @ Affine.scale(2.5), Affine.identity()]
    + [Affine(0.5, 0, value, 0, -0.5, 4e6) for value in (np.nan, np.inf, 1e300)]
    + [Affine(value, 0, 5e5, 0, -0.5, 4e6) for value in (np.nan, 1e300, 1e-300, 0.0)]
)
systems = st.sampled_from([UTM] * 6 + ["EPSG:4326", "EPSG:4978", "EPSG:5773", "EPSG:3031", None, 'LOCAL_CS["site"]'])
types = st.sampled_from(["uint8"] * 4 + ["uint16", "int16", "float32", "float64", "int8", "uint64", "complex64"])
layouts: Any = st.fixed_dictionaries(
    {},
    optional={
        "nodata": st.sampled_from([0, 255, -9999, 65535, 1e40, np.nan, np.inf]),
        "compress": st.sampled_from(["deflate", "lzw", "packbits"]),
        "photometric": st.sampled_from(["MINISBLACK", "RGB", "CMYK", "PALETTE"]),
        "BIGTIFF": st.just("YES"),
        "SPARSE_OK": st.just(True),
        "tiled": st.just(True),
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rasters")


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    return write_tif(folder / "good.tif", noise(*SIZE))


def check(pre: Path, post: Path) -> None:
    """Reads a pair as predict does."""
    try:
        opened = pair(pre, post)
        with opened:
            assert 0 < opened.grid.gsd < np.inf
        tile = whole(pair(pre, post))
    except RasterError as error:
        assert "\n" not in str(error)
        assert ".tif: " in str(error)
        return
    assert tile.pre.dtype == tile.post.dtype == np.uint8
    assert tile.pre.shape[1:] == tile.valid.shape
    assert not tile.pre[:, ~tile.valid].any()


@settings(max_examples=40)
@given(systems, transforms, types, st.sampled_from([3, 3, 1, 2, 4, 5]), layouts, st.booleans())
def test_a_geotiff_of_any_kind_is_read_or_refused(
    folder: Path, good: Path, crs: str | None, transform: Affine, kind: str, bands: int, layout: Any, first: bool
) -> None:
    image = noise(*SIZE, bands=bands).astype(kind)
    if kind.startswith("float"):
        image[:, :9] = np.nan
    path = folder / f"{next(numbers)}.tif"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_tif(path, image, crs, transform, **layout)
    except (rasterio.errors.RasterioError, ValueError):  # GDAL does not write it
        return
    check(*((path, good) if first else (good, path)))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 2**15), st.booleans(), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(0, 2**15),
)
def test_a_damaged_geotiff_is_read_or_refused(
    folder: Path, good: Path, changes: list[tuple[int, bool, int]], cut: int
) -> None:
    content = bytearray(good.read_bytes())
    for place, in_header, value in changes:
        content[place % (400 if in_header else len(content))] = value
    path = folder / f"{next(numbers)}.tif"
    path.write_bytes(content[: cut % (3 * len(content))])
    check(path, good)


def test_a_name_of_a_band_that_is_no_text_is_one_line(folder: Path) -> None:
    path = write_tif(folder / "names.tif", noise(*SIZE))
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ["the red of it", "green", "blue"]
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"the red of it", b"the r\xe9d of it"))
    with pytest.raises(RasterError, match=r"names\.tif: breaks off or is damaged .*utf-8.*Fetch the file again"):
        pair(path, path)

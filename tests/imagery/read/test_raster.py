"""Pairs of rasters on one grid: whatever the files are like, what is read lies where it lies on the ground."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from imagery.errors import RasterError
from imagery.read.grid import Grid
from imagery.read.mosaic import MosaicError
from tests.imagery.geotiff import ORIGIN, UTM, landscape, moved, noise, pair, whole, write_tif


def test_a_pair_on_one_grid_is_read_as_it_is(tmp_path: Path) -> None:
    pre, post = noise(70, 90, 1), noise(70, 90, 2)
    tile = whole(pair(write_tif(tmp_path / "pre.tif", pre), write_tif(tmp_path / "post.tif", post)))
    np.testing.assert_array_equal(tile.pre, pre)
    np.testing.assert_array_equal(tile.post, post)
    assert tile.valid.all()


def test_what_both_show_is_cut_to_whole_pixels_of_pre(tmp_path: Path) -> None:
    pre, post = noise(70, 90, 1), noise(70, 90, 2)
    first = write_tif(tmp_path / "pre.tif", pre)
    opened = pair(first, write_tif(tmp_path / "post.tif", post, transform=moved(20, -30)))
    tile = whole(opened)
    assert opened.grid.transform == moved(20, 0)
    np.testing.assert_array_equal(tile.pre, pre[:, :40, 20:])
    np.testing.assert_array_equal(tile.post, post[:, 30:, :70])
    half = pair(first, write_tif(tmp_path / "half.tif", post, transform=moved(20.5, -30)))
    assert (half.grid.width, half.grid.transform) == (70, moved(20, 0))


@pytest.mark.parametrize(
    ("crs", "pixel"),
    [(UTM, 0.7), ("EPSG:32634", 0.5), ("EPSG:3857", 0.6), ("EPSG:4326", 5e-6), ("EPSG:3035", 0.5)],
)
def test_post_of_another_system_or_resolution_comes_to_lie_on_pre(crs: str, pixel: float, tmp_path: Path) -> None:
    pre = write_tif(tmp_path / "pre.tif", landscape(UTM, ORIGIN, 200, 240))
    to_other = Transformer.from_crs(UTM, crs, always_xy=True)
    left, bottom, right, top = to_other.transform_bounds(499_980, 3_999_880, 500_140, 4_000_020)
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    size = int((top - bottom) / pixel), int((right - left) / pixel)
    post = write_tif(tmp_path / "post.tif", landscape(crs, transform, *size), crs, transform)
    opened = pair(pre, post)
    tile = whole(opened)
    assert (opened.grid.width, opened.grid.height) == (240, 200)
    inner = np.s_[:, 2:-2, 2:-2]
    assert tile.valid[2:-2, 2:-2].all()
    # Bilinear interpolation of waves of 100 metres, of values rounded twice.
    assert np.abs(tile.post.astype(int) - tile.pre)[inner].max() <= 3


def test_a_south_up_raster_is_read_as_its_north_up_twin(tmp_path: Path) -> None:
    pre = noise(40, 50, 1)
    north = write_tif(tmp_path / "north.tif", pre)
    flipped = ORIGIN @ Affine(1, 0, 0, 0, -1, 40)
    south = write_tif(tmp_path / "south.tif", pre[:, ::-1], transform=flipped)
    for paths in ((north, south), (south, north), (south, south)):
        opened = pair(*paths)
        tile = whole(opened)
        assert opened.grid.transform == ORIGIN
        np.testing.assert_array_equal(tile.pre, pre)
        np.testing.assert_array_equal(tile.post, pre)


def test_nodata_and_alpha_are_not_valid_in_either_image(tmp_path: Path) -> None:
    pre, post = noise(20, 30, 1), noise(20, 30, 2, bands=4)
    pre[:, :5] = 0
    post[3] = 255
    post[3, :, :7] = 0
    first = write_tif(tmp_path / "pre.tif", pre, nodata=0)
    second = write_tif(tmp_path / "post.tif", post)
    with rasterio.open(second, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    tile = whole(pair(first, second))
    expected = np.ones((20, 30), bool)
    expected[:5] = expected[:, :7] = False
    np.testing.assert_array_equal(tile.valid, expected)
    assert not tile.pre[:, ~expected].any() and not tile.post[:, ~expected].any()
    np.testing.assert_array_equal(tile.post[:, expected], post[:3, expected])


def test_bands_are_taken_by_their_colour(tmp_path: Path) -> None:
    image = noise(20, 30, 1, bands=5)
    path = write_tif(tmp_path / "pre.tif", image)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, *[ColorInterp.undefined] * 2]
    plain = write_tif(tmp_path / "post.tif", image)
    tile = whole(pair(path, plain))
    np.testing.assert_array_equal(tile.pre, image[[2, 1, 0]])
    np.testing.assert_array_equal(tile.post, image[:3])


def test_16_bits_are_scaled_alike_in_the_whole_scene(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(200, 3000, (3, 64, 96), dtype=np.uint16)
    values[:, :, 48:] //= 4  # a darker half stays darker
    path = write_tif(tmp_path / "pre.tif", values)
    tile = whole(pair(path, path))
    low, high = np.percentile(values.reshape(3, -1), (2, 98), axis=1)
    expected = (values - low[:, None, None]) * 255 / (high - low)[:, None, None]
    assert np.abs(tile.pre - expected.round().clip(0, 255)).max() <= 1
    with pair(path, path) as opened:
        part = opened.read(Window(40, 8, 24, 16))
    np.testing.assert_array_equal(part.pre, tile.pre[:, 8:24, 40:64])
    given = whole(pair(path, path, value_range=(0.0, 2550.0)))
    np.testing.assert_array_equal(given.pre, np.rint(values / 10).clip(0, 255))


def test_floats_from_0_to_1_use_the_whole_range(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 64, 96), dtype=np.float32)
    path = write_tif(tmp_path / "pre.tif", values)
    tile = whole(pair(path, path))
    assert tile.pre.min() == 0 and tile.pre.max() == 255
    assert abs(tile.pre.mean() - 127.5) < 3
    eight = write_tif(tmp_path / "eight.tif", noise(64, 96))
    np.testing.assert_array_equal(whole(pair(eight, eight, value_range=(0.0, 10.0))).pre, noise(64, 96))


def test_tiles_are_one_image(tmp_path: Path) -> None:
    image = noise(60, 80, 1)
    parts = {"a": np.s_[:, :30, :50], "b": np.s_[:, :30, 50:], "c": np.s_[:, 30:, :80]}
    paths = [
        write_tif(tmp_path / f"{name}.tif", image[part], transform=moved(part[2].start or 0, part[1].start or 0))
        for name, part in parts.items()
    ]
    tile = whole(pair(paths, write_tif(tmp_path / "post.tif", image)))
    np.testing.assert_array_equal(tile.pre, image)
    other = write_tif(tmp_path / "other.tif", image, transform=moved(80.5, 0))
    with pytest.raises(MosaicError, match=r"other\.tif: lies between the pixels of .*a\.tif"):
        pair([*paths, other], other)
    coarse = write_tif(tmp_path / "coarse.tif", image, transform=ORIGIN @ Affine.scale(2))
    with pytest.raises(MosaicError, match=r"coarse\.tif: has pixels of 1 x -1, .*a\.tif 0\.5 x -0\.5"):
        pair([*paths, coarse], other)


def test_the_ground_sampling_distance_is_of_the_ground() -> None:
    mercator = Grid(CRS.from_epsg(3857), Affine(1, 0, 1_000_000, 0, -1, 8_399_738), 10, 10)  # 60 degrees north
    assert mercator.gsd == pytest.approx(0.5, rel=0.005)
    assert mercator.resampled(1.0).gsd == pytest.approx(1.0, rel=0.005)
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-5, 0, 10, 0, -1e-5, 0), 10, 10)
    assert degrees.gsd == pytest.approx(1.11, abs=0.01)  # a degree is 111.3 km along the equator, 110.6 km across it


def test_resampling_makes_pixels_of_the_asked_size(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "pre.tif", landscape(UTM, ORIGIN, 200, 240))
    opened = pair(path, path, resample_to=1.0)
    tile = whole(opened)
    assert (opened.grid.width, opened.grid.height) == (120, 100)
    expected = landscape(UTM, opened.grid.transform, 100, 120).astype(int)
    assert np.abs(tile.pre - expected)[:, 2:-2, 2:-2].max() <= 3


def placed(width: float) -> Affine:
    """The usual place, with pixels of another width."""
    return Affine(width, 0, ORIGIN.c, 0, ORIGIN.e, ORIGIN.f)


@pytest.mark.parametrize(
    ("write", "finding"),
    [
        (lambda path: write_tif(path, noise(20, 30), crs=None), "has no coordinate reference system"),
        (lambda path: write_tif(path, noise(20, 30), transform=Affine.identity()), "has no place on the ground"),
        (lambda path: write_tif(path, noise(20, 30), transform=placed(np.nan)), "has no place on the ground"),
        (lambda path: write_tif(path, noise(20, 30), transform=placed(1e-7)), "makes pixels of .* m, expected"),
        (lambda path: write_tif(path, noise(20, 30), transform=placed(1e300)), "no place on the earth"),
        (lambda path: write_tif(path, noise(20, 30, bands=1)), "has 1 bands, expected red, green and blue"),
        (lambda path: write_tif(path, noise(20, 30).astype(np.complex64)), "has values of complex64"),
        (lambda path: path.write_bytes(b"II*\0 no raster"), "is no raster that can be read"),
        (lambda path: None, "is no raster that can be read"),
        (lambda path: write_tif(path, noise(20, 30), transform=moved(5000, 0)), "shows nothing of what"),
    ],
    ids=["crs", "place", "no number", "too fine", "too far", "grey", "complex", "damaged", "missing", "elsewhere"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_that_cannot_be_used_is_one_line(write: Any, finding: str, tmp_path: Path) -> None:
    good = write_tif(tmp_path / "good.tif", noise(20, 30))
    write(tmp_path / "bad.tif")
    with pytest.raises(RasterError, match=finding) as caught:
        pair(good, tmp_path / "bad.tif")
    assert str(caught.value).startswith(str(tmp_path / "bad.tif"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_truncated_raster_is_one_line_when_its_pixels_are_read(kept: float, tmp_path: Path) -> None:
    good = write_tif(tmp_path / "good.tif", noise(300, 300), compress="deflate")
    content = good.read_bytes()
    (tmp_path / "bad.tif").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(RasterError, match=r"bad\.tif: (breaks off or is damaged|is no raster)") as caught:
        whole(pair(good, tmp_path / "bad.tif"))
    assert "\n" not in str(caught.value)

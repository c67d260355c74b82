"""What an image says of where it has data, and says wrongly or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from imagery.errors import RasterError
from imagery.read.doubts import find_collar, is_mask
from imagery.read.raster import doubts
from tests.imagery.geotiff import moved, noise, pair, whole, write_tif


def with_alpha(path: Path, alpha: Any, left: int = 0) -> Path:
    image = noise(40, 50, bands=4)
    image[3] = alpha
    write_tif(path, image, transform=moved(left, 0))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return path


def near_infrared() -> Any:
    """Of a scene whose darkest tenth is 0."""
    return np.random.default_rng(1).integers(-20, 180, (40, 50)).clip(0, None).astype(np.uint8)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("warped", [False, True])
def test_an_alpha_band_of_many_values_is_data_and_no_mask(warped: bool, tiles: bool, tmp_path: Path) -> None:
    path = with_alpha(tmp_path / "a.tif", near_infrared())
    post = [path, with_alpha(tmp_path / "b.tif", near_infrared(), left=50)] if tiles else path
    pre = write_tif(tmp_path / "pre.tif", noise(40, 50), transform=moved(0.5 if warped else 0, 0))
    with pair(pre, post) as opened:
        (doubt,) = doubts(opened)
        assert doubt.startswith(f"{path}") and "a band is tagged alpha but has many values" in doubt
        tile = whole(opened)
    assert tile.valid[:, : None if tiles or not warped else -1].all()
    if not warped:
        np.testing.assert_array_equal(tile.post, noise(40, 50, bands=4)[:3])


def test_between_tiles_with_near_infrared_there_is_no_data(tmp_path: Path) -> None:
    tiles = [with_alpha(tmp_path / f"{left}.tif", near_infrared(), left=left) for left in (0, 60)]
    tile = whole(pair(write_tif(tmp_path / "pre.tif", noise(40, 110)), tiles))
    expected = np.ones((40, 110), bool)
    expected[:, 50:60] = False
    np.testing.assert_array_equal(tile.valid, expected)


def test_an_alpha_band_with_soft_edges_stays_a_mask(tmp_path: Path) -> None:
    alpha = np.full((40, 50), 255, np.uint8)
    alpha[:, :10], alpha[:, 10], alpha[:, 11] = 0, 80, 160
    path = with_alpha(tmp_path / "a.tif", alpha)
    with pair(path, path) as opened:
        assert doubts(opened) == []
        np.testing.assert_array_equal(whole(opened).valid, alpha > 0)


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 255], True), ([0, 1], True), ([0], True), ([255], True), (range(256), False)]
)
def test_a_mask_has_one_value_beside_0(values: Any, expected: bool) -> None:
    assert is_mask(np.array(values, np.uint8)) == expected


def framed(kind: str, fill: float) -> Any:
    """Values from 200 on in the middle quarter of a frame, and one pixel among them like the frame."""
    image = np.full((3, 120, 120), fill, kind)
    image[:, 30:90, 30:90] = np.random.default_rng(0).integers(200, 3000, (3, 60, 60))
    image[:, 60, 60] = fill
    return image


@pytest.mark.parametrize(("kind", "fill"), [("uint16", 0), ("uint16", 65535), ("int16", -9999), ("float32", 0)])
def test_an_untagged_collar_has_no_say_in_the_range_and_is_warned_of(kind: str, fill: float, tmp_path: Path) -> None:
    image = framed(kind, fill)
    path = write_tif(tmp_path / "a.tif", image)
    tagged = write_tif(tmp_path / "tagged.tif", image, nodata=fill)
    with pair(path, tagged) as opened:
        (doubt,) = doubts(opened)
        assert doubt == (
            f"{path}: 75 % of the pixels are {fill}, from the border on, and no nodata value is set. They were left "
            f"out of the percentiles. Give --nodata {fill} if they show nothing."
        )
        before, after = opened.ranges
    # The pixel within is no part of the collar.
    assert before is not None and after is not None
    np.testing.assert_allclose(before, after, atol=60)


@pytest.mark.parametrize("warped", [False, True])
def test_a_value_that_is_named_has_no_data(warped: bool, tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", framed("uint16", 0))
    tagged = write_tif(tmp_path / "tagged.tif", framed("uint16", 0), nodata=0)
    pre = write_tif(tmp_path / "pre.tif", noise(120, 120), transform=moved(0.5 if warped else 0, 0))
    with pair(pre, path, nodata=(None, 0.0)) as named, pair(pre, tagged) as known:
        assert doubts(named) == []
        assert named.ranges == known.ranges
        one, other = whole(named), whole(known)
    np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_array_equal(one.post, other.post)
    assert one.valid.sum() == pytest.approx(60 * 60, abs=150)


def test_a_value_that_is_named_takes_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    image = noise(40, 50)
    image[:, :5], image[:, 5:9] = 0, 255
    path = write_tif(tmp_path / "a.tif", image, nodata=0)
    tile = whole(pair(path, path, nodata=(255.0,)))
    assert tile.valid[:5].all() and not tile.valid[5:9].any()
    with pytest.raises(RasterError, match=r"a\.tif: has values of uint8, --nodata is -9999\. Give a value that can be"):
        pair(path, path, nodata=(-9999.0,))


@pytest.mark.parametrize("fill", [0, 255])
def test_a_collar_of_8_bits_is_warned_of_and_changes_nothing(fill: int, tmp_path: Path) -> None:
    image = noise(100, 100, 3).clip(1, 254)
    image[:, :20] = fill
    path = write_tif(tmp_path / "a.tif", image)
    with pair(path, write_tif(tmp_path / "b.tif", noise(100, 100))) as opened:
        (doubt,) = doubts(opened)
        assert f"20 % of the pixels are {fill}, from the border on" in doubt and "percentiles" not in doubt
        np.testing.assert_array_equal(whole(opened).pre, image)


def test_dark_places_within_and_a_bright_half_are_no_collar() -> None:
    seen = np.ones((100, 100), bool)
    within = noise(100, 100)
    within[:, 20:60, 20:60] = 0
    assert find_collar(within, seen) is None
    cloud = np.random.default_rng(0).integers(200, 3000, (3, 100, 100), dtype=np.uint16)
    cloud[:, :, 50:] = 60_000
    assert find_collar(cloud, seen) is None
    assert find_collar(np.full((3, 9, 9), np.nan, np.float32), np.zeros((9, 9), bool)) is None


def test_a_collar_goes_on_behind_a_gap_between_tiles() -> None:
    values, seen = noise(100, 100), np.ones((100, 100), bool)
    seen[:, 40:60] = False
    values[:, :, :20] = values[:, :, 60:70] = 0
    found = find_collar(values, seen)
    assert found is not None and found.share == 0.3

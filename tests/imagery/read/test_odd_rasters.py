"""Rasters that real archives hold: masks, mosaics with gaps, overviews, turned ones, the antimeridian, cut files."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.shutil import copy

from imagery.errors import RasterError
from imagery.read.raster import warn_of_resolution
from tests.imagery.geotiff import ORIGIN, UTM, landscape, moved, noise, pair, whole, write_tif


def degrees_around(longitude: float, latitude: float, pixel: float, size: int) -> Affine:
    return Affine(pixel, 0, longitude - size / 2 * pixel, 0, -pixel, latitude + size / 2 * pixel)


FIJI = -17.0
SYSTEMS = {
    "UTM 1": ("EPSG:32701", None),
    "UTM 60": ("EPSG:32760", None),
    "degrees, east of 180": ("EPSG:4326", 180.0),
    "degrees, west of -180": ("EPSG:4326", -180.0),
    "other degrees": ("EPSG:4167", 180.0),
    "Web Mercator": ("EPSG:3857", 180.0),
    "Web Mercator in the west": ("EPSG:3857", -180.0),
}


def across(system: str, pixels: float, size: int) -> tuple[str, Affine]:
    """CRS and transform of a square raster whose middle is at 180 degrees; pixels: half metres."""
    crs, side = SYSTEMS[system]
    degree = 0.5 * pixels / 111_000
    if crs == "EPSG:3857":
        x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(0, FIJI)
        middle, pixel = (x + 20037508.342789244 * np.sign(side or 0), y), 0.5 * pixels
    elif side is None:
        middle, pixel = Transformer.from_crs(4326, crs, always_xy=True).transform(180, FIJI), 0.5 * pixels
    else:
        middle, pixel = (side, FIJI), degree
    return crs, Affine(pixel, 0, middle[0] - size / 2 * pixel, 0, -pixel, middle[1] + size / 2 * pixel)


@pytest.mark.parametrize("post", SYSTEMS)
@pytest.mark.parametrize("pre", SYSTEMS)
def test_a_scene_across_the_antimeridian_is_one_scene(pre: str, post: str, tmp_path: Path) -> None:
    files = []
    for name, system, size in (("pre", pre, 120), ("post", post, 200)):
        crs, transform = across(system, 1.0, size)
        image = landscape(crs, transform, size, size, ground="EPSG:32701")
        files.append(write_tif(tmp_path / f"{name}.tif", image, crs, transform))
    opened = pair(*files)
    tile = whole(opened)
    assert (opened.grid.width, opened.grid.height) == (120, 120)
    assert tile.valid.all()
    assert np.abs(tile.post.astype(int) - tile.pre).max() <= 3


def test_a_raster_that_lies_askew_is_turned_north_up(tmp_path: Path) -> None:
    turned = ORIGIN @ Affine.translation(100, 20) @ Affine.rotation(30)
    askew = write_tif(tmp_path / "askew.tif", landscape(UTM, turned, 200, 200), transform=turned)
    straight = write_tif(tmp_path / "straight.tif", landscape(UTM, ORIGIN, 300, 300))
    for files in ((askew, straight), (straight, askew)):
        opened = pair(*files)
        tile = whole(opened)
        assert opened.grid.transform.b == opened.grid.transform.d == 0
        expected = landscape(UTM, opened.grid.transform, opened.grid.height, opened.grid.width).astype(int)
        inside = tile.valid[1:-1, 1:-1] & tile.valid[:-2, 1:-1] & tile.valid[2:, 1:-1] & tile.valid[1:-1, :-2]
        for image in (tile.pre, tile.post):
            assert np.abs(image - expected)[:, 1:-1, 1:-1][:, inside].max() <= 6
        assert abs(tile.valid.sum() - 200 * 200) < 400


def test_an_internal_mask_counts_whether_the_image_is_warped_or_not(tmp_path: Path) -> None:
    image = noise(40, 50)
    seen = np.zeros((40, 50), bool)
    seen[10:30, 5:45] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = write_tif(tmp_path / "masked.tif", image)
        with rasterio.open(masked, "r+") as dataset:
            dataset.write_mask(seen)
    plain = write_tif(tmp_path / "plain.tif", image)
    np.testing.assert_array_equal(whole(pair(masked, plain)).valid, seen)
    shifted = write_tif(tmp_path / "shifted.tif", image, transform=moved(-0.5, 0))
    warped = whole(pair(shifted, masked)).valid  # half a pixel: valid where any of what is mixed there is
    np.testing.assert_array_equal(warped[:, 6:45], seen[:, 6:45])
    assert not warped[:, :4].any() and not warped[:, 47:].any()


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_nodata_is_not_mixed_into_what_lies_beside_it(kind: str, tmp_path: Path) -> None:
    image = np.full((3, 40, 50), 1000, kind)
    image[:, :, :10] = -9999 if kind != "uint16" else 0
    nodata = float(image[0, 0, 0])
    post = write_tif(tmp_path / "post.tif", image, transform=moved(0.3, 0.3), nodata=nodata)
    pre = write_tif(tmp_path / "pre.tif", np.full((3, 40, 50), 100, np.uint8))
    tile = whole(pair(pre, post, value_range=(0.0, 2000.0)))
    assert set(np.unique(tile.post[:, tile.valid])) == {128}
    assert not tile.valid[:, :10].any() and tile.valid[1:, 12:].all()


def test_pixels_that_are_not_numbers_have_no_data(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 3 * 40 * 50, dtype=np.float32).reshape(3, 40, 50)
    image[1, 5, 7] = np.nan
    path = write_tif(tmp_path / "pre.tif", image)
    tile = whole(pair(path, path))
    assert np.argwhere(~tile.valid).tolist() == [[5, 7]]
    assert tile.pre[0].min() == 0 and tile.pre[2].max() == 255  # floats from 0 to 1 fill the 8 bits


def test_the_range_is_that_of_the_scene_and_of_each_image(tmp_path: Path) -> None:
    """What lies outside of what both show has no say."""
    values = np.random.default_rng(0).integers(200, 3000, (3, 64, 96), dtype=np.uint16)
    bright = values.copy()
    bright[:, :, 48:] = 60_000
    pre = write_tif(tmp_path / "pre.tif", values)
    post = write_tif(tmp_path / "post.tif", bright)
    left = write_tif(tmp_path / "left.tif", noise(64, 48))
    with pair(left, post) as opened, pair(left, pre) as other:
        assert opened.ranges == other.ranges
        assert opened.ranges[0] is None  # 8 bits stay as they are
    with pair(pre, post) as opened:
        before, after = opened.ranges
        assert before is not None and after is not None and max(before[1]) < 3000 < min(after[1])


@pytest.mark.parametrize("kind", ["plain", "nodata", "alpha"])
def test_between_tiles_there_is_no_data_and_over_others_only_their_data(kind: str, tmp_path: Path) -> None:
    image = noise(40, 60, 1, bands=4 if kind == "alpha" else 3)
    hole = np.s_[:, :10, 30:35]  # of the later tile, where the earlier one has data
    if kind == "alpha":
        image[3] = 255
    first = write_tif(tmp_path / "a.tif", image[:, :, :35], nodata=0 if kind == "nodata" else None)
    later = image.copy()
    if kind != "plain":
        later[hole] = 0
    second = write_tif(
        tmp_path / "b.tif", later[:, :20, 30:], transform=moved(30, 0), nodata=0 if kind == "nodata" else None
    )
    tile = whole(pair([first, second], write_tif(tmp_path / "post.tif", noise(40, 60))))
    expected = np.ones((40, 60), bool)
    expected[20:, 35:] = False
    np.testing.assert_array_equal(tile.valid, expected)
    np.testing.assert_array_equal(tile.pre, image[:3] * expected)
    shifted = write_tif(tmp_path / "shifted.tif", noise(40, 60), transform=moved(0.5, 0))
    warped = whole(pair(shifted, [first, second])).valid
    assert warped[:19, :59].all() and not warped[21:, 36:].any()


def test_tiles_in_degrees_with_overviews_are_warped_as_one(tmp_path: Path) -> None:
    """Latitude comes first in EPSG:4326, and second in files."""
    transform = degrees_around(15.0, 36.14, 1.25e-6, 800)  # about 0.12 m
    image = landscape("EPSG:4326", transform, 800, 800)
    tiles = []
    for left in (0, 400):
        part = write_tif(
            tmp_path / f"{left}.tif", image[:, :, left : left + 400], "EPSG:4326", moved(left, 0, transform)
        )
        with rasterio.open(part, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.average)
        tiles.append(part)
    x, y = Transformer.from_crs(4326, UTM, always_xy=True).transform(15.0, 36.14)
    grid = Affine(0.5, 0, round(x) - 30, 0, -0.5, round(y) + 30)
    pre = write_tif(tmp_path / "pre.tif", landscape(UTM, grid, 120, 120), transform=grid)
    tile = whole(pair(pre, tiles))
    assert tile.valid.all()
    assert np.abs(tile.post.astype(int) - tile.pre).max() <= 3
    assert whole(pair(tiles, pre, resample_to=0.5)).valid[1:-1, 1:-1].all()  # pixels at the border lie half outside


def test_a_vrt_is_a_file_and_tells_the_same_as_its_tiles(tmp_path: Path) -> None:
    image = noise(60, 80)
    path = write_tif(tmp_path / "pre.tif", image)
    copy(path, tmp_path / "pre.vrt", driver="VRT")
    np.testing.assert_array_equal(whole(pair(tmp_path / "pre.vrt", path)).pre, image)
    with pair(tmp_path / "pre.vrt", path) as opened:
        assert list(opened.pre.known.files) == sorted([str(path), str(tmp_path / "pre.vrt")])


@pytest.mark.parametrize("relative", [True, False])
def test_a_vrt_names_the_file_that_it_misses(relative: bool, tmp_path: Path) -> None:
    path = write_tif(tmp_path / "tile.tif", noise(60, 80))
    vrt = tmp_path / "mosaic.vrt"
    copy(path, vrt, driver="VRT")
    assert 'relativeToVRT="1">tile.tif' in vrt.read_text()
    if not relative:
        vrt.write_text(vrt.read_text().replace('relativeToVRT="1">', f'relativeToVRT="0">{tmp_path}/'))
    whole(pair(vrt, vrt))
    path.rename(tmp_path / "moved.tif")
    said = rf"mosaic\.vrt: shows {tmp_path}/tile\.tif, which is missing\. Bring it back, or make the VRT anew"
    for pre, post in ((vrt, tmp_path / "moved.tif"), (tmp_path / "moved.tif", vrt)):
        with pytest.raises(RasterError, match=said):
            pair(pre, post)
    path.write_bytes(b"no raster")
    with pytest.raises(RasterError, match=r"mosaic\.vrt.*tile\.tif"):
        whole(pair(vrt, tmp_path / "moved.tif"))


def test_an_overview_is_read_where_the_grid_is_as_coarse(tmp_path: Path) -> None:
    image = landscape(UTM, ORIGIN, 256, 256)
    path = write_tif(tmp_path / "fine.tif", image)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average)
    marked = write_tif(tmp_path / "marked.tif", image)
    with rasterio.open(marked, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average)
        dataset.write(np.zeros_like(image))  # the overviews keep what was there
    for gsd, sees in ((0.9, False), (1.0, True), (1.9, True), (5.0, True)):
        tile = whole(pair(path, marked, resample_to=gsd))
        assert bool(tile.post.any()) == sees
        if sees and gsd < 2:
            assert np.abs(tile.post.astype(int) - tile.pre).max() <= 1


def test_coarser_pixels_are_means_of_finer_ones(tmp_path: Path) -> None:
    """Not every second one, which would alias."""
    image = np.zeros((3, 80, 80), np.uint8)
    image[:, ::2] = 200
    path = write_tif(tmp_path / "stripes.tif", image)
    tile = whole(pair(path, path, resample_to=1.0))
    assert np.abs(tile.pre[:, 4:-4, 4:-4].astype(int) - 100).max() <= 25


@pytest.mark.parametrize("warped", [False, True])
@pytest.mark.parametrize("tiles", [False, True])
def test_a_cut_file_is_one_line_that_names_it(warped: bool, tiles: bool, tmp_path: Path) -> None:
    good = write_tif(tmp_path / "good.tif", noise(200, 200), transform=moved(0.5, 0) if warped else ORIGIN)
    bad = write_tif(tmp_path / "bad.tif", noise(200, 200))
    bad.write_bytes(bad.read_bytes()[:60_000])
    with pytest.raises(RasterError, match=r"bad\.tif.*: breaks off or is damaged .*Fetch the file again") as caught:
        whole(pair(good, [bad, write_tif(tmp_path / "c.tif", noise(9, 9))] if tiles else bad))
    assert "\n" not in str(caught.value)


def test_a_system_without_a_place_on_the_earth_is_one_line(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "local.tif", noise(20, 20), crs='LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(RasterError, match=r"local\.tif: its coordinate reference system has no place on the earth"):
        pair(path, path)


def test_images_apart_are_told_with_both_places(tmp_path: Path) -> None:
    pre = write_tif(tmp_path / "pre.tif", noise(20, 20), "EPSG:4326", degrees_around(15.0, 36.0, 5e-6, 20))
    post = write_tif(tmp_path / "post.tif", noise(20, 20), "EPSG:4326", degrees_around(-90.0, 30.0, 5e-6, 20))
    with pytest.raises(RasterError, match=r"covers -90\.00005 29\.99995 -89\.99995 30\.00005 degrees.*other 14\.99995"):
        pair(pre, post)
    far = write_tif(tmp_path / "far.tif", noise(20, 20))
    with pytest.raises(RasterError, match="shows nothing of what"):
        pair(far, post)


def test_a_resolution_unknown_to_the_model_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = write_tif(tmp_path / "fine.tif", noise(60, 60))
    coarse = write_tif(tmp_path / "coarse.tif", noise(20, 20), transform=ORIGIN @ Affine.scale(3))
    lines = {}
    for name, opened in {
        "known": pair(fine, fine),
        "coarse": pair(coarse, fine),
        "resampled": pair(coarse, fine, resample_to=0.5),
    }.items():
        with opened:
            warn_of_resolution(opened)
        lines[name] = capsys.readouterr().err.splitlines()
    assert lines["known"] == []
    assert [line for line in lines["coarse"] if "coarse.tif: is predicted at 1.50 m" in line] == lines["coarse"] != []
    assert "--resample-to 0.5" in lines["coarse"][0]
    assert len(lines["resampled"]) == 1 and "coarse.tif: has pixels of 1.50 m" in lines["resampled"][0]


def test_an_image_of_colours_and_alpha_alone_needs_three_colours(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "grey.tif", noise(20, 20, bands=3))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    with pytest.raises(RasterError, match="expected red, green and blue"):
        pair(path, path)

"""Scenes in other formats than GeoTIFF, and files that are none: told apart in one line."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.shutil import copy

from imagery.errors import RasterError
from tests.imagery.geotiff import UTM, landscape, noise, pair, whole, write_tif

CASES = Path(__file__).parents[1] / "cases"


def test_a_jpeg_2000_is_a_scene() -> None:
    path = CASES / "scene.jp2"
    opened = pair(path, path)
    tile = whole(opened)
    assert (opened.grid.crs.to_epsg(), opened.grid.width, opened.grid.height) == (32637, 192, 192)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(tile.pre, dataset.read())


@pytest.mark.parametrize(("driver", "ending"), [("NITF", "ntf"), ("HFA", "img"), ("ENVI", "dat"), ("PCIDSK", "pix")])
def test_what_gdal_reads_is_a_scene(driver: str, ending: str, tmp_path: Path) -> None:
    image = noise(40, 50)
    path = write_tif(tmp_path / "a.tif", image, crs="EPSG:32633")
    copy(path, tmp_path / f"a.{ending}", driver=driver, **({"ICORDS": "N"} if driver == "NITF" else {}))
    made = tmp_path / f"a.{ending}"
    np.testing.assert_array_equal(whole(pair(made, made)).pre, image)


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("a.ecw", b"ecw" * 99, "Its format is not supported. Convert it to a GeoTIFF with a program that reads it"),
        ("a.sid", b"msid" * 99, "Its format is not supported"),
        ("a.jp2", b"no image" * 99, "The file is damaged, or not what its ending says. Fetch it again"),
        ("a.ntf", b"", "The file is damaged, or not what its ending says"),
        ("a.tif", b"II*\0", "The file is damaged, or not what its ending says"),
        ("gone.jp2", None, "Correct the path"),
    ],
)
def test_damaged_files_are_told_apart_from_unknown_formats(
    name: str, content: bytes | None, finding: str, tmp_path: Path
) -> None:
    good = write_tif(tmp_path / "good.tif", noise(20, 30))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RasterError) as caught:
        pair(good, tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: is no raster that can be read (")
    assert finding in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_image_that_only_has_control_points_is_to_be_warped_first(tmp_path: Path) -> None:
    path = tmp_path / "raw.tif"
    corners = [(0, 0), (0, 30), (20, 0), (20, 30)]
    points = [GroundControlPoint(row, column, 15 + column * 5e-6, 36 - row * 5e-6) for row, column in corners]
    write_tif(path, noise(20, 30), crs=None, transform=Affine.identity())
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    with pytest.raises(RasterError, match=r"raw\.tif: is not laid on the ground yet.* Warp it with gdalwarp"):
        pair(path, path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_of_several_rasters_is_to_be_taken_apart(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", noise(20, 30))
    several = tmp_path / "several.gpkg"
    for table in ("one", "two"):
        options = {"RASTER_TABLE": table, "APPEND_SUBDATASET": "YES" if several.exists() else "NO"}
        copy(tmp_path / "a.tif", several, driver="GPKG", **options)
    with pytest.raises(RasterError, match=r"several\.gpkg: holds 2 rasters, expected one.* rio convert 'GPKG:"):
        pair(several, several)


def test_overviews_serve_where_no_data_is_named_otherwise(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "fine.tif", landscape(UTM, Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000), 256, 256))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
        dataset.write(np.zeros((3, 256, 256), np.uint8))  # the overviews keep what was there
    tile = whole(pair(path, path, resample_to=1.0, nodata=(255.0,)))
    assert tile.pre.any()

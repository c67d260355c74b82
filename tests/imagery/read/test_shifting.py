"""Images that lie between each other's pixels: moved as GDAL's cubic warp moves them, wherever they have data."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.windows import Window

from imagery.errors import RasterError
from imagery.read import image
from imagery.read.grid import Grid
from imagery.read.image import Image
from imagery.read.shifting import AFTER, BEFORE, TYPES, shifted
from tests.imagery.geotiff import ORIGIN, UTM, moved, noise, write_tif

FEW = 37, 41  # rows and columns
BY = [(0.5, 0.25), (0.3, 0.8), (0.0, 0.5), (0.75, 0.0), (-3.3, 4.6), (-0.001, 0.5)]


def stacked(path: Path, bands: list[tuple[str, Path, int]]) -> Path:
    """A VRT of bands: type, file and band in it."""
    size, place = f'rasterXSize="{FEW[1]}" rasterYSize="{FEW[0]}"', ", ".join(map(str, ORIGIN.to_gdal()))
    parts = [
        f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename>{file}</SourceFilename>'
        f"<SourceBand>{own}</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (kind, file, own) in enumerate(bands, 1)
    ]
    path.write_text(
        f"<VRTDataset {size}><SRS>{UTM}</SRS><GeoTransform>{place}</GeoTransform>{''.join(parts)}</VRTDataset>"
    )
    return path


def read(path: Path, by: tuple[float, float], window: Window, bands: Any = None, *, warped: bool = False) -> Any:
    """Colours and where there are some, of a window of a grid that lies `by` pixels beside. warped: by GDAL."""
    with rasterio.Env(), Image((path,), bands) as opened, patch.object(image, "TYPES", () if warped else TYPES):
        opened.place(Grid(opened.grid.crs, moved(*by), opened.grid.width, opened.grid.height))
        limits = None if opened.has_8_bits else (3 * (0.0,), 3 * (4000.0,))
        return opened.read(window, limits)


@pytest.mark.parametrize("by", BY)
def test_pixels_are_those_of_gdals_cubic_warp_up_to_the_edges(by: tuple[float, float], tmp_path: Path) -> None:
    path, window = write_tif(tmp_path / "noise.tif", noise(*FEW)), Window(0, 0, FEW[1], FEW[0])
    values, valid = read(path, by, window)
    expected, there = read(path, by, window, warped=True)
    np.testing.assert_array_equal(valid, there)
    inner = np.s_[:, 7:-7, 7:-7]  # at an edge GDAL takes fewer pixels, and others than we do
    assert np.abs(values.astype(int) - expected)[inner].max() <= 1  # halves are rounded to either side
    assert 0 < valid.sum() < valid.size or max(map(abs, by)) < 1


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_values_of_more_than_8_bits_are_moved_before_they_become_8(kind: Any, tmp_path: Path) -> None:
    many = (16.0 * noise(*FEW)).astype(kind)
    path, window = write_tif(tmp_path / "many.tif", many), Window(5, 5, 20, 20)
    values, valid = read(path, (0.4, 0.7), window)
    expected, there = read(path, (0.4, 0.7), window, warped=True)
    assert valid.all() and there.all()
    assert np.abs(values.astype(int) - expected).max() <= 1


def test_the_kind_of_value_is_that_of_the_colours_and_not_of_another_band(tmp_path: Path) -> None:
    many = write_tif(tmp_path / "many.tif", (16 * noise(*FEW).astype(np.uint16)))
    mask = write_tif(tmp_path / "mask.tif", np.ones((1, *FEW), np.uint8))
    bands = [("Byte", mask, 1), *(("UInt16", many, number) for number in (1, 2, 3))]
    path, window = stacked(tmp_path / "first.vrt", bands), Window(5, 5, 20, 20)
    values, _ = read(path, (0.4, 0.7), window, (2, 3, 4))
    expected, _ = read(path, (0.4, 0.7), window, (2, 3, 4), warped=True)
    assert np.abs(values.astype(int) - expected).max() <= 1 and values.std() > 20
    with pytest.raises(RasterError, match=r"first.vrt: has colours of uint8, uint16, uint16, expected one kind"):
        read(path, (0.4, 0.7), window, (1, 2, 3))


def test_where_data_is_missing_the_nearest_pixel_decides_and_those_beside_are_left_out(tmp_path: Path) -> None:
    flat = np.full((3, *FEW), 100, np.uint8)
    flat[:, 10:20, 10:20] = 0
    path = write_tif(tmp_path / "holes.tif", flat, nodata=0)
    for by in ((0.3, 0.3), (0.5, 0.25), (0.8, 0.6)):
        values, valid = read(path, by, Window(0, 0, 30, 30))
        across, down = (int(part >= 0.5) for part in by)
        expected = np.ones((30, 30), bool)
        expected[10 - down : 20 - down, 10 - across : 20 - across] = False
        np.testing.assert_array_equal(valid, expected)
        np.testing.assert_array_equal(values, np.where(valid, 100, 0)[None].repeat(3, axis=0))


def test_a_pixel_is_the_same_whatever_window_it_is_read_in(tmp_path: Path) -> None:
    holes = noise(*FEW)
    holes[:, 15:18, 11:30] = 0
    path = write_tif(tmp_path / "noise.tif", holes, nodata=0)
    whole = read(path, (0.4, -1.3), Window(0, 0, FEW[1], FEW[0]))
    for window in (Window(3, 1, 8, 30), Window(9, 13, 25, 7), Window(30, 20, 11, 17)):
        rows, columns = window.toslices()
        values, valid = read(path, (0.4, -1.3), window)
        np.testing.assert_array_equal(values, whole[0][:, rows, columns])
        np.testing.assert_array_equal(valid, whole[1][rows, columns])


def test_a_window_beyond_the_file_has_no_data(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "small.tif", noise(8, 8))
    for by in ((100.5, 0.5), (0.5, -100.5)):
        values, valid = read(path, by, Window(0, 0, 8, 8))
        assert not valid.any()
        assert not values.any()


def test_a_slope_stays_a_slope() -> None:
    rows, columns = np.mgrid[: 10 + BEFORE + AFTER, : 12 + BEFORE + AFTER].astype(np.float32)
    slope: npt.NDArray[np.float32] = (2 * columns + 3 * rows)[None]
    valid = np.ones(slope.shape[1:], bool)
    values, there = shifted(slope, valid, (0.25, 0.75))
    assert there.all()
    np.testing.assert_allclose(values, slope[:, BEFORE : BEFORE + 10, BEFORE : BEFORE + 12] + 2.75, rtol=1e-6)
    valid[BEFORE + 4, BEFORE + 4] = False  # the three others of its four are weighted by how near they are
    values, there = shifted(slope, valid, (0.25, 0.75))
    assert not there[3, 4]
    assert set(zip(*np.nonzero(~there), strict=True)) == {(3, 4)}
    at = BEFORE + 4, BEFORE + 3
    corners = {(0, 0): 0.75 * 0.25, (1, 0): 0.75 * 0.75, (1, 1): 0.25 * 0.75}  # without (0, 1), the missing one
    total = sum(share * float(slope[0, at[0] + down, at[1] + across]) for (down, across), share in corners.items())
    np.testing.assert_allclose(values[0, 4, 3], total / sum(corners.values()), rtol=1e-6)


def test_grids_that_differ_by_more_are_warped(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "noise.tif", noise(*FEW))
    with rasterio.Env(), Image((path,)) as opened, patch.object(image, "shifted") as used:
        for transform in (ORIGIN @ ORIGIN.scale(1.01), ORIGIN @ ORIGIN.rotation(1), ORIGIN @ ORIGIN.scale(1, -1)):
            opened.place(Grid(opened.grid.crs, transform, 20, 20))
            opened.read(Window(0, 0, 20, 20), None)
        used.assert_not_called()

"""Which bands are taken for red, green and blue, and what of it is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from imagery.errors import RasterError
from imagery.read.bands import colours_of_names
from imagery.read.mosaic import MosaicError
from imagery.read.raster import tell_how_read
from tests.imagery.geotiff import moved, noise, pair, whole, write_tif

R, G, B, ALPHA, GREY, OTHER = (
    ColorInterp[name] for name in ("red", "green", "blue", "alpha", "gray", "undefined")
)  # fmt: skip


def image(path: Path, kinds: Any = None, names: Any = None, lengths: Any = None, kind: str = "uint16") -> Path:
    """A file whose bands hold 100, 200, 300 ..., as its bands are numbered."""
    count = len(kinds or names or lengths)
    values = np.stack([np.full((8, 9), 10 * number, kind) for number in range(1, count + 1)])
    values[:, 0, 0] = 1  # no band has but one value
    write_tif(path, values)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = kinds or [GREY, *[OTHER] * (count - 1)]
        dataset.descriptions = names or [None] * count
        for number, length in enumerate(lengths or (), start=1):
            dataset.update_tags(number, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(length))
    return path


def taken(path: Path, **settings: Any) -> tuple[int, ...]:
    with pair(path, path, **settings) as opened:
        return opened.pre.bands.numbers


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["blue", "green", "red", "nir"], (3, 2, 1)),  # Planet, four bands
        (["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"], (6, 4, 2)),  # and eight
        (["Coastal", "Blue", "Green", "Yellow", "Red", "Red Edge", "NIR1", "NIR2"], (5, 3, 2)),  # WorldView
        (["BAND_C", "BAND_B", "BAND_G", "BAND_Y", "BAND_R", "BAND_RE", "BAND_N", "BAND_N2"], (5, 3, 2)),
        (["B2", "B3", "B4", "B8"], (3, 2, 1)),  # Sentinel-2
        (["B8", "B04", "b03", "B02"], (2, 3, 4)),
        (
            ["B4, central wavelength 665 nm", "B3, central wavelength 560 nm", "B2, central wavelength 490 nm"],
            (1, 2, 3),
        ),
        (["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"], (4, 3, 2)),
        (["Band 1: Blue (450-510 nm)", "Band 2: Green", "Band 3: RED", "Near Infrared"], (3, 2, 1)),
        (["NIR", "R", "G", "B"], (2, 3, 4)),
        (["B1", "B2", "B3", "B4"], (1, 2, 3)),  # a count, of WorldView's bands perhaps: nothing is known
        (["infra red", "red edge", "deep blue", "green"], (1, 2, 3)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_bands_are_taken_by_their_names(names: list[str], expected: tuple[int, ...], tmp_path: Path) -> None:
    assert taken(image(tmp_path / "a.tif", names=names)) == expected


@pytest.mark.parametrize(
    ("given", "expected", "by"),
    [
        ({"kinds": [B, G, R, OTHER]}, (3, 2, 1), "by their colour interpretation"),
        # Set by a person or a program, and not by GDAL: it goes first.
        ({"kinds": [B, G, R], "names": ["red", "green", "blue"]}, (3, 2, 1), "by their colour interpretation"),
        ({"kinds": [R, G, B, OTHER], "names": ["blue", "green", "red", "nir"]}, (3, 2, 1), "by their names"),
        ({"lengths": [0.48, 0.545, 0.605, 0.66, 0.725]}, (4, 2, 1), "by their wavelengths"),
        ({"lengths": [0.44, 0.49, 0.531, 0.565, 0.61, 0.665, 0.705]}, (6, 4, 2), "by their wavelengths"),
        ({"lengths": [0.66, 0.84, 1.6]}, (1, 2, 3), "the first three"),
        ({"kinds": [ALPHA, GREY, OTHER, OTHER]}, (2, 3, 4), "the first three"),
    ],
)  # fmt: skip
def test_colour_interpretation_goes_before_names_and_these_before_wavelengths(
    given: dict[str, Any], expected: tuple[int, ...], by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(tmp_path / "a.tif", **given)
    with pair(path, path) as opened:
        assert opened.pre.bands.numbers == expected
        tell_how_read(opened)
        np.testing.assert_array_equal(
            opened.pre._file.read(opened.pre._bands)[:, 1, 1], [10 * number for number in expected]
        )
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{path}: bands {', '.join(map(str, expected))} as red, green, blue: {by}")
    assert len(said) == 2


def test_a_colour_interpretation_that_the_names_belie_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GDAL tags any three or four bands of 8 bits red, green, blue and alpha."""
    path = image(tmp_path / "a.tif", kinds=[R, G, B], names=["blue", "green", "red"], kind="uint8")
    with pair(path, path) as opened:
        tell_how_read(opened)
    (line, _) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {path}: bands 3, 2, 1 as red, green, blue: by their names (red, green, blue), but its colour "
        "interpretation says 1, 2, 3 instead. --bands chooses others."
    )


def test_four_bands_that_the_file_does_not_name_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(tmp_path / "a.tif", kinds=[GREY, OTHER, OTHER, OTHER])
    three = image(tmp_path / "b.tif", kinds=[GREY, OTHER, OTHER])
    with pair(path, three) as opened:
        tell_how_read(opened)
    said = capsys.readouterr()
    doubt = "bands 1, 2, 3 as red, green, blue: the first three, the file does not say which they are"
    assert [line.startswith(f"warning: {path}: {doubt}") for line in said.err.splitlines()] == [True]
    assert said.out.count(doubt) == 2


def test_bands_that_are_asked_for_are_taken_of_each_image(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", names=["blue", "green", "red", "nir"])
    assert taken(path, bands=((4, 3, 2),)) == (4, 3, 2)
    with pair(path, path, bands=((4, 3, 2), None)) as opened:
        assert (opened.pre.bands.numbers, opened.post.bands.numbers) == ((4, 3, 2), (3, 2, 1))
    with pytest.raises(RasterError, match=r"a\.tif: has 4 bands, --bands asks for band 5"):
        taken(path, bands=((1, 2, 5),))


def test_tiles_whose_bands_lie_otherwise_are_refused(tmp_path: Path) -> None:
    first = image(tmp_path / "a.tif", names=["blue", "green", "red", "nir"])
    second = image(tmp_path / "b.tif", names=["red", "green", "blue", "nir"])
    with pytest.raises(MosaicError, match=r"b\.tif: has red, green and blue in bands 1, 2, 3, .*a\.tif 3, 2, 1"):
        pair([first, second], first)


def test_nobody_takes_red_for_what_only_contains_the_word() -> None:
    assert colours_of_names(["rededge", "redness", "infrared", "", "r e d"]) == [None] * 5


def test_names_survive_a_mosaic(tmp_path: Path) -> None:
    """Whose description of the tiles, by which GDAL reads them, has no names."""
    names = ["blue", "green", "red", "nir"]
    tiles = []
    for left in (0, 9):
        path = write_tif(tmp_path / f"{left}.tif", noise(8, 9, bands=4), transform=moved(left, 0))
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = names
            dataset.colorinterp = [GREY, OTHER, OTHER, OTHER]
        tiles.append(path)
    opened = pair(tiles, tiles[0])
    np.testing.assert_array_equal(whole(opened).pre, noise(8, 9, bands=4)[[2, 1, 0]])

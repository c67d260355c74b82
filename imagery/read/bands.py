"""Which bands of an image are its red, green and blue, by what its file says of them."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rasterio.enums import ColorInterp

COLOURS = ("red", "green", "blue")
# Names that are no words: of Maxar's metadata (BAND_R), and of Sentinel-2 and Landsat 8 and 9.
_LETTERS = dict(zip("rgb", COLOURS, strict=True))
_NUMBERS = {4: "red", 3: "green", 2: "blue"}
_PLAIN = 8  # bands, up to which B1, B2, B3 ... may merely count them
_CODE = re.compile(r"\bb(?:and)?[ _-]*(\d+)(a?)\b")
# Words beside a colour that leave it that colour; "red edge" and "coastal blue" have others.
_FILLERS = {"band", "nm", "um", "nanometers", "micrometers", "central", "wavelength", "reflectance", "surface", "toa"}
# Micrometres: from, to, and what is taken where several bands lie between, the middle of Sentinel-2's band.
_WAVELENGTHS = {"red": (0.62, 0.70, 0.665), "green": (0.51, 0.60, 0.56), "blue": (0.44, 0.51, 0.49)}
_OF_GDAL = (1, 2, 3)  # what GDAL calls red, green and blue in files of 3 or 4 bands of 8 bits, whatever they are
Numbers = tuple[int, ...]


class Bands(NamedTuple):
    """numbers: the bands taken as red, green and blue, counted from 1; fewer where the file has fewer. by: how they
    were found, as part of a sentence. is_told: whether the file, or the user, says so. doubt: what speaks against it.
    """

    numbers: Numbers
    by: str
    is_told: bool = True
    doubt: str = ""

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.numbers))} as red, green, blue: {self.by}"


def choose_bands(file: Any, given: Numbers | None = None) -> Bands:
    """The bands of an open raster that are red, green and blue.

    By colour interpretation, else by the names of the bands, else by wavelength, else the first three that are not
    alpha. Names and wavelengths go before a colour interpretation that may be GDAL's own. given: what the user says.
    """
    if given is not None:
        return Bands(given, "as --bands says")
    kinds = list(file.colorinterp)
    interpreted = _find([kind.name for kind in kinds])
    names = [text or "" for text in file.descriptions]
    described = _find(colours_of_names(names))
    told = {
        f"by their names ({', '.join(names[number - 1] for number in described)})": described,
        "by their wavelengths": _by_wavelength(file),
    }
    for by, numbers in told.items():
        if numbers and interpreted in ((), _OF_GDAL):
            doubt = f"its colour interpretation says {_text(interpreted)} instead" if interpreted else ""
            return Bands(numbers, by, doubt=doubt if interpreted != numbers else "")
    if interpreted:
        return Bands(interpreted, "by their colour interpretation")
    first = [number for number, kind in enumerate(kinds, start=1) if kind != ColorInterp.alpha][:3]
    return Bands(
        tuple(first), "the first three, the file does not say which they are (--bands chooses others)", is_told=False
    )


def colours_of_names(names: Sequence[str]) -> list[str | None]:
    """red, green or blue for each name that means one, such as "Red", "BAND_G", "B2", "B04 (665 nm)".

    Names that may merely count the bands, B1 to B8 in their order, mean none.
    """
    codes = [_CODE.search(name.lower().replace("_", " ")) for name in names]
    counts = len(names) <= _PLAIN and all(
        code is not None and code[1] == str(number) and not code[2] for number, code in enumerate(codes, start=1)
    )
    found = []
    for name, code in zip(names, codes, strict=True):
        text = _CODE.sub(" ", name.lower().replace("_", " "))
        words = [word for word in re.findall(r"[^\W\d]+", text) if word not in _FILLERS]
        if not words and code is not None and not code[2] and not counts:
            found.append(_NUMBERS.get(int(code[1])))
        elif len(words) == 1:
            found.append(words[0] if words[0] in COLOURS else _LETTERS.get(words[0]))
        else:
            found.append(None)
    return found


def _find(colours: Sequence[str | None]) -> Numbers:
    """Numbers of the first band of each colour; empty where one is missing."""
    if not all(colour in colours for colour in COLOURS):
        return ()
    return tuple(colours.index(colour) + 1 for colour in COLOURS)


def _by_wavelength(file: Any) -> Numbers:
    """Numbers of the bands that lie best in red, green and blue, where the driver tells their wavelengths; else empty.

    Of the domain IMAGERY, https://gdal.org/en/stable/user/raster_data_model.html
    """
    lengths = {}
    for number in file.indexes:
        try:
            lengths[number] = float(file.tags(number, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"])
        except (KeyError, ValueError):
            continue
    found = []
    for low, high, middle in _WAVELENGTHS.values():
        fitting = [number for number, length in lengths.items() if low <= length <= high]
        if not fitting:
            return ()
        found.append(min(fitting, key=lambda number: abs(lengths[number] - middle)))
    return tuple(found)


def _text(numbers: Numbers) -> str:
    return ", ".join(map(str, numbers))

"""How imagery is read and taken apart, as options of a command line; they are set only where they are given."""

import argparse
import re
from dataclasses import fields
from typing import Any, TypeVar

from imagery.settings import ALIGN, ALIGNMENTS, FORMATS, PERCENTILES, SettingsError, Windows

AUTO = "auto"  # what the file says
Settings = TypeVar("Settings")


def add_reading(group: Any) -> list[argparse.Action]:
    """Adds the options to a group whose argument_default is SUPPRESS."""
    two: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    more = "values that become black and white, in images of more than 8 bits"
    each = f"two are pre's and post's, {AUTO}: as the file says"
    low, high = PERCENTILES
    shift = f"correct the shift of post: of the whole image, or also from place to place ({ALIGN})"
    return [
        group.add_argument("--resample-to", type=float, metavar="GSD", help="metres of a pixel to predict at"),
        group.add_argument("--range", dest="value_range", help=f"{more}; else --percentiles", **two),
        group.add_argument("--percentiles", help=f"of each band, without --range ({low:g} {high:g})", **two),
        group.add_argument(
            "--bands", nargs="+", type=_bands, metavar="R,G,B", help=f"numbers of these bands, such as 3,2,1; {each}"
        ),
        group.add_argument(
            "--nodata", nargs="+", type=_value, metavar="V", help=f"value of pixels without data; {each}"
        ),
        group.add_argument("--align", choices=ALIGNMENTS, help=shift),
        group.add_argument("--tile", type=int, help=f"pixels of a window ({Windows.tile})"),
        group.add_argument("--overlap", type=int, help=f"pixels that windows share ({Windows.overlap})"),
        group.add_argument(
            "--no-features",
            dest="features",
            action="store_false",
            help="do not keep, for each building, what the network sees of it (features.parquet)",
        ),
    ]


def add_formats(group: Any) -> argparse.Action:
    """Adds the option to a group whose argument_default is SUPPRESS."""
    action: argparse.Action = group.add_argument(
        "--formats",
        nargs="+",
        choices=FORMATS,
        help="also write the map as these (pmtiles: buildings for web maps; stac: a STAC item; tiles: the images, XYZ)",
    )
    return action


def option_of(name: str) -> str:
    """The option that sets this name."""
    return {"value_range": "--range", "features": "--no-features"}.get(name, f"--{name.replace('_', '-')}")


def refuse_two(given: dict[str, Any], *pairs: tuple[str, str]) -> None:
    """Raises SettingsError where of a pair of names both are given, of which the first is then not used."""
    for unused, by in pairs:
        if unused in given and by in given:
            raise SettingsError(f"{option_of(unused)}: is not used with {option_of(by)}. Give one of the two.")


def taken(kind: type[Settings], given: dict[str, Any]) -> Settings:
    """The settings of this kind that are given, which are taken out; raises SettingsError."""
    names = [field.name for field in fields(kind) if field.name in given]  # type: ignore[arg-type]
    values = {name: given.pop(name) for name in names}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _bands(text: str) -> tuple[int, ...] | None:
    if text == AUTO:
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3}){2}", text):
        raise argparse.ArgumentTypeError(f"found {text}, expected the numbers of three bands, such as 3,2,1, or {AUTO}")
    return tuple(map(int, text.split(",")))


def _value(text: str) -> float | None:
    try:
        return None if text == AUTO else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number, or {AUTO}") from None

"""How QGIS draws the buildings: the paper's colours, and an outline for each grade that needs no colour to be told."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from base.grades import LEGEND
from imagery.find.votes import DAMAGE, NOT_VISIBLE
from imagery.read.vectors import LAYER


class _Look(NamedTuple):
    """colour: of the area, None for none; line, width: of the outline, width in millimetres."""

    value: str
    label: str
    colour: tuple[int, int, int] | None
    line: str
    width: float


# The worse the damage, the heavier the outline; dots and dashes tell the grades apart on a grey print, too.
_LINES = (("solid", 0.2), ("dot", 0.4), ("dash", 0.6), ("solid", 0.9))
_LOOKS = (
    *(
        _Look(damage, LEGEND[grade][0], LEGEND[grade][1], *line)
        for grade, (damage, line) in enumerate(zip(DAMAGE, _LINES, strict=True), start=1)
    ),
    _Look(NOT_VISIBLE, "not visible", None, "dash dot", 0.2),
)
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
# As QGIS makes it; it looks for a row of the layer with useAsDefault when it opens a GeoPackage.
_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT, f_table_schema TEXT, f_table_name TEXT,
    f_geometry_column TEXT, styleName TEXT, styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
    owner TEXT, ui TEXT, update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 'layer_styles');
"""


def qgis_style(column: str) -> str:
    """A style (QML) that draws polygons by the damage in this column."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0", enableorderby="0", forceraster="0"
    )
    categories, symbols = (ElementTree.SubElement(renderer, name) for name in ("categories", "symbols"))
    for number, look in enumerate(_LOOKS):
        ElementTree.SubElement(
            categories, "category", value=look.value, label=look.label, symbol=str(number), render="true"
        )
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1")
        layer = ElementTree.SubElement(
            symbol, "layer", {"class": "SimpleFill", "pass": "0", "locked": "0", "enabled": "1"}
        )
        red, green, blue = look.colour or (0, 0, 0)
        for key, value in (
            ("color", f"{red},{green},{blue},255"),
            ("style", "solid" if look.colour else "no"),
            ("outline_color", "20,20,20,255"),
            ("outline_style", look.line),
            ("outline_width", str(look.width)),
            ("outline_width_unit", "MM"),
            ("joinstyle", "miter"),
        ):
            ElementTree.SubElement(layer, "prop", k=key, v=value)
    ElementTree.indent(root)
    return _DOCTYPE + ElementTree.tostring(root, encoding="unicode") + "\n"


def add_style(geopackage: Path, style: str) -> None:
    """Makes the style the default of the layer `buildings` in a GeoPackage."""
    with closing(sqlite3.connect(geopackage)) as database, database:
        (geometry,) = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (LAYER,)
        ).fetchone()
        database.executescript(_STYLES)
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, useAsDefault, description, owner) VALUES ('', '', ?, ?, 'damage', ?, 1, 'damage by grade', '')",
            (LAYER, geometry, style),
        )

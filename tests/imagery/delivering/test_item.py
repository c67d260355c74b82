"""The STAC item of a map: it keeps the rules of STAC, and tells where the map lies and what its files are."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from imagery.delivering.delivered import Delivered, DeliveryError, read_delivered
from imagery.delivering.item import footprint, make_item
from imagery.give.outputs import FILES
from imagery.read.grid import Grid
from tests.imagery.delivering.stac_rules import broken_rules
from tests.imagery.geotiff import ORIGIN
from tests.imagery.shards.making import make_event, on_one_machine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of one machine."""
    folder = tmp_path_factory.mktemp("made")
    on_one_machine(make_event(folder), folder / "map", align="off")
    return folder / "map"


@pytest.fixture(scope="module")
def item(made: Path) -> dict[str, Any]:
    return make_item(made, "palu", read_delivered(made), "2018-10-01T12:00:00Z")


def test_the_item_keeps_the_rules_of_stac(item: dict[str, Any]) -> None:
    assert broken_rules(item) == []
    assert (item["id"], item["properties"]["datetime"]) == ("palu", "2018-10-01T12:00:00Z")
    assert item["properties"]["proj:code"] == "EPSG:32633"
    assert item["properties"]["proj:shape"] == [160, 224]
    assert item["properties"]["gsd"] == pytest.approx(0.5, rel=1e-3)  # on the ellipsoid
    assert item["properties"]["proj:transform"] == list(ORIGIN)[:6]


def test_each_file_of_the_map_is_an_asset_with_its_checksum(item: dict[str, Any], made: Path) -> None:
    assets = {asset["href"].removeprefix("./"): asset for asset in item["assets"].values()}
    assert set(assets) == set(FILES)
    for name, asset in assets.items():
        content = (made / name).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert item["assets"]["damage"]["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"


def test_a_time_that_nobody_told_is_said_to_be_that_of_the_delivery(made: Path) -> None:
    properties = make_item(made, "palu", read_delivered(made), None)["properties"]
    assert properties["datetime"] == properties["created"]
    assert properties["description"].endswith("The datetime is that at which the map was delivered.")


def test_the_footprint_is_where_the_corners_are() -> None:
    grid = Grid(CRS.from_epsg(32633), ORIGIN, 4000, 3000)
    geometry, bbox = footprint(grid)
    to = Transformer.from_crs(32633, 4326, always_xy=True)
    corners = [to.transform(500_000 + x, 4_000_000 - y) for x in (0, 2000) for y in (0, 1500)]
    shape: Any = shapely.geometry.shape(geometry)
    for corner in corners:
        assert shape.exterior.distance(shapely.Point(corner)) < 1e-6
    assert shape.area == pytest.approx(shapely.MultiPoint(corners).convex_hull.area, rel=1e-5)
    assert bbox == list(shape.bounds)


def test_a_footprint_across_the_antimeridian_is_cut_there() -> None:
    grid = Grid(CRS.from_epsg(4326), Affine(0.001, 0, 179.5, 0, -0.001, -16), 1000, 500)
    geometry, bbox = footprint(grid)
    assert bbox == [179.5, -16.5, -179.5, -16.0]
    parts = sorted(part.bounds for part in shapely.get_parts(shapely.geometry.shape(geometry)))
    assert parts == [(-180, -16.5, -179.5, -16), (179.5, -16.5, 180, -16)]
    item = {"geometry": geometry, "bbox": bbox, "type": "Feature", "stac_version": "1.1.0", "id": "a", "assets": {}}
    assert broken_rules({**item, "links": [], "properties": {"datetime": "2018-10-01T12:00:00Z"}}) == []


def test_the_numbers_are_those_of_the_summary(made: Path) -> None:
    found = read_delivered(made)
    assert found.state == "complete" and found.left_out == []
    grades = [found.numbers[f"buildings_{key}"] for key in ("no_damage", "minor_damage", "major_damage", "destroyed")]
    assert found.numbers["buildings"] == sum(grades) > 0
    assert found.numbers["buildings_damaged"] == sum(grades[1:])
    assert (found.facts["model"], found.facts["network"]) == ("a model", "a network")
    assert isinstance(found, Delivered) and found.numbers["left_out"] == 0


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"[]", b'{"total": {}, "scene": {}}', b'{"total": {"a": "b"}}']
)
def test_what_is_no_map_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(DeliveryError, match=r"summary\.json: .* Give the folder of a map of components\.predict"):
        read_delivered(tmp_path)

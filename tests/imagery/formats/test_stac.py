"""A map as a STAC item: what is known of it, and nothing else."""

import json
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from base.stac import ITEM
from imagery.formats.stac import EXTENSIONS, UNKNOWN, MadeBy, Taken, describe_map, read_made_by, write_item
from imagery.give.writing import OutputError
from tests.imagery.geotiff import ORIGIN, UTM
from tests.imagery.predicted import give_out, write_classes
from tests.stac_items import check_item

MADE = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
LEFT = {"what": "shard-00001", "why": "it failed."}
MODEL = MadeBy("models:/dual-hrnet/3", "models:/dual-hrnet/3/stac.json", "dual-hrnet")


def a_map(folder: Path, transform: Affine = ORIGIN, crs: str = UTM) -> Path:
    damage = np.zeros((300, 400), np.uint8)
    damage[20:60, 30:70], damage[200:240, 300:330] = 1, 4
    give_out(write_classes(folder / "classes.tif", damage, crs, transform), folder / "map")
    return folder / "map"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_map(tmp_path_factory.mktemp("map"))


def test_it_is_an_item_by_the_schema_of_stac(folder: Path) -> None:
    for made_by, taken in ((MODEL, UNKNOWN), (None, Taken(MADE, MADE)), (MadeBy("a folder"), Taken(after=MADE))):
        item = describe_map(folder, made_by, MADE, taken)
        check_item(item)
        assert item["stac_extensions"] == list(EXTENSIONS)
        assert item["properties"]["processing:level"] == "L4"
        assert (item["properties"]["proj:code"], item["properties"]["proj:shape"]) == (UTM, [300, 400])
        assert item["properties"]["proj:transform"] == list(ORIGIN)[:6]


def test_the_item_lies_where_the_map_lies(folder: Path) -> None:
    item = describe_map(folder, MODEL, MADE)
    corners = [(500_000 + 200 * right, 4_000_000 - 150 * down) for right, down in ((0, 0), (1, 0), (1, 1), (0, 1))]
    degrees = [Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(*corner) for corner in corners]
    outline = shapely.geometry.shape(item["geometry"])
    assert shapely.hausdorff_distance(outline, shapely.Polygon(degrees)) < 2e-7
    assert shapely.is_ccw(shapely.get_exterior_ring(outline))
    np.testing.assert_allclose(item["bbox"], shapely.bounds(shapely.Polygon(degrees)), atol=2e-7)
    assert outline.contains(geopandas.read_file(folder / "buildings.geojson").union_all())
    assert item["properties"]["gsd"] == 0.5


def test_a_map_across_the_antimeridian_is_cut_there_and_its_box_goes_over_it(tmp_path: Path) -> None:
    east, north = Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True).transform(180, -17)
    item = describe_map(a_map(tmp_path, Affine(0.5, 0, east - 100, 0, -0.5, north), "EPSG:32660"), MODEL, MADE)
    check_item(item)
    west, south, east, north = item["bbox"]
    assert 179.998 < west < 180 and -180 < east < -179.998 and -17.01 < south < north < -16.99
    parts = shapely.get_parts(shapely.geometry.shape(item["geometry"]))
    assert sorted((part.bounds[0], part.bounds[2]) for part in parts) == [(-180, east), (west, 180)]


def test_each_file_that_is_there_is_an_asset_and_no_other(folder: Path, tmp_path: Path) -> None:
    named = [asset["href"].removeprefix("./") for asset in describe_map(folder, MODEL, MADE)["assets"].values()]
    assert sorted(named) == sorted(path.name for path in folder.iterdir())
    damage = describe_map(folder, MODEL, MADE)["assets"]["damage"]
    content = (folder / "damage.tif").read_bytes()
    assert (damage["file:size"], damage["file:checksum"]) == (len(content), "1220" + sha256(content).hexdigest())
    assert damage["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert damage["bands"][0]["nodata"] == 255
    grades = {each["value"]: each["description"] for each in damage["bands"][0]["classification:classes"]}
    assert grades == {0: "background", 1: "no damage", 2: "minor damage", 3: "major damage", 4: "destroyed"}


def test_what_is_not_known_is_not_in_it_and_is_said(folder: Path) -> None:
    item = describe_map(folder, None, MADE)
    properties = item["properties"]
    assert item["links"] == [] and "processing:expression" not in properties
    assert properties["processing:lineage"].startswith("model not recorded, trained on real scenes of an event")
    assert properties["datetime"] == properties["created"] == "2026-03-01T10:30:00Z"
    assert "When the images were taken is not known" in properties["description"]
    assert "start_datetime" not in properties
    before, after = datetime(2018, 9, 20, tzinfo=UTC), datetime(2018, 10, 1, tzinfo=UTC)
    known = describe_map(folder, None, MADE, Taken(before, after))["properties"]
    assert (known["datetime"], known["end_datetime"], known["start_datetime"]) == (
        "2018-10-01T00:00:00Z", "2018-10-01T00:00:00Z", "2018-09-20T00:00:00Z"
    )  # fmt: skip
    assert "not known" not in known["description"]


def test_it_points_to_the_model_as_the_extension_of_models_says(folder: Path) -> None:
    item = describe_map(folder, MODEL, MADE)
    (link,) = item["links"]
    assert (link["rel"], link["href"], link["mlm:name"]) == ("derived_from", MODEL.item, "dual-hrnet")
    expression = item["properties"]["processing:expression"]
    assert expression == {"format": "stac-mlm", "expression": "models:/dual-hrnet/3/stac.json"}
    assert item["properties"]["dual-hrnet:buildings_destroyed"] == 1


def test_the_same_map_has_the_same_id_and_another_another(folder: Path, tmp_path: Path) -> None:
    other = a_map(tmp_path, ORIGIN @ Affine.translation(8, 0))
    ids = [describe_map(of, model, made)["id"] for of, model, made in ((folder, MODEL, MADE), (folder, None, MADE))]
    assert ids[0] == ids[1] != describe_map(other, MODEL, MADE)["id"]
    assert describe_map(folder, MODEL, MADE, name="palu")["id"] == "palu"


def test_images_with_an_address_are_linked_and_paths_are_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map").mkdir()
    for path in folder.iterdir():
        (tmp_path / "map" / path.name).write_bytes(path.read_bytes())
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    summary["scene"] |= {"before": ["s3://in/pre.tif"], "after": ["/data/post.tif"], "left_out": [LEFT]}
    (tmp_path / "map" / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    item = json.loads(write_item(tmp_path / "map", None, MADE).read_text(encoding="utf-8"))
    assert [link["href"] for link in item["links"]] == ["s3://in/pre.tif"]
    assert (item["properties"]["dual-hrnet:state"], item["properties"]["dual-hrnet:left_out"]) == ("partial", [LEFT])


def test_the_model_of_a_folder_is_described_by_the_item_beside_it(tmp_path: Path) -> None:
    assert read_made_by(tmp_path, "models:/a/1", "models:/a/1/files") == MadeBy("models:/a/1")
    for content, expected in (
        ("{", None),
        ('{"properties": {}}', None),
        ('{"properties": {"mlm:name": "a-b"}}', "a-b"),
    ):
        (tmp_path / ITEM).write_text(content, encoding="utf-8")
        found = read_made_by(tmp_path, "models:/a/1", "models:/a/1/files")
        assert found.name == expected
        assert found.item == (None if expected is None else "models:/a/1/files/stac.json")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("summary.json", None, "cannot be read .No such file or directory., expected the folder of a map"),
        ("summary.json", b"{}", "is not the summary of a map, expected one of predict"),
        ("summary.json", b"\xff", "is not the summary of a map"),
        ("damage.tif", b"II*", "is no map"),
        ("buildings.geojson", None, "is no map"),
    ],
)
def test_a_folder_that_is_no_map_is_refused(name: str, content: Any, said: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map").mkdir()
    for path in folder.iterdir():
        (tmp_path / "map" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "map" / name).unlink() if content is None else (tmp_path / "map" / name).write_bytes(content)
    with pytest.raises(OutputError, match=said):
        write_item(tmp_path / "map", MODEL, MADE)
    assert not (tmp_path / "map" / ITEM).exists()

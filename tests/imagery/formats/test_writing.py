"""What a map is written as on request: the buildings of the files that every map has, all of them or nothing."""

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from base.errors import InputError
from imagery.formats.stac import MadeBy
from imagery.formats.writing import Formats, check_formats
from imagery.give.outputs import FILES
from imagery.give.writing import OutputError
from imagery.read.grid import Grid
from imagery.settings import FORMATS
from tests.comparing import tree
from tests.imagery.geotiff import UTM
from tests.imagery.predicted import black, give_out, write_classes
from tests.stac_items import check_item

ALL = Formats(FORMATS, black, MadeBy("a folder"))


@pytest.fixture(scope="module")
def out(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "map"
    give_out(classes, folder, further=ALL.write)
    return folder


def test_flatgeobuf_and_geoparquet_have_the_buildings_of_the_geojson(out: Path) -> None:
    expected = geopandas.read_file(out / "buildings.geojson").set_index("id").drop(columns="geometry")
    outlines = geopandas.read_file(out / "buildings.geojson").set_index("id").geometry
    assert len(expected) == 12
    for found in (pyogrio.read_dataframe(out / "buildings.fgb"), geopandas.read_parquet(out / "buildings.parquet")):
        frame = found.set_index("id").loc[expected.index]
        assert frame.crs == "EPSG:4326"
        values = frame.drop(columns=["geometry", "bbox"], errors="ignore")
        assert values.astype(expected.dtypes).equals(expected)
        assert shapely.hausdorff_distance(np.asarray(frame.geometry), np.asarray(outlines)).max() < 1e-7
    assert pyogrio.read_info(out / "buildings.fgb")["layer_name"] == "buildings"
    about = json.loads(pq.read_schema(out / "buildings.parquet").metadata[b"geo"])
    assert (about["version"], about["columns"]["geometry"]["covering"]["bbox"]["xmin"]) == ("1.1.0", ["bbox", "xmin"])
    part = geopandas.read_parquet(out / "buildings.parquet", bbox=outlines.iloc[:1].total_bounds)
    assert list(part["id"]) == [outlines.index[0]]


def test_the_item_names_what_was_written_and_the_rest_is_as_ever(out: Path, classes: Path, tmp_path: Path) -> None:
    item = json.loads((out / "stac.json").read_text(encoding="utf-8"))
    check_item(item)
    hrefs = {asset["href"].removeprefix("./") for asset in item["assets"].values()}
    assert {"buildings.fgb", "buildings.parquet", "buildings.pmtiles", "tiles/before.json", "tiles/after.json"} <= hrefs
    assert all((out / href).is_file() for href in hrefs)
    give_out(classes, tmp_path / "map")
    with_, without = tree(out), tree(tmp_path / "map")
    assert {name for name in without if with_[name] != without[name]} <= {"buildings.gpkg"}  # which has the time in it


def test_nothing_is_written_that_nobody_asked_for(classes: Path, tmp_path: Path) -> None:
    give_out(classes, tmp_path / "map", further=Formats((), black, MadeBy("a folder")).write)
    assert {path.name for path in (tmp_path / "map").iterdir()} < set(FILES)


def test_a_column_of_boxes_that_was_given_stays(classes: Path, tmp_path: Path) -> None:
    box = shapely.box(500_010, 3_999_970, 500_025, 3_999_990)
    geopandas.GeoDataFrame({"bbox": ["mine"], "id": ["a"]}, geometry=[box], crs=UTM).to_file(tmp_path / "given.gpkg")
    formats = Formats(["geoparquet", "flatgeobuf"], black, MadeBy("a folder"))
    give_out(classes, tmp_path / "map", footprints=tmp_path / "given.gpkg", further=formats.write)
    assert list(geopandas.read_parquet(tmp_path / "map" / "buildings.parquet")["bbox"]) == ["mine"]
    assert list(pyogrio.read_dataframe(tmp_path / "map" / "buildings.fgb")["bbox"]) == ["mine"]


def test_a_map_without_buildings_has_all_formats(tmp_path: Path) -> None:
    empty = write_classes(tmp_path / "classes.tif", np.zeros((50, 60), np.uint8))
    give_out(empty, tmp_path / "map", further=ALL.write)
    assert len(pyogrio.read_dataframe(tmp_path / "map" / "buildings.fgb")) == 0
    assert len(geopandas.read_parquet(tmp_path / "map" / "buildings.parquet")) == 0
    assert not (tmp_path / "map" / "buildings.pmtiles").exists()  # GDAL has none without tiles
    hrefs = {asset["href"] for asset in json.loads((tmp_path / "map" / "stac.json").read_text())["assets"].values()}
    assert "./buildings.fgb" in hrefs and "./buildings.pmtiles" not in hrefs


def test_a_disk_that_is_full_leaves_the_earlier_map(
    out: Path, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_out(classes, tmp_path / "map", further=ALL.write)
    before = tree(tmp_path / "map")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imagery.formats.tiles.Path.write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot be written .*No space left on device"):
        give_out(classes, tmp_path / "map", further=ALL.write)
    monkeypatch.undo()
    assert tree(tmp_path / "map") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map"]


def test_earlier_tiles_are_replaced_and_what_lies_between_them_never(classes: Path, tmp_path: Path) -> None:
    give_out(classes, tmp_path / "map", further=ALL.write)
    give_out(classes, tmp_path / "map")
    assert not (tmp_path / "map" / "tiles").exists()
    (tmp_path / "map" / "tiles" / "before").mkdir(parents=True)
    (tmp_path / "map" / "tiles" / "before" / "notes.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"notes\.jpg"):
        give_out(classes, tmp_path / "map", further=ALL.write)


def test_a_format_that_a_map_cannot_have_is_told_before_the_work() -> None:
    polar = Grid(CRS.from_epsg(32661), Affine(1, 0, 2_000_000, 0, -1, 2_000_000), 10, 10)
    check_formats(["stac", "flatgeobuf", "geoparquet"], polar)
    for name in ("tiles", "pmtiles"):
        with pytest.raises(OutputError, match=f"--formats {name}: found .* 85.05 degrees"):
            check_formats([name], polar)

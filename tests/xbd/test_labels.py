"""Labels: what is read from a good one, and what is said about a bad one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.scenes import feature, write_label
from xbd.labels import LabelError, read_buildings, read_label

SQUARE = "POLYGON ((1 1, 5 1, 5 5, 1 5, 1 1))"


def test_buildings_come_in_the_order_of_the_file_with_identity_polygon_and_grade(tmp_path: Path) -> None:
    subtypes = ["destroyed", "no-damage", "un-classified", "minor-damage", "major-damage"]
    features = [
        feature(f"POLYGON (({i} 1, 5 1, 5 5, {i} 1))", subtype, f"uid-{i}") for i, subtype in enumerate(subtypes)
    ]
    buildings = read_buildings(write_label(tmp_path / "a_post_disaster.json", features))
    assert [building.grade for building in buildings] == [4, 1, 255, 2, 3]
    assert [building.uid for building in buildings] == ["uid-0", "uid-1", "uid-2", "uid-3", "uid-4"]
    assert list(buildings[2].polygon.exterior.coords) == [(2, 1), (5, 1), (5, 5), (2, 1)]
    assert all(building.is_sound for building in buildings)


def test_buildings_of_a_pre_label_have_no_grade(tmp_path: Path) -> None:
    path = write_label(tmp_path / "a_pre_disaster.json", [feature(SQUARE, None)])
    assert read_buildings(path)[0].grade is None


def test_metadata_is_kept(tmp_path: Path) -> None:
    label = read_label(write_label(tmp_path / "a.json", [], sensor="WORLDVIEW02", gsd=1.75))
    assert label.metadata["sensor"] == "WORLDVIEW02"
    assert label.metadata["gsd"] == 1.75


def test_an_empty_list_of_buildings_is_valid(tmp_path: Path) -> None:
    assert read_buildings(write_label(tmp_path / "a.json", [])) == []


def test_a_building_without_a_uid_is_named_by_its_number(tmp_path: Path) -> None:
    without = feature(SQUARE)
    del without["properties"]["uid"]
    buildings = read_buildings(write_label(tmp_path / "a.json", [feature(SQUARE), without]))
    assert buildings[1].uid == "number 1"


@pytest.mark.parametrize(
    ("wkt", "area"),
    [
        ("POLYGON ((1 1, 9 9, 9 1, 1 9, 1 1))", "two halves"),
        ("POLYGON ((2 4, 8 4, 2 4))", "a line"),
        ("POLYGON ((5 5, 5 5, 5 5, 5 5))", "a point"),
        ("POLYGON EMPTY", "nothing"),
    ],
)
def test_polygons_that_cross_themselves_or_have_no_area_are_read_and_not_sound(
    tmp_path: Path, wkt: str, area: str
) -> None:
    buildings = read_buildings(write_label(tmp_path / "a.json", [feature(wkt), feature(SQUARE)]))
    assert [building.is_sound for building in buildings] == [False, True], area


BAD_BUILDINGS: dict[str, tuple[Any, str]] = {
    "wkt that breaks off": (feature("POLYGON ((0 0, 1 1, 2 0"), "malformed"),
    "wkt that is no wkt": (feature("a house"), "malformed"),
    "wkt that is a number": (feature(7), "malformed"),
    "wkt that is null": (feature(None), "malformed"),
    "ring that is open": (feature("POLYGON ((0 0, 1 1, 2 0, 5 5))"), "malformed"),
    "point": (feature("POINT (1 2)"), "Point, expected a Polygon"),
    "multipolygon": (feature("MULTIPOLYGON (((0 0, 1 1, 2 0, 0 0)))"), "MultiPolygon, expected a Polygon"),
    "coordinate that is not a number": (feature("POLYGON ((1 1, nan 2, 2 0, 1 1))"), "b-1"),
    "coordinate that is infinite": (feature("POLYGON ((0 0, inf 1, 2 0, 0 0))"), "b-1"),
    "coordinate that overflows": (feature("POLYGON ((0 0, 1e400 1, 2 0, 0 0))"), "b-1"),
    "unknown subtype": (feature(SQUARE, "collapsed"), "'collapsed' is not one of no-damage"),
    "subtype that is a number": (feature(SQUARE, 3), "3 is not one of"),
    "subtype that is a list": (feature(SQUARE, ["destroyed"]), "is not one of"),
    "no wkt": ({"properties": {"uid": "b-1", "subtype": "destroyed"}}, "number 0"),
    "no properties": ({"wkt": SQUARE}, "number 0"),
    "properties that are a list": ({"properties": [], "wkt": SQUARE}, "number 0"),
    "building that is a string": ("house", "number 0"),
    "building that is null": (None, "number 0"),
}


@pytest.mark.parametrize(("bad", "finding"), BAD_BUILDINGS.values(), ids=BAD_BUILDINGS)
@pytest.mark.filterwarnings("error")  # a warning would stand beside the one line of the error
def test_a_bad_building_is_an_error_that_names_file_and_finding(tmp_path: Path, bad: Any, finding: str) -> None:
    path = write_label(tmp_path / "a_post_disaster.json", [bad, feature(SQUARE)])
    with pytest.raises(LabelError) as caught:
        read_buildings(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not JSON"),
    "JSON that breaks off": (b'{"features": {"xy": [', "is not JSON"),
    "an image": (b"\x89PNG\r\n\x1a\n\xff", "is not JSON"),
    "no features": (b'{"metadata": {}}', "features"),
    "no xy": (b'{"features": {"lng_lat": []}, "metadata": {}}', "xy"),
    "no metadata": (b'{"features": {"xy": []}}', "metadata"),
    "a list": (b"[]", "features.xy and metadata"),
    "null": (b"null", "features.xy and metadata"),
    "features.xy a mapping": (b'{"features": {"xy": {}}, "metadata": {}}', "must be a list"),
    "metadata a list": (b'{"features": {"xy": []}, "metadata": []}', "a mapping"),
    "brackets without end": (b"[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize(("content", "finding"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_an_error_that_names_file_and_finding(tmp_path: Path, content: bytes, finding: str) -> None:
    path = tmp_path / "a_post_disaster.json"
    path.write_bytes(content)
    with pytest.raises(LabelError) as caught:
        read_buildings(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match=r"cannot be read|is a folder"):
        read_buildings(tmp_path / name)


def test_real_labels_are_read_whole_and_their_grades_stand_in_the_post_labels_only(xbd_sample: Path) -> None:
    paths = sorted(xbd_sample.glob("*/labels/*.json"))
    assert paths
    graded = 0
    for path in paths:
        published = json.loads(path.read_text(encoding="utf-8"))["features"]["xy"]
        buildings = read_buildings(path)
        assert [building.uid for building in buildings] == [entry["properties"]["uid"] for entry in published]
        assert all((building.grade is None) == ("_pre_" in path.name) for building in buildings)
        graded += sum(building.grade is not None for building in buildings)
    assert graded > 1000

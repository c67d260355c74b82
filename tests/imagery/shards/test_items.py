"""Images out of collections of STAC items: those of one place, before and after the event."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imagery.shards.items import Image, choose, read_items
from imagery.shards.plan import PlanError

EVENT = datetime(2018, 9, 28, 10, 2, tzinfo=UTC)


def item(name: str, time: str | None, box: list[float], **more: Any) -> dict[str, Any]:
    assets = {"image": {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}}
    properties = {"datetime": time, **more.pop("properties", {})}
    return {"type": "Feature", "id": name, "bbox": box, "properties": properties, "assets": assets, **more}


def images(folder: Path, *items: dict[str, Any]) -> list[Image]:
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return [Image(item.href, item) for item in read_items(path)]


def test_one_collection_is_parted_by_the_event_and_by_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = images(
        tmp_path,
        item("pre", "2018-08-17T02:50:00Z", [119.8, -0.9, 119.9, -0.8]),
        item("far", "2018-08-18T02:50:00Z", [119.0, -0.9, 119.1, -0.8]),
        item("post", "2018-10-02T10:00:00+07:00", [119.85, -0.95, 119.95, -0.85]),
        item("later", None, [119.84, -0.9, 119.86, -0.8], properties={
            "start_datetime": "2018-10-01T02:00:00Z", "end_datetime": "2018-10-05T02:00:00Z"}),
    )  # fmt: skip
    (before, after), taken = choose(found, found, EVENT)
    assert (before, after) == (["./pre.tif"], ["./post.tif", "./later.tif"])
    assert taken == {
        "before": ["2018-08-17T02:50:00Z", "2018-08-17T02:50:00Z"],
        "after": ["2018-10-01T02:00:00Z", "2018-10-05T02:00:00Z"],
    }
    assert capsys.readouterr().out == "--pre: 1 of 2 items lie where the other image does, and are taken\n"


def test_items_across_the_antimeridian_meet_on_both_sides(tmp_path: Path) -> None:
    (fiji,) = images(tmp_path, item("fiji", "2016-02-01T00:00:00Z", [179.5, -17, -179.5, -16]))
    for box in ([179.8, -17, 179.9, -16], [-179.9, -17, -179.8, -16], [179.9, -17, -179.9, -16]):
        (post,) = images(tmp_path, item("post", "2016-03-01T00:00:00Z", box))
        assert choose([fiji], [post], None)[0] == (["./fiji.tif"], ["./post.tif"])
    (post,) = images(tmp_path, item("post", "2016-03-01T00:00:00Z", [0, -17, 1, -16]))
    with pytest.raises(PlanError, match="--pre, --post: have no items that lie in one place"):
        choose([fiji], [post], None)


def test_of_files_nothing_is_known_and_nothing_left_out(tmp_path: Path) -> None:
    (one,) = images(tmp_path, item("one", "2016-02-01T00:00:00Z", [0, 0, 1, 1]))
    assert choose([one, Image("a.tif", None)], [Image("b.tif", None)], None) == (
        (["./one.tif", "a.tif"], ["b.tif"]),
        None,
    )
    with pytest.raises(PlanError, match="--event: parts the items of collections, found no collection"):
        choose([Image("a.tif", None)], [Image("b.tif", None)], EVENT)


def test_times_that_overlap_or_leave_nothing_are_refused(tmp_path: Path) -> None:
    early, late = images(
        tmp_path,
        item("early", "2018-01-01T00:00:00Z", [0, 0, 1, 1]),
        item("late", "2019-01-01T00:00:00Z", [0, 0, 1, 1]),
    )
    with pytest.raises(PlanError, match="--pre: late is of 2019-01-01T00:00:00Z, --post: early of 2018-01-01"):
        choose([late], [early], None)
    with pytest.raises(PlanError, match="--pre: has no image taken before 2018-09-28"):
        choose([late], [late], EVENT)
    with pytest.raises(PlanError, match="--post: has no image taken since 2018-09-28"):
        choose([early], [early], EVENT)


def test_of_several_images_of_an_item_the_visual_one_is_taken(tmp_path: Path) -> None:
    assets = {
        "visual": {"href": "s3://open/visual.tif", "type": "image/tiff"},
        "analytic": {"href": "analytic.TIF"},
        "thumbnail": {"href": "small.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "mask": {"href": "mask.tif", "roles": ["data-mask"]},
    }
    (found,) = images(tmp_path, item("a", "2018-01-01T00:00:00Z", [0, 0, 0, 1, 1, 9], assets=assets))
    assert found.location == "s3://open/visual.tif"
    assert found.item is not None and found.item.box == (0, 0, 1, 1)
    del assets["visual"]
    (found,) = images(tmp_path, item("a", "2018-01-01T00:00:00Z", [0, 0, 1, 1], assets=assets))
    assert found.location == "analytic.TIF"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "is no collection of STAC items"),
        (b"[]", "is no collection of STAC items"),
        (b'{"type": "FeatureCollection", "features": []}', "has no items"),
        (json.dumps(item("a", None, [0, 0, 1, 1])).encode(), "is no collection of STAC items (KeyError"),
        (json.dumps(item("a", "soon", [0, 0, 1, 1])).encode(), "is no collection of STAC items (ValueError"),
        (json.dumps(item("a", "2018-01-01", [0, 0])).encode(), "is no collection of STAC items (ValueError"),
        (json.dumps(item("a", "2018-01-01", [0, 0, 1, 1], assets={})).encode(), "item a: has the images none"),
    ],
)  # fmt: skip
def test_what_is_no_collection_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "items.json").write_bytes(content)
    with pytest.raises(PlanError) as caught:
        read_items(tmp_path / "items.json")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/items.json: ")

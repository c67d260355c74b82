"""A map in shards is that of one machine, to the last byte, whatever the number of shards."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from imagery.give.outputs import FILES
from tests.conftest import tree
from tests.imagery.shards.making import Event, merge, on_one_machine, plan_of, predict, small_blocks

__all__ = ["small_blocks"]
FORMATS = ("flatgeobuf", "geoparquet", "pmtiles", "tiles")  # a STAC item has the time in it


@pytest.fixture(scope="module")
def whole(event: Event, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The map of one machine, by how post is aligned."""

    @cache
    def make(align: str) -> Path:
        out = tmp_path_factory.mktemp("whole") / "out"
        summary = on_one_machine(event, out, align=align, formats=FORMATS)
        assert len(summary) > 10 and "this was corrected" in summary.scene["alignment"]["said"]
        return out

    return make


@pytest.mark.parametrize(("count", "align"), [(1, "global"), (5, "global"), (2, "local")])
def test_shards_make_the_same_map_to_the_last_byte(
    count: int, align: str, event: Event, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    plan = plan_of(event, count, align=align)
    assert len(plan.shards) == count
    folders = [predict(plan, number, tmp_path / "shards") for number in reversed(range(count))]
    _, state = merge(plan, folders, tmp_path / "out", formats=FORMATS)
    made, expected = tree(tmp_path / "out"), tree(whole(align))
    assert state == "complete"
    assert set(made) == set(expected) > set(FILES)
    summaries = [json.loads(own["summary.json"]) for own in (made, expected)]
    assert summaries[0]["scene"].pop("plan") == {"sha256": plan.digest, "shards": count}
    made["summary.json"], expected["summary.json"] = (json.dumps(own, sort_keys=True).encode() for own in summaries)
    assert {name for name in expected if made[name] != expected[name]} <= {"buildings.gpkg"}  # which has the time in it

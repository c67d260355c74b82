"""A map in shards whose buildings the model of an event grades, as its users call it: that of one machine."""

import json
from pathlib import Path

import pytest

from components import merge, plan, predict
from components.events.names import EVENTS
from tests.components.events.afternoon import NETWORK, Afternoon, facts, make_map
from tests.components.events.conftest import Registered
from tests.conftest import exit_line, tree
from tests.imagery.shards.making import small_blocks

__all__ = ["small_blocks"]
SAME = ("damage.tif", "buildings.geojson", "features.parquet", "judge.json", "summary.csv")


def words_of(afternoon: Afternoon, model: str, out: Path) -> list[str]:
    images = ["--pre", str(afternoon.folder / "pre.tif"), "--post", str(afternoon.folder / "post.tif")]
    known = ["--footprints", str(afternoon.folder / "buildings.geojson"), "--align", "off", "--tile", "128"]
    return ["--model", model, *images, *known, "--overlap", "32", "--out", str(out)]


def in_shards(afternoon: Afternoon, model: str, run: Path, count: int) -> Path:
    plan.main([*words_of(afternoon, model, run), "--shards", str(count)])
    for number in range(count):
        words = ["--plan", str(run / "plan.json"), "--shard", str(number), "--out", str(run / "shards")]
        predict.main([*words, "--workers", "0"])
    merge.main(["--plan", str(run / "plan.json"), "--shards", str(run / "shards"), "--out", str(run / "map")])
    return run / "map"


@pytest.mark.parametrize(("registered_one", "count"), [(True, 3), (False, 2)])
def test_buildings_are_graded_as_on_one_machine(
    registered_one: bool, count: int, afternoon: Afternoon, registered: Registered, tmp_path: Path
) -> None:
    """By the version that stands for its event, or by the folder of assess over the network that it names."""
    model = f"models:/{EVENTS}@event-palu" if registered_one else str(registered.out)
    make_map(afternoon.folder, model, tmp_path / "whole", "--tile", "128", "--overlap", "32")
    made, whole = tree(in_shards(afternoon, model, tmp_path / "run", count)), tree(tmp_path / "whole")
    assert set(made) == set(whole) and {name for name in SAME if made[name] != whole[name]} == set()
    summaries = [json.loads(own["summary.json"]) for own in (made, whole)]
    del summaries[0]["scene"]["plan"]
    assert summaries[0] == summaries[1]
    assert facts(tmp_path / "whole")["model"] == summaries[0]["scene"]["model"]
    planned = json.loads((tmp_path / "run" / "plan.json").read_text(encoding="utf-8"))
    assert planned["model"] == f"models:/{NETWORK}/1"
    place = f"models:/{EVENTS}/{registered.number}" if registered_one else f"models:/{NETWORK}/1"
    assert planned["network"] == place


def test_what_an_events_model_cannot_do_in_shards_is_one_line(
    afternoon: Afternoon, registered: Registered, tmp_path: Path
) -> None:
    words = [*words_of(afternoon, f"models:/{EVENTS}@event-palu", tmp_path / "run"), "--shards", "1"]
    line = exit_line(plan.main, *words, "--no-features")
    assert "--no-features: is not used with an event's model that reads the features" in line
    assert not (tmp_path / "run").exists()

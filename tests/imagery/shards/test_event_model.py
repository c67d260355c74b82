"""The model of an event grades a map in shards as that of one machine, to the last byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from imagery.adapting.evidence import Evidence
from imagery.adapting.learning import Teacher
from imagery.give.event import Event as Learned
from imagery.give.writing import OutputError
from imagery.shards.plan import LeftOut, PlanError, read_plan
from tests.conftest import tree
from tests.imagery.shards.making import Event, merge, on_one_machine, plan_of, predict, small_blocks

__all__ = ["small_blocks"]


def learned(*, reads_features: bool) -> Learned:
    """From judgements by how bright a building is afterwards, against what the network says."""
    generator = np.random.default_rng(5)
    features = generator.random((400, 4)).astype(np.float16)  # as many as `Bright` has
    truth = np.select([features[:, 1] < quantile for quantile in (0.3, 0.5, 0.7)], [4, 2, 1], 3)
    evidence = Evidence(generator.dirichlet(np.ones(4), 400), features if reads_features else None)
    model = Teacher(evidence).learn(np.arange(200), truth[:200], np.ones(200))
    return Learned(model, "palu", 200, "a network", "models:/a-model/1", "events/3")


@pytest.mark.parametrize(("count", "features"), [(1, True), (2, True), (5, True), (2, False)])
def test_an_events_model_grades_as_on_one_machine(count: int, features: bool, event: Event, tmp_path: Path) -> None:
    model = learned(reads_features=features)
    assert model.reads_features == features
    on_one_machine(event, tmp_path / "whole", model, align="off", features=features)
    made = plan_of(event, count, model, align="off", features=features)
    made.write(tmp_path / "plan.json")
    plan = read_plan(tmp_path / "plan.json")
    assert plan.digest == made.digest
    folders = [predict(plan, number, tmp_path / "shards") for number in range(count)]
    merge(plan, folders, tmp_path / "out")
    found, expected = tree(tmp_path / "out"), tree(tmp_path / "whole")
    assert set(found) == set(expected)
    summaries = [json.loads(own.pop("summary.json")) for own in (found, expected)]
    assert summaries[0]["scene"].pop("plan") == {"sha256": plan.digest, "shards": count}
    assert summaries[0] == summaries[1] and summaries[0]["scene"]["event"] == model.facts
    assert {name for name in expected if found[name] != expected[name]} <= {"buildings.gpkg"}  # has the time in it
    graded = [row["properties"] for row in json.loads(expected["buildings.geojson"])["features"]]
    assert sum(own["grade"] != own["base_grade"] for own in graded) > 5


def test_a_partial_map_is_graded_too(event: Event, tmp_path: Path) -> None:
    model = learned(reads_features=True)
    plan = plan_of(event, 2, model, align="off")
    missing = [LeftOut(what="shard-00000", why="it failed.")]
    summary, _ = merge(plan, [predict(plan, 1, tmp_path / "shards")], tmp_path / "out", missing=missing)
    rows = json.loads((tmp_path / "out" / "buildings.geojson").read_text())["features"]
    assert len(rows) == len(summary) > 0 and all("base_grade" in row["properties"] for row in rows)


def test_a_model_that_reads_features_makes_no_plan_without_them(event: Event) -> None:
    with pytest.raises(OutputError, match="--no-features: is not used with an event's model that reads the features"):
        plan_of(event, 1, learned(reads_features=True), align="off", features=False)


@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_event_in_a_plan_is_one_line(place: int, event: Event, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    content = json.loads(plan_of(event, 1, learned(reads_features=False), align="off").as_json())
    content["event"]["files"][place] = "AAAA"
    path.write_text(json.dumps(content))
    said = "event: value error, holds no model of an event, expected a plan. Make the plan again with components.plan."
    with pytest.raises(PlanError, match=f"^{path}: {said}$"):
        read_plan(path)

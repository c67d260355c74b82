"""The card of a model and its STAC item: they say what its training and evaluation recorded, and what nobody did."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import ValidationError

from components.cards.card import NOT_KNOWN, write_card
from components.cards.facts import Facts
from components.cards.mlm import describe_model, mlm_name
from model.inference import Origin
from tests.stac_items import check_item, check_model, check_properties

METRICS: dict[str, Any] = {
    "score": 0.6125,
    "localization_f1": 0.8,
    "damage_f1": 0.53,
    "damage_f1_no_damage": 0.9,
    "damage_f1_minor_damage": 0.31,
    "damage_f1_major_damage": 0.45,
    "damage_f1_destroyed": 0.71,
    "score_present": 0.6125,
    "absent_grades": [],
    "calibration": {"localization": {"before": 0.05, "after": 0.0123}, "damage": {"before": 0.2, "after": 0.07}},
    "prepared_version": "p" * 64,
    "evaluate_settings": {"splits": ["test", "hold"], "per_building": "vote"},
    "per_disaster": {
        "palu-tsunami": {"score": 0.5, "score_present": 0.625, "absent_grades": ["minor_damage"], "scenes": 3},
        "socal-fire": {"score": 0.7, "score_present": 0.7, "absent_grades": []},
    },
}
FACTS = Facts(
    name="dual-hrnet", content="c" * 64, registered=datetime(2026, 5, 1, 8, 30, tzinfo=UTC), network="dual-hrnet",
    architecture={"width": 32, "modules": (1, 4, 3)}, parameters=59_535_494, weights=("ab" * 32, 238_000_000),
    temperatures={"localization": 1.25, "damage": 2.0},
    grade_offsets="no damage 0.25, minor damage 2.5",
    origin=Origin("real", ("palu-tsunami", "woolsey-fire"), "p" * 64, "17.dir"),
    scenes=2799, described=64, gsd=(0.36, 0.62), off_nadir=(5.1, 27.0), metrics=METRICS, run="f" * 32,
    experiment="xbd", settings="s" * 64, params={"train.pretrained": "timm/hrnet_w32.ms_in1k", "train.seed": "1"},
    tags={"recipe": "paper", "git_commit": "a" * 40, "git_dirty": "false"},
    versions={"Python": "3.11.7", "torch": "2.13.0+cpu"},
)  # fmt: skip
BARE = replace(
    FACTS, temperatures=None, grade_offsets=None, origin=Origin(), scenes=None, described=None, gsd=None,
    off_nadir=None, params={}, tags={},
    metrics={key: METRICS[key] for key in ("score", "absent_grades", "prepared_version", "evaluate_settings")},
)  # fmt: skip


def table(card: str, section: str) -> list[list[str]]:
    """The rows of the first table of a section, by the plain rule of Markdown."""
    lines = card.split(f"\n## {section}\n")[1].split("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not row.startswith("|---")]


def test_the_card_has_the_scores_of_each_event_beside_those_of_all() -> None:
    rows = {row[0]: row[1:] for row in table(write_card(FACTS), "Scores")}
    assert rows[""] == ["all", "palu-tsunami", "socal-fire"]
    assert rows["score"] == ["0.6125", "0.5000", "0.7000"]
    assert rows["score over the grades that are there"] == ["0.6125", "0.6250", "0.7000"]
    assert rows["damage f1 destroyed"] == ["0.7100", NOT_KNOWN, NOT_KNOWN]
    assert rows["grades that are not there"] == ["none", "minor damage", "none"]
    assert rows["scenes"] == [NOT_KNOWN, "3", NOT_KNOWN]


def test_the_card_says_which_events_the_model_had_seen() -> None:
    card = write_card(FACTS)
    assert "was trained on other scenes of palu-tsunami: on an event of its own, expect less" in card
    assert "was trained on no scene of socal-fire" in card


def test_the_card_has_data_licence_calibration_and_limits() -> None:
    card = write_card(FACTS)
    data = dict(table(card, "Trained on")[1:])
    assert data["scenes"] == "2,799 of training, real"
    assert data["licence of the data"].startswith(
        "xBD (palu-tsunami, woolsey-fire): CC BY-NC-SA 4.0, not for commercial"
    )
    assert data["pixels"] == "0.36 to 0.62 m, of 64 scenes of training"
    assert ["damage", "0.2000", "0.0700"] in table(card, "Calibration")
    assert "localization 1.25, damage 2" in card
    assert "raised by no damage 0.25, minor damage 2.5: rare grades are found, and given too often." in card
    assert "It knows images taken 5.1 to 27 degrees off nadir" in card
    assert ["4", "destroyed"] == next(row[:2] for row in table(card, "Limits") if row[0] == "4")
    assert dict(table(card, "How it was trained"))["train.pretrained"] == "timm/hrnet_w32.ms_in1k"


def test_what_nobody_recorded_is_said_as_not_known_and_nothing_is_made_up() -> None:
    card = write_card(BARE)
    data = dict(table(card, "Trained on")[1:])
    assert data["events"] == data["prepared data"] == data["pixels"] == data["off-nadir"] == NOT_KNOWN
    assert data["licence of the data"] == "unknown: nobody recorded the scenes"
    assert f"Calibration error: {NOT_KNOWN}." in card and "Not calibrated" in card and "raised" not in card
    assert f"Recipe: {NOT_KNOWN}." in card and f"Parameters: {NOT_KNOWN}." in card
    assert dict(table(card, "".join(["Scores"])))["damage f1"] == NOT_KNOWN
    assert "The model: nobody recorded which scenes it was trained on." in card
    assert "None" not in card and "nan" not in card


@pytest.mark.parametrize(
    ("events", "said", "spdx"),
    [
        (("sample-flooding",), "drawn by this project, with no data of others", None),
        (("hurricane-michael", "sample-flooding"), "CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0"),
        (("beirut-explosion",), "beirut-explosion: unknown, nobody recorded it", None),
        (("beirut-explosion", "palu-tsunami"), "xBD (palu-tsunami): CC BY-NC-SA 4.0", None),
    ],
)
def test_the_licence_of_the_data_is_told_where_it_is_known_and_nowhere_else(
    events: tuple[str, ...], said: str, spdx: str | None
) -> None:
    facts = replace(FACTS, origin=Origin("real", events))
    assert said in write_card(facts)
    assert describe_model(facts)["properties"].get("license") == spdx


def test_values_cannot_break_the_tables_of_the_card() -> None:
    facts = replace(FACTS, params={"train.augmentation": "a | b\n| c | d |", "train.seed": "1"})
    rows = table(write_card(facts), "How it was trained")
    assert [row[0] for row in rows] == ["parameter", "train.augmentation", "train.seed"]
    assert "a \\| b \\| c" in write_card(facts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dual-hrnet", "dual-hrnet"), ("modèle A", "mod-le-A"), ("7", "model-7"), ("é", "model-unnamed"), ("a/b", "a-b")],
)
def test_names_become_such_that_the_extension_allows(name: str, expected: str) -> None:
    assert mlm_name(name) == expected


def properties(facts: Facts) -> Mapping[str, Any]:
    return json.loads(json.dumps(describe_model(facts), allow_nan=False))["properties"]  # type: ignore[no-any-return]


def test_the_item_tells_from_which_weights_the_training_began_where_it_is_known() -> None:
    assert properties(FACTS)["mlm:pretrained_source"] == "timm/hrnet_w32.ms_in1k"
    scratch = properties(replace(FACTS, params={"train.pretrained": "None"}))
    assert (scratch["mlm:pretrained"], scratch["mlm:pretrained_source"]) == (False, None)
    assert "mlm:pretrained" not in properties(BARE)
    further = properties(replace(FACTS, origin=replace(FACTS.origin, started_from="models:/dual-hrnet/1")))
    assert (further["mlm:pretrained"], further["mlm:pretrained_source"]) == (True, "models:/dual-hrnet/1")


def test_the_item_has_scores_and_leaves_out_what_is_not_known() -> None:
    known, bare = properties(FACTS), properties(BARE)
    assert known["dual-hrnet:score"] == 0.6125
    assert known["dual-hrnet:score_by_event"] == {"palu-tsunami": 0.625, "socal-fire": 0.7}
    assert (known["dual-hrnet:gsd"], known["mlm:total_parameters"]) == ([0.36, 0.62], 59_535_494)
    assert not {"dual-hrnet:gsd", "mlm:hyperparameters", "license"} & bare.keys()


def test_the_item_normalizes_as_the_model_does() -> None:
    """(x / 255 - mean) / deviation, of ImageNet."""
    pre, post = properties(FACTS)["mlm:input"]
    assert [own["name"] for own in (pre, post)] == ["pre", "post"]
    for scaling, (mean, deviation) in zip(
        pre["value_scaling"], [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)], strict=True
    ):
        for value in (0, 100, 255):
            own = (value - scaling["mean"]) / scaling["stddev"]
            assert own == pytest.approx((value / 255 - mean) / deviation, abs=1e-4)


@pytest.mark.parametrize("facts", [FACTS, BARE])
def test_the_item_is_one_by_the_schema_of_stac_and_the_rules_of_the_extension_of_models(facts: Facts) -> None:
    item = describe_model(facts)
    check_item(item)
    check_model(item)
    check_properties(item)


@pytest.mark.parametrize("key", ["name", "architecture", "tasks", "input", "output"])
def test_the_schema_of_models_refuses_an_item_without_what_it_requires(key: str) -> None:
    item = describe_model(FACTS)
    del item["properties"][f"mlm:{key}"]
    with pytest.raises(ValidationError, match=f"'mlm:{key}' is a required property"):
        check_properties(item)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("mlm:total_parameters",), "59535494", "is not valid under any"),
        (("mlm:total_parameters",), -1, "is not valid under any"),
        (("mlm:tasks",), ["guessing"], "'guessing' is not valid under any"),
        (("mlm:input",), {"name": "pre"}, "is not of type 'array'"),
        (("mlm:input", 1, "input", "data_type"), "bytes", "'bytes' is not one of"),
        (("mlm:input", 0, "input", "shape"), [-1, "three"], "is not valid under any"),
        (("mlm:input", 0, "value_scaling", 0, "stddev"), None, "is not valid under any"),
        (("mlm:input", 0, "resize_type"), "stretch", "is not valid under any"),
        (("mlm:output", 0, "result"), None, "is not of type 'object'"),
        (("mlm:output", 1, "classification:classes", 3, "value"), "4", "is not valid under any"),
        (("mlm:accelerator",), "abacus", "is not valid under any"),
        (("mlm:hyperparameters",), 1, "is not valid under any"),
    ],
)
def test_the_schema_of_models_refuses_values_of_another_type(path: tuple[Any, ...], value: Any, said: str) -> None:
    item = describe_model(FACTS)
    check_properties(item)
    owner = item["properties"]
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    with pytest.raises(ValidationError, match=said):
        check_properties(item)


def test_the_check_tells_what_is_no_item_of_a_model() -> None:
    whole = json.dumps(describe_model(FACTS))
    for right, wrong in (
        ('"bands": ["red", "green", "blue"], "input"', '"bands": ["red", "green", "nir"], "input"'),
        ('"mlm:model", ', ""),
        ('"mlm:name": "dual-hrnet"', '"mlm:name": "7"'),
        ('"mlm:architecture"', '"mlm:kind"'),
    ):
        assert right in whole
        with pytest.raises(AssertionError):
            check_model(json.loads(whole.replace(right, wrong)))
    with pytest.raises(ValidationError):
        check_item(json.loads(whole.replace('"datetime": "2026-05-01T08:30:00Z", ', "")))

"""The gate of an event's alias: better than the map, no worse than the version before where the two compare."""

import pytest

from components.events.gate import alias_for, compare_events, decide_event
from components.promotion.gate import GateError, table


def tags(before: float, after: float, judgements: str = "j1") -> dict[str, str]:
    return {
        "event": "palu", "mean_f1_before": repr(before), "mean_f1_after": repr(after), "judgements": judgements,
        "map": "m1", "measure": "mean F1",
    }  # fmt: skip


def judge(candidate: dict[str, str], current: dict[str, str] | None = None) -> str:
    return decide_event(compare_events(3, candidate, None if current is None else (2, current)))


def test_a_model_that_is_better_than_its_map_passes() -> None:
    assert judge(tags(0.5, 0.500001)) == (
        "cross-validated F1 of the grades on the mean 0.5000 is better than the 0.5000 that the map had, and there was "
        "no version before"
    )


@pytest.mark.parametrize("after", [0.5, 0.4])
def test_a_model_that_is_no_better_than_its_map_is_refused(after: float) -> None:
    with pytest.raises(GateError, match=r"is not better than the 0\.5000 that the map had\. Judge more"):
        judge(tags(0.5, after))


def test_on_one_sample_a_version_passes_where_it_is_no_worse_than_the_current_one() -> None:
    assert "no worse than the 0.7000 of the version before" in judge(tags(0.5, 0.7), tags(0.5, 0.7))
    with pytest.raises(GateError, match=r"mean 0\.6999 is worse than the 0\.7000 of the version before, on the same"):
        judge(tags(0.5, 0.6999), tags(0.5, 0.7))


@pytest.mark.parametrize("other", [{"judgements": "j2"}, {"map": "m2"}, {"measure": "another"}])
def test_on_another_sample_the_current_version_does_not_compare_and_that_is_said(other: dict[str, str]) -> None:
    current = tags(0.5, 0.9) | other
    assert judge(tags(0.5, 0.6), current).endswith("was measured on other judgements and does not compare")
    rows = compare_events(3, tags(0.5, 0.6), (2, current))
    assert table(rows).splitlines()[-1].split()[:3] == ["judgements", "j1", current["judgements"]]


@pytest.mark.parametrize("value", ["", "much", "nan", "1.5"])
def test_a_version_without_a_usable_score_is_refused(value: str) -> None:
    with pytest.raises(GateError, match=r"version 3 has no usable tag mean_f1_after\. Register it by assess --event\."):
        judge(tags(0.5, 0.6) | {"mean_f1_after": value})


def test_a_version_stands_for_its_own_event_alone() -> None:
    assert alias_for(3, tags(0.5, 0.6), None) == alias_for(3, tags(0.5, 0.6), "event-palu") == "event-palu"
    for asked in ("production", "event-lombok"):
        with pytest.raises(GateError, match=f"--to: found {asked}, expected event-palu, as version 3 is of the event"):
            alias_for(3, tags(0.5, 0.6), asked)
    with pytest.raises(GateError, match="version 3 has no tag event"):
        alias_for(3, {}, None)

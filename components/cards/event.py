"""The card of an event's model, from what assess found out about it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.cards.card import NOT_KNOWN, table
from components.tracking.lineage import source_tags

_MEASURES = (("accuracy", "all"), ("precision", "damaged"), ("recall", "damaged"))


def write_event_card(name: str, facts: Mapping[str, Any], location: str) -> str:
    """The card as Markdown. name: of the registered model; facts: content of assessment.json, of an event; location: of
    the network below it.
    """
    adapting = facts["adapting"]
    return "\n".join(
        [
            f"# Model card: {name}, {facts['event']}",
            "",
            f"Grades the buildings of maps of one event, {facts['event']}, over a network that finds them; learned "
            f"from {adapting['judged']} buildings that people judged on a map of it. Of no use for another event.",
            "",
            *table(("", ""), _identity(facts, location)),
            "",
            "## Worth",
            "",
            "On the judged sample of this one map. After: by cross-validation, so that no judgement corrects the model "
            "that had seen it. Shares with 95 % intervals of the sampling design.",
            "",
            *table(("", "the network's map", "this model"), _worth(facts)),
            "",
            "## Limits",
            "",
            "- Measured on the map that it was learned from: other scenes of the event may be unlike it.",
            "- What the network does not find, this model does not grade.",
            "- The data of the network, its licence and its limits are those of the network's own card.",
            *(f"- {warning}" for warning in facts.get("warnings", ())),
            "",
        ]
    )


def _identity(facts: Mapping[str, Any], location: str) -> Iterator[Sequence[str]]:
    yield "network", f"{location}, `{facts['map']['network']}`"
    yield "map", f"`{facts['map']['sha256']}`"
    yield "judgements", ", ".join(f"`{digest}`" for digest in sorted(facts["judgements"].values()))
    yield "kind", "grades' probabilities alone" if facts["adapting"]["kind"] == "recalibrated" else "features"
    yield "code", source_tags().get("git_commit", NOT_KNOWN)


def _worth(facts: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    yield "mean F1 of the grades", *(_number(facts["adapting"][when]["macro_f1"]) for when in ("before", "after"))
    for measure, category in _MEASURES:
        rows = [_row(facts["accuracy"][when], measure, category) for when in ("before", "after")]
        yield measure if category == "all" else f"{measure} of {category}", *map(_share, rows)


def _row(found: Mapping[str, Any], measure: str, category: str) -> Mapping[str, Any]:
    (row,) = (row for row in found["measures"] if (row["measure"], row["category"]) == (measure, category))
    return dict(row)


def _share(row: Mapping[str, Any]) -> str:
    known = [_number(row[key]) for key in ("share", "low", "high")]
    return NOT_KNOWN if NOT_KNOWN in known else f"{known[0]} ({known[1]} to {known[2]})"


def _number(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3f}"

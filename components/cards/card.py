"""The model card: what somebody must know who is to use a model, in Markdown. What nobody recorded is said as such."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from base.grades import GRADES
from components.cards.facts import Facts, Span
from xbd.licence import licence_of

CARD = "MODEL_CARD.md"
NOT_KNOWN = "not known"
# What each grade means on the ground. Source: Gupta et al., https://arxiv.org/abs/1911.09296, table 1.
_MEANING = (
    "undisturbed: no sign of water, structural or shingle damage, or burn marks",
    "partially burnt, water around the structure, volcanic flow nearby, roof elements missing, or visible cracks",
    "partial wall or roof collapse, encroaching volcanic flow, or surrounded by water or mud",
    "scorched, completely collapsed, partially or completely covered with water or mud, or no longer present",
)
_SCORES = ("score", "localization_f1", "damage_f1", *(f"damage_f1_{grade.key}" for grade in GRADES))


def write_card(facts: Facts) -> str:
    """The card as Markdown, of a model that evaluate scored."""
    metrics = facts.metrics
    return "\n".join(
        [
            f"# Model card: {facts.name}",
            "",
            "Finds the buildings on a satellite image from before a disaster, and grades the damage of each pixel of "
            "them from an image after it. Written at registration, from what its training and evaluation recorded.",
            "",
            *table(("", ""), _identity(facts)),
            "",
            "## Trained on",
            "",
            *table(("", ""), _data(facts)),
            "",
            "## Scores",
            "",
            f"On the splits {', '.join(metrics['evaluate_settings']['splits'])} of the prepared data "
            f"`{metrics['prepared_version']}`, by the official xView2 rule (score = 0.3 localization F1 + 0.7 damage "
            f"F1), settings `{_settings(metrics['evaluate_settings'])}`. {_absence(metrics)}",
            "",
            *table(("", "all", *metrics.get("per_disaster", {})), _scores(metrics)),
            "",
            *_seen(facts),
            "",
            "## Calibration",
            "",
            *_calibration(facts),
            "",
            "## Limits",
            "",
            *(f"- {line}" for line in _limits(facts)),
            "",
            "What the grades mean (Joint Damage Scale):",
            "",
            *table(("grade", "", "on the ground"), _grades()),
            "",
            "## Input and output",
            "",
            *_signature(),
            "",
            "## How it was trained",
            "",
            *_training(facts),
            "",
        ]
    )


def _identity(facts: Facts) -> Iterator[tuple[str, str]]:
    digest, size = facts.weights
    settings = ", ".join(f"{key} {value}" for key, value in facts.architecture.items())
    yield "model", f"{facts.name}, content `{facts.content}`"
    yield "registered", facts.registered.strftime("%Y-%m-%d %H:%M UTC")
    yield "network", f"{facts.network}, {facts.parameters:,} parameters: {settings}"
    yield "weights", f"`model.safetensors`, {size:,} bytes, sha256 `{digest}`"
    yield "MLflow run", f"`{facts.run}` of the experiment {facts.experiment}"
    commit = facts.tags.get("git_commit")
    changed = " with changes" if facts.tags.get("git_dirty") == "true" else ""
    yield "code", f"git commit `{commit}`{changed}" if commit else NOT_KNOWN
    yield "versions", ", ".join(f"{name} {number}" for name, number in facts.versions.items())


def _data(facts: Facts) -> Iterator[tuple[str, str]]:
    origin = facts.origin
    yield "scenes", f"{_known(facts.scenes)} of training, {origin.scenes}"
    yield "events", ", ".join(origin.events) or NOT_KNOWN
    yield "prepared data", _code(origin.prepared_version)
    yield "raw data, DVC's hash", _code(origin.raw_version)
    yield "training went on from", origin.started_from or "no other model that was recorded"
    yield "licence of the data", "; ".join(licence_of(origin.events).said)
    yield "pixels", _span(facts.gsd, "m", facts.described)
    yield "off-nadir", _span(facts.off_nadir, "degrees", facts.described)


def _scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    events = metrics.get("per_disaster", {})
    for key in _SCORES:
        yield key.replace("_", " "), *(_number(of.get(key)) for of in (metrics, *events.values()))
    present = [_number(of.get("score_present")) for of in (metrics, *events.values())]
    yield "score over the grades that are there", *present
    absent = [", ".join(of.get("absent_grades", ())).replace("_", " ") or "none" for of in (metrics, *events.values())]
    yield "grades that are not there", *absent
    yield "scenes", *(_known(of.get("scenes")) for of in (metrics, *events.values()))


def _absence(metrics: Mapping[str, Any]) -> str:
    if not metrics["absent_grades"]:
        return "All four grades are in these scenes."
    names = ", ".join(metrics["absent_grades"]).replace("_", " ")
    return f"**No pixel of {names} is in these scenes**: by that rule damage F1 is then about 0, whatever is found."


def _seen(facts: Facts) -> Iterator[str]:
    """Whether the scores are of events that the model had seen."""
    scored, trained = sorted(facts.metrics.get("per_disaster", {})), set(facts.origin.events)
    if not trained or not scored:
        yield f"Whether the model had seen the events that it was scored on: {NOT_KNOWN}."
        return
    known, new = ([name for name in scored if (name in trained) is seen] for seen in (True, False))
    if known:
        yield f"The model was trained on other scenes of {', '.join(known)}: on an event of its own, expect less."
    if new:
        yield f"The model was trained on no scene of {', '.join(new)}."


def _calibration(facts: Facts) -> Iterator[str]:
    if facts.grade_offsets is not None:
        yield f"Its damage logits are raised by {facts.grade_offsets}: rare grades are found, and given too often."
    if facts.temperatures is None:
        yield "Not calibrated: how sure it is, is not how often it is right."
    else:
        by = ", ".join(f"{part} {value:.4g}" for part, value in facts.temperatures.items())
        yield f"Its logits are divided by temperatures found on validation scenes: {by}."
    found = facts.metrics.get("calibration")
    yield ""
    if not isinstance(found, Mapping) or not found:
        yield f"Calibration error: {NOT_KNOWN}."
        return
    yield "Expected calibration error on the scenes above, 0 is as often right as sure:"
    yield ""
    rows = [
        (part.replace("_", " "), _number(each.get("before")), _number(each.get("after")))
        for part, each in found.items()
    ]
    yield from table(("", "before", "after"), rows)


def _limits(facts: Facts) -> Iterator[str]:
    if facts.origin.doubt:
        yield f"{facts.origin.doubt[0].upper()}{facts.origin.doubt[1:]}"
    yield "A first look and no survey: how far it holds on an event, people must judge on a sample of its buildings."
    yield (
        "An event, a region or a sensor beyond those above is out of its domain: its scores say nothing of it, and its "
        "confidences may be too high there."
    )
    if facts.gsd is None:
        yield f"Size of the pixels that it knows: {NOT_KNOWN}."
    else:
        yield f"It knows pixels of {facts.gsd[0]:g} to {facts.gsd[1]:g} m; resample others."
    if facts.off_nadir is None:
        yield f"Off-nadir angles that it knows: {NOT_KNOWN}."
    else:
        yield f"It knows images taken {facts.off_nadir[0]:g} to {facts.off_nadir[1]:g} degrees off nadir."
    yield (
        "It reads red, green and blue of 8 bits of two images that lie on each other; clouds, shadows and a shift "
        "between the two cost buildings. Damage that cannot be seen from above is not found."
    )
    yield "Buildings that touch become one; a building has the grade that most of its pixels' probability is for."


def _grades() -> Iterator[tuple[str, str, str]]:
    for grade, meaning in zip(GRADES, _MEANING, strict=True):
        yield str(grade.number), grade.label, meaning


def _signature() -> Iterator[str]:
    yield from table(
        ("", "columns"),
        [
            ("the registered model takes", "`pre`, `post`: bytes of an 8-bit RGB PNG, of one size"),
            (
                "and gives",
                "`localization`, `damage`: bytes of a PNG, 0 background, 1 to 4 the grades; `buildings`: polygons in "
                "pixels, grade, confidence, area",
            ),
            ("the network takes", "`pre`, `post`: uint8 [B, 3, H, W], normalized by ImageNet's mean and deviation"),
            ("and gives", "logits [B, 2, H/4, W/4] of buildings and [B, 4, H/4, W/4] of the grades"),
        ],
    )


def _training(facts: Facts) -> Iterator[str]:
    yield f"Recipe: {facts.tags.get('recipe', NOT_KNOWN)}. Settings: `{facts.settings}`."
    yield ""
    if not facts.params:
        yield f"Parameters: {NOT_KNOWN}."
        return
    yield from table(("parameter", "value"), sorted(facts.params.items()))


def _settings(settings: Mapping[str, Any]) -> str:
    others = {key: value for key, value in settings.items() if key != "splits"}
    return ", ".join(f"{key} {value}" for key, value in sorted(others.items())) or "the defaults"


def _span(span: Span | None, unit: str, scenes: int | None) -> str:
    return NOT_KNOWN if span is None else f"{span[0]:g} to {span[1]:g} {unit}, of {scenes} scenes of training"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else NOT_KNOWN


def _known(value: Any) -> str:
    return NOT_KNOWN if value is None else f"{value:,}"


def _code(text: str | None) -> str:
    return NOT_KNOWN if text is None else f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table in Markdown, whatever stands in its cells."""
    yield _row(head)
    yield "|" + "---|" * len(head)
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

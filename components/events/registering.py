"""An assessed map's model of the event becomes a version in the registry, with all that predict needs of it."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from components.cards.card import CARD
from components.cards.event import write_event_card
from components.events.names import AFTER, BASE, BEFORE, EVENT, EVENTS, JUDGEMENTS, MAP, MEASURE, NETWORK, EventError
from components.events.sources import local_source, refuse_another_network
from components.storage.locations import Location
from components.tracking.lineage import circumstances, source_tags
from imagery.adapting.names import MODEL_FILES

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

_SHOWN = (("accuracy", "all"), ("precision", "damaged"), ("recall", "damaged"))


def register_event(assessed: Path, model: Location | None) -> "ModelVersion":
    """Registers the event's model of an assessed map's folder, which holds one, with the network below it and without
    an alias.

    What was learned from the same judgements of the same map is registered once. model: where the network is, if not
    where the map says. Raises EventError where there is none or it is not the one that made the map, ModelError,
    TrackingError, StorageError.
    """
    from components.tracking import registry
    from imagery.assessing.outputs import ASSESSMENT, ESTIMATES
    from imagery.assessing.page import PAGE
    from imagery.predict.inference import identity_of
    from model.inference import CONFIG, FILES, load_model

    facts = json.loads((assessed / ASSESSMENT).read_text(encoding="utf-8"))
    location = model or facts["base"]
    if location is None:
        raise EventError(
            "--model: is missing, expected the location of the model that made the map, which no map of an earlier "
            "version says. Give it."
        )
    tags = _tags(facts, str(location))
    learned = [hashlib.sha256((assessed / MODEL_FILES[1]).read_bytes()).hexdigest()]
    learned += [tags[name] for name in (EVENT, NETWORK, MAP, JUDGEMENTS, MEASURE)]
    tags[registry.CONTENT_HASH] = hashlib.sha256(json.dumps(learned).encode()).hexdigest()
    version = registry.find_content(EVENTS, tags[registry.CONTENT_HASH])
    if version is not None:
        print(f"{EVENTS} version {version.version} is this model, of these judgements: nothing new is registered")
        return version
    with local_source(location) as source, TemporaryDirectory() as folder:
        if not (source.directory / CONFIG).exists():
            raise EventError(
                f"{location}: has no network, expected that which made the map. Say by --model where it is."
            )
        load_model(source.directory)  # a damaged network must not become a part of a version
        refuse_another_network(location, identity_of(source.directory), tags[NETWORK], "Say by --model where that is.")
        network = (source.directory / name for name in FILES)
        for path in (*filter(Path.exists, network), *(assessed / name for name in MODEL_FILES)):
            shutil.copyfile(path, Path(folder, path.name))  # without its mode, which MLflow keeps
        (Path(folder) / CARD).write_text(write_event_card(EVENTS, facts, str(location)), encoding="utf-8")
        beside = [assessed / name for name in (PAGE, ASSESSMENT, ESTIMATES)]
        return registry.register_files(EVENTS, Path(folder), beside, tags, dict(_numbers(facts)))


def _tags(facts: Mapping[str, Any], location: str) -> dict[str, str]:
    """What a version says of itself, from the content of assessment.json."""
    from imagery.adapting.worth import MEASURED
    from imagery.predict.domain import UNKNOWN

    adapting = facts["adapting"]
    damaged = _headline(facts)
    accuracies = {
        f"{name}_{when}": _interval(row["share"], row["low"], row["high"], ".3f")
        for when in ("before", "after")
        for name, row in _accuracies(facts["accuracy"][when])
    }
    return {
        **source_tags(),
        **circumstances(),
        EVENT: facts["event"],
        BASE: location,
        NETWORK: facts["map"]["network"],
        MAP: facts["map"]["sha256"],
        JUDGEMENTS: ", ".join(sorted(facts["judgements"].values())),
        "judged": str(adapting["judged"]),
        "imagery": (facts["domain"] or {"said": UNKNOWN})["said"],
        "damaged": _interval(damaged["total"], damaged["low"], damaged["high"], ".0f"),
        "damaged_by": facts["headline"],
        **accuracies,
        BEFORE: repr(adapting["before"]["macro_f1"]),
        AFTER: repr(adapting["after"]["macro_f1"]),
        MEASURE: MEASURED,
    }


def _numbers(facts: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What the run shows as curves of one point: what is known of it."""
    damaged = _headline(facts)
    known = {"damaged": damaged["total"], "damaged_low": damaged["low"], "damaged_high": damaged["high"]}
    for name in ("features", "colours"):
        if own := (facts["domain"] or {}).get(name):
            known |= {f"distance_in_{name}": own["distance"], f"usual_distance_in_{name}": own["usual"]}
    for when, name in (("before", BEFORE), ("after", AFTER)):
        known[name] = facts["adapting"][when]["macro_f1"]
        known |= {f"{measure}_{when}": row["share"] for measure, row in _accuracies(facts["accuracy"][when])}
    yield from ((name, value) for name, value in known.items() if value is not None)


def _headline(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the estimates that says how many buildings are damaged."""
    from imagery.estimating.totals import ALL

    wanted = {"area": ALL, "category": "damaged", "unit": "buildings", "headline": True}
    (row,) = (row for row in facts["estimates"] if wanted.items() <= row.items())
    return dict(row)


def _accuracies(found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The overall accuracy, and how good the map is at damage, by their names."""
    for measure, category in _SHOWN:
        (row,) = (row for row in found["measures"] if (row["measure"], row["category"]) == (measure, category))
        yield measure if category == "all" else f"{measure}_{category}", row


def _interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None or low is None or high is None:
        return "unknown"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"

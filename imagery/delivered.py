"""What a map says of itself in its summary: its numbers, the model, and whether something is missing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from base.access import unreadable
from base.errors import InputError, shortly
from base.grades import KEYS
from imagery.give.summary import SUMMARY_FILES
from imagery.shards.merging import COMPLETE, PARTIAL

_REMEDY = "Give the folder of a map of components.predict or components.merge."
# Of what a summary knows of model and plan, and how it is called here.
_FACTS = {"location": "model", "identity": "network", "sha256": "plan", "shards": "shards"}


class DeliveryError(InputError):
    """A map that cannot be delivered."""


class Delivered(NamedTuple):
    """state: COMPLETE or PARTIAL; left_out: what is missing, and why. numbers: buildings and square metres, of all and
    of each grade and damaged, how much is left out, and what is known of how far the imagery lies from the training
    data. facts: of the model, and of the plan where there was one. taken: when the last image from after the disaster
    was, where the plan knew it. said: all of it in a sentence or two.
    """

    state: str
    left_out: Sequence[Mapping[str, str]]
    numbers: Mapping[str, float]
    facts: Mapping[str, str]
    taken: str | None
    said: str


def read_delivered(folder: Path) -> Delivered:
    """Reads it from the summary of a map's folder; raises DeliveryError where there is none."""
    path = folder / SUMMARY_FILES[1]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        total, scene = content["total"], content["scene"]
        numbers = {key: float(value) for key, value in total.items()}
        for unit in ("buildings", "area_m2"):
            numbers[f"{unit}_damaged"] = sum(numbers[f"{unit}_{key}"] for key in KEYS[1:])
        left_out = [{"what": str(each["what"]), "why": str(each["why"])} for each in scene.get("left_out", ())]
        numbers["left_out"] = float(len(left_out))
        numbers.update(_domain(scene["domain"]))
        plan = scene.get("plan", {})
        known = (*scene["model"].items(), *plan.items())
        facts = {_FACTS[key]: str(value) for key, value in known if key in _FACTS}
        domain = str(scene["domain"]["said"])
        taken = scene["taken"]["after"][1] if "taken" in scene else None
    except OSError as error:
        raise DeliveryError(f"{path}: {unreadable(path, error, f'. {_REMEDY}')}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DeliveryError(f"{path}: is not the summary of a map ({shortly(error)}). {_REMEDY}") from error
    state = PARTIAL if left_out else COMPLETE
    without = f" It is made without {', '.join(each['what'] for each in left_out)}." if left_out else ""
    buildings, damaged = (int(numbers[name]) for name in ("buildings", "buildings_damaged"))
    many = "1 building" if buildings == 1 else f"{buildings} buildings"
    said = f"A {state} map of {many}, {damaged} damaged.{without} The imagery: {domain}."
    return Delivered(state, left_out, numbers, facts | {"domain": domain}, taken, said)


def _domain(known: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of `imagery.predict.domain.Likeness.facts`, as far as they are known."""
    distances = {name: known.get(name) for name in ("features", "colours")}
    found = {
        f"domain_{part}_{name}": float(own[part])
        for name, own in distances.items() if own
        for part in ("distance", "usual")
    }  # fmt: skip
    return found | ({"unlike_training_data": float(len(known["unlike"]))} if "unlike" in known else {})

"""The folder of an assessed map: the buildings with their new grades, the estimates, and a page about both."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from base.files import new_folder
from base.grades import GRADES
from imagery.adapting.names import MODEL_FILES
from imagery.adapting.saved import save_event_model
from imagery.adapting.worth import Adapted, Score
from imagery.assessing.assessment import Assessment
from imagery.assessing.judged_map import JudgedMap
from imagery.assessing.page import PAGE, write_page
from imagery.estimating.accuracy import Accuracy
from imagery.estimating.totals import ALL
from imagery.find.shapes import parts_of
from imagery.give.names import GEOJSON, GEOPACKAGE, STYLE
from imagery.give.style import add_style, qgis_style
from imagery.give.table import free, regraded
from imagery.give.writing import write_errors
from imagery.read.vectors import write_geojson, write_geopackage
from imagery.sampling.judged import name_of

ESTIMATES, ASSESSMENT = "estimates.csv", "assessment.json"
SQUARES = "squares"  # the method of estimates from these
FILES = (GEOPACKAGE, GEOJSON, STYLE, ESTIMATES, ASSESSMENT, PAGE, *MODEL_FILES)


def is_ours(path: Path) -> bool:
    """Whether an earlier run wrote this file of its folder."""
    return str(path) in FILES


def write_assessment(out: Path, given: JudgedMap, found: Assessment, about: Mapping[str, Any]) -> None:
    """Writes FILES into the folder `out`, which appears with all of them; MODEL_FILES only where the map is graded by
    what they hold. about: what ASSESSMENT says of the files given. Raises OutputError, and InputError where `out` holds
    other files.
    """
    frame, damage = _regraded(given, found)
    domain = given.domain and given.domain.model_dump()
    facts = {"map": {"sha256": given.sha256, "network": given.network}, "domain": domain, **about}
    with new_folder(out, is_ours) as folder, write_errors(out):
        style = qgis_style(damage)
        write_geopackage([frame], folder / GEOPACKAGE)
        add_style(folder / GEOPACKAGE, style)
        write_geojson((frame.iloc[part] for part in parts_of(len(frame))), folder / GEOJSON)
        (folder / STYLE).write_text(style, encoding="utf-8")
        table = pd.concat([found.estimates.table, _of_squares(found)], ignore_index=True)
        table.to_csv(folder / ESTIMATES, index=False, lineterminator="\n")
        content = _plain({**facts, **_numbers(given, found)})
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / ASSESSMENT).write_text(text + "\n", encoding="utf-8")
        write_page(folder / PAGE, given, found)
        if found.adapted is not None and not found.adapted.keeps:
            worth = {key: content["adapting"][key] for key in ("before", "after", "judged")}
            save_event_model(found.adapted.model, folder, _plain({**facts, "worth": worth}))


def _regraded(given: JudgedMap, found: Assessment) -> tuple[Any, str]:
    """The buildings as they are written, and the name of their column of damage."""
    table = regraded(given.table, found.grades, found.confidence)
    frame, columns = table.frame, table.columns
    judged = [None if judgement < 0 else name_of(judgement) for judgement in found.judged.tolist()]
    place = frame.columns.get_loc(columns["confidence"]) + 1
    frame.insert(place, free("judged", frame.columns), np.array(judged, dtype=object))
    return frame, columns["damage"]


def _of_squares(found: Assessment) -> pd.DataFrame:
    """Rows as the estimates have them, of what the map missed and of both together."""
    missed = found.missed
    rows = {} if missed is None else {"missed": missed.buildings, "missed_damaged": missed.damaged}
    rows |= {f"{name}_with_missed": own for name, own in found.together.items()}
    judged = 0 if missed is None else len(missed.counts.missed)
    common = {"area": ALL, "unit": "buildings", "method": SQUARES, "headline": False, "judged": judged}
    return pd.DataFrame([{**common, "category": name, **own._asdict()} for name, own in rows.items()])


def _missed(found: Assessment) -> dict[str, Any]:
    """missed: what the map missed, None where nobody looked for it; with_missed: where somebody asked for it."""
    missed = found.missed and {
        "buildings": found.missed.buildings._asdict(),
        "damaged": found.missed.damaged._asdict(),
        "squares": found.missed.squares,
        "counted": len(found.missed.counts.missed),
        "unseen": found.missed.counts.unseen,
        "after_a_gap": found.missed.counts.beyond,
    }
    return {"missed": missed, "with_missed": {name: own._asdict() for name, own in found.together.items()}}


def _numbers(given: JudgedMap, found: Assessment) -> dict[str, Any]:
    estimates, sitting = found.estimates, found.sitting
    counts = {
        name: {grade.key: int((grades == grade.number).sum()) for grade in GRADES}
        for name, grades in (("before", given.grades), ("after", found.grades))
    }
    return {
        "warnings": list(found.warnings),
        "buildings": {"map": len(given.grades), "judgeable": estimates.buildings, "regraded": found.changed, **counts},
        "judged": {
            "in_sample": estimates.judged,
            "after_a_gap": found.sample.beyond,
            "picked": sum(own.rank is None for own in sitting.judgements),
            "files": sitting.files,
            "twice": sitting.both,
            "disagreements": [own._asdict() for own in sitting.disagreements],
        },
        "headline": estimates.headline,
        "estimates": estimates.table.to_dict("records"),
        **_missed(found),
        "accuracy": {
            "before": _accuracy(found.before),
            "after": None if found.after is None else _accuracy(found.after),
        },
        "adapting": {"said": found.said, **({} if found.adapted is None else _adapting(found.adapted))},
    }


def _accuracy(found: Accuracy) -> dict[str, Any]:
    return {"confusion": found.confusion.to_dict("index"), "measures": found.table.to_dict("records")}


def _adapting(found: Adapted) -> dict[str, Any]:
    return {
        "kind": "recalibrated" if found.model.onto is None else "features",
        "keeps_the_maps_grades": found.keeps,
        "judged": len(found.held_out),
        "before": _score(found.before),
        "after": _score(found.after),
        "first_judged": [{"judged": stop.judged, **_score(stop.score)} for stop in found.stops],
    }


def _score(found: Score) -> dict[str, Any]:
    f1 = {grade.key: found.f1.get(grade.number) for grade in GRADES}
    return {"macro_f1": found.macro_f1, "f1": f1, "right": found.right, "mean_confidence": found.sure}


def _plain(value: Any) -> Any:
    """As JSON has it: no NaN, no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value

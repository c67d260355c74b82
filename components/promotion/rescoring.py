"""Scores production anew on the data that a candidate was scored on, so that the two compare."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from components.params import EvaluateParams, Params
from components.promotion.gate import GateError, Scored, scores_of
from components.storage.locations import Location
from components.storage.prepared import local_scenes

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

PREFIX = "rescored."  # of tags that keep scores by what they were measured on


@dataclass(frozen=True)
class Rescoring:
    """How production is scored anew.

    data: the prepared scenes. params: their section evaluate goes for a candidate that does not name its own.
    evaluate: scores a model directory on scenes, writes to a folder, and returns the metrics: the step of that name.
    """

    data: Sequence[Location]
    params: Params
    evaluate: Callable[[Path, Path, Path, Params], Mapping[str, Any]]


def known_scores(version: "ModelVersion", like: Scored) -> Scored | None:
    """Scores of the version measured as those of `like`, if it was scored anew that way before."""
    found = dict(version.tags).get(_tag(like))
    return None if found is None else Scored(json.loads(found), *like.measure)


def rescore(version: "ModelVersion", like: Scored, how: Rescoring) -> Scored:
    """Scores the registered version as the scores of `like` were measured.

    Raises GateError where the data are of another version, and what `how.evaluate` raises.
    """
    from components.tracking import registry
    from xbd.scenes import prepared_version

    settings = how.params.evaluate
    if like.settings is not None:
        # A setting with a default is left out of the scores' settings where it stands at that, and not to be filled in.
        usual = {name for name, field in EvaluateParams.model_fields.items() if not field.is_required()}
        known = settings.model_dump(exclude=usual) | json.loads(like.settings)
        settings = EvaluateParams.model_validate_json(json.dumps(known))
    with local_scenes(how.data) as scenes, TemporaryDirectory() as folder:
        found = prepared_version(scenes)
        if found != like.prepared_version:
            raise GateError(
                f"{' '.join(map(str, how.data))}: is prepared version {found}, expected {like.prepared_version}, on "
                "which the candidate was scored. Give the location of those scenes, or score the candidate on these."
            )
        model = registry.download_model(f"models:/{version.name}/{version.version}", Path(folder))
        params = how.params.model_copy(update={"evaluate": settings})
        return Scored(scores_of(how.evaluate(scenes, model, Path(folder, "evaluate"), params)), *like.measure)


def keep_scores(version: "ModelVersion", found: Scored) -> None:
    """Records them as a tag of the version; raises TrackingError."""
    from components.tracking import registry

    registry.tag_version(version, {_tag(found): json.dumps(found.scores)})


def _tag(of: Scored) -> str:
    return PREFIX + hashlib.sha256(json.dumps(of.measure).encode()).hexdigest()[:16]

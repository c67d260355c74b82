"""What a task of a map's graph does around its step: it chooses the locations, and tells Kubeflow what came out.

All of a map that is made on the way lies in one folder below the root, named by what was asked for and by the code: a
run that is started again with the same finds the shards that are whole.
"""

import json
import os
import posixpath
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from base.errors import InputError
from components.kubeflow.client import run_page
from components.kubeflow.code_version import map_version
from components.kubeflow.links import show_map
from components.kubeflow.mapping.attempts import attempt
from components.kubeflow.mapping.settings import settings_of
from components.kubeflow.sections import Sections, params_of
from components.kubeflow.tasks import Artifact, TaskError, key_of, location_of, refer
from components.storage.locations import files_at, join, local_input, refuse_to_replace
from imagery.settings import Reading, Windows

SHARDS, MAP = "shards", "map"  # beside the plan
ATTEMPTS = 3  # at a shard, in one pod


def plan(
    model: str, pre: Sequence[str], post: Sequence[str], root: str, deliver_to: str, shards: int,
    reading: Mapping[str, Any], windows: Mapping[str, Any], areas: str, options: Mapping[str, Any], planned: Artifact,
) -> list[str]:  # fmt: skip
    """Plans the map; returns the numbers of its shards, as text.

    options: align, features, views, event and footprints of `components.plan.plan`. Refuses, before hours of work, what
    would fail at the end: areas that cannot be read, and a place for the map that holds something else.
    """
    from components.plan import plan
    from imagery.give.outputs import is_ours
    from imagery.read.vectors import read_polygons
    from imagery.shards.plan import PLAN

    read, taken = settings_of(Reading, "reading", reading), settings_of(Windows, "windows", windows)
    if not pre or not post:
        raise TaskError(f"{'post' if pre else 'pre'}: is empty, expected a list of files or prefixes. Give one.")
    refuse_to_replace(deliver_to, is_ours)
    if areas:
        with local_input(areas) as path:
            read_polygons(path)
    asked = [model, pre, post, shards, read.facts(), taken.tile, taken.overlap, options]
    place = f"{root.rstrip('/')}/maps/{key_of(*asked, map_version())}"
    made = plan(model, pre, post, place, shards, reading=read, windows=taken, **options)
    refer(planned, f"{place}/{PLAN}", sha256=made.digest)
    return [str(number) for number in range(len(made.shards))]


def predict(planned: Artifact, number: str, windows: Mapping[str, Any], shard: Artifact) -> None:
    """Predicts a shard, where that was not done.

    The task does not fail where its shard does, see `components.kubeflow.mapping.attempts`: why is told to the merge.
    """
    from imagery.shards.stored import name_of

    plan, name, taken = location_of(planned), name_of(int(number)), settings_of(Windows, "windows", windows)
    out, why = _beside(plan, SHARDS), ""
    if _is_whole(plan, f"{out}/{name}", int(number)):
        print(f"{out}/{name}: is there, of this plan")
    else:
        words = ["--plan", plan, "--shard", number, "--out", out]
        words += ["--batch", str(taken.batch), "--workers", str(taken.workers)]
        why = attempt([sys.executable, "-m", "components.predict", *words], ATTEMPTS)
    refer(shard, f"{out}/{name}", shard=name, **({"failed": f"it failed {ATTEMPTS} times: {why}"} if why else {}))


def merge(planned: Artifact, shards: Sequence[Artifact], areas: str, cell: float, merged: Artifact) -> str:
    """Makes the map of the shards that are there; returns "complete" or "partial"."""
    from components.merge import merge

    plan = location_of(planned)
    failed = {each.metadata["shard"]: each.metadata["failed"] for each in shards if "failed" in each.metadata}
    if len(failed) == len(shards):
        name, why = next(iter(sorted(failed.items())))
        raise TaskError(f"all {len(shards)} shards: {name}: {why} Mend that, and start the run again.")
    out = _beside(plan, MAP)
    summary, state = merge(plan, _beside(plan, SHARDS), out, areas=areas or None, cell=cell, failed=failed)
    print(f"{state}: {len(summary)} buildings, in {out}")
    refer(merged, out, state=state)
    return state


def deliver(
    merged: Artifact, deliver_to: str, taken: str, sections: Sections, mlflow_ui: str, kubeflow_uri: str,
    metrics: Any, links: Artifact,
) -> str:  # fmt: skip
    """Brings the map to its place and its numbers to MLflow, and shows both; returns "complete" or "partial"."""
    from components.deliver import deliver
    from components.tracking.connection import store

    run = os.environ.get("RUN_ID", "")
    tags = {"pipeline_link": run_page(kubeflow_uri.rstrip("/"), run)} if kubeflow_uri and run else {}
    experiment = params_of(sections).tracking.experiment
    found = deliver(location_of(merged), deliver_to, experiment, taken=taken or None, tags=tags)
    for name, value in found.numbers.items():
        metrics.log_metric(name, value)
    show_map(found.state, deliver_to, found.run, mlflow_ui or store(), links)
    return found.state


def _beside(plan: str, name: str) -> str:
    return str(join(posixpath.dirname(plan), name))


def _is_whole(plan: str, place: str, number: int) -> bool:
    """Whether a shard of this plan lies there with all of its files."""
    from imagery.shards.plan import read_plan
    from imagery.shards.stored import FILES, SHARD

    with local_input(plan) as path:
        made = read_plan(path)
    try:
        if not {posixpath.basename(str(file)) for file in files_at(place)} >= {*FILES}:
            return False
        with local_input(f"{place}/{SHARD}") as path:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            return (facts["plan"], facts["shard"]) == (made.digest, number)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return False

"""What a task of the Kubeflow graph does around its step: it chooses the locations, and tells Kubeflow what came out.

Large data lie below one root, a folder or an S3 location; what Kubeflow passes from task to task and shows is a
reference to them. A location is named by what its content depends on, so that the same content has one location: a run
with the same data and parameters finds what an earlier one made, and a training that was interrupted goes on.
"""

import csv
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from base.errors import InputError, Preempted, errors_in_one_line
from base.patience import VARIABLE as PATIENCE
from components.kubeflow.code_version import code_version
from components.kubeflow.links import show_version
from components.kubeflow.sections import Sections, params_of
from components.kubeflow.training import SERVERS, check_cluster, train_here, train_in_cluster, use_servers
from components.storage.locations import Location, folders_in, join, local_input

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = "DUAL_HRNET_PROCESSES"  # of a training on this machine
# Seconds that S3 and MLflow may be away from a task: Kubeflow does not start it again for that. A server that moves to
# another node takes a few minutes.
AWAY = "600"


class TaskError(InputError):
    """A task of the graph cannot do its work."""


class Artifact(Protocol):
    """What is used of Kubeflow's artifacts. path: of the file that Kubeflow stores."""

    path: str
    metadata: dict[str, Any]


@contextmanager
def task(mlflow_uri: str = "", s3_endpoint: str = "") -> Iterator[None]:
    """Around the body of a task: which servers it uses, patience with them, and errors as one line; preemption ends it
    with 143.
    """
    os.environ.setdefault(PATIENCE, AWAY)
    with errors_in_one_line():
        use_servers(mlflow_uri, s3_endpoint)
        try:
            yield
        except Preempted as error:
            print(error, file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)


def check(version: str, remote: str, root: str, sections: Sections) -> tuple[str, str, str]:
    """Refuses parameters, as a form may give them, that a later task would refuse.

    Returns the raw version to take, which is `version`, or, where that is "latest", what the DVC remote says is the
    latest now; whether that is new below the root, for people; and `train.start_from`, "" for null, an alias as the
    version that has it now: of a name that stays the cache knows what training it is.
    """
    from components.cluster.check import check
    from components.storage.latest import LATEST, read_latest

    params = params_of(sections)
    if PROCESSES not in os.environ:  # of a training on this machine, which is no job
        check(params)
        if not os.environ.get(SERVERS[0]):
            raise TaskError("mlflow_uri: is empty, and neither image nor platform names an MLflow. Give its address.")
        check_cluster(params)
    found = read_latest(remote) if version == LATEST else version
    origin = f", the latest of {remote}" if version == LATEST else ""
    is_known = _is_there(raw_location(root, found))
    news = "nothing new: what an earlier run made of it comes from the cache" if is_known else "new here"
    print(f"raw version: {found}{origin}: {news}")
    start = params.train.start_from or ""
    if start.startswith("models:/"):
        from components.tracking.registry import exact_uri

        print(f"train.start_from: {start} is {(start := exact_uri(start))}")
    return found, news, start


def fetch(version: str, remote: str, root: str, raw: Artifact) -> list[str]:
    """Brings a version of the raw data, DVC's hash, from the DVC remote to the root; returns its source folders."""
    from components.fetch import fetch
    from components.storage.dvc import Hash
    from xbd.scenes import SOURCES

    location = raw_location(root, version)
    fetch(Hash(version), location, remote=remote)
    refer(raw, location, version=version)
    found = folders_in(location)
    sources = [source for source in SOURCES if source in found]
    if not sources:
        raise TaskError(
            f"raw version {version}: has the folders {', '.join(sorted(found)) or 'none'}, expected one of "
            f"{', '.join(SOURCES)}. Give the version of raw scenes in the xBD layout."
        )
    return sources


def raw_location(root: str, version: str) -> Location:
    """Where a version of the raw data lies below the root."""
    return join(root, f"raw/{version.removesuffix('.dir')}")


def prepare(raw: Artifact, source: str, root: str, sections: Sections, prepared: Artifact) -> None:
    """Prepares the scenes of one source folder."""
    from components.prepare import prepare
    from xbd.preparation import preparation_version

    params = params_of(sections).prepare
    # How many processes do it changes nothing.
    key = key_of(raw.metadata["version"], params.model_dump(exclude={"workers"}), preparation_version())
    location = join(root, f"prepared/{key}/{source}")
    records = prepare(location_of(raw), location, params, source)
    facts = {"source": source, "version": f"{key}/{source}", "raw_version": raw.metadata["version"]}
    refer(prepared, location, scenes=len(records), **facts)


def train(
    parts: Sequence[Artifact], root: str, sections: Sections, start_from: str, image: str, model: Artifact
) -> None:
    """Trains on the parts that came from train and tier3: as a job of pods with `image`; or on this machine, in as many
    processes as $DUAL_HRNET_PROCESSES says, which `pipeline.py run` sets. start_from: as `check` gives it.
    """
    from components.prepare import SPLIT_SOURCES
    from model.train.run import identity_of

    params = params_of({**sections, "train": {**sections["train"], "start_from": start_from or None}})
    used = _of_sources(parts, SPLIT_SOURCES)
    versions = sorted(part.metadata["version"] for part in used)
    key = key_of(versions, identity_of(params.train), code_version("train"))
    out = join(root, f"train/{key}")
    data = [location_of(part) for part in used]
    raw_version = used[0].metadata.get("raw_version")  # none where prepare came from the cache of an earlier graph
    if processes := os.environ.get(PROCESSES):
        train_here(params, data, out, int(processes), raw_version)
    else:
        # Another root or image is another job.
        train_in_cluster(f"train-{key_of(key, str(out), image)}", image, params, data, out, raw_version)
    refer(model, join(out, "model"), run=join(out, "run.json"), history=join(out, "history.csv"), version=key)


def evaluate(
    parts: Sequence[Artifact],
    model: Artifact,
    root: str,
    sections: Sections,
    metrics: Any,
    confusion: Any,
    report: Artifact,
) -> tuple[str, list[str]]:
    """Scores the model; the score, the confusion matrix and the report go to Kubeflow.

    Returns where metrics.json lies, and the locations of the scenes that were scored.
    """
    from components.evaluate import evaluate
    from components.prepare import SPLIT_SOURCES

    params = params_of(sections)
    wanted = {
        source
        for split in params.evaluate.splits
        for source in ([split] if split in ("test", "hold") else SPLIT_SOURCES)  # `choose_split` makes the others
    }
    used = _of_sources(parts, wanted)
    versions = sorted(part.metadata["version"] for part in used)
    key = key_of(versions, model.metadata["version"], params.evaluate.model_dump(), code_version("evaluate"))
    out = join(root, f"evaluate/{key}")
    data = [location_of(part) for part in used]
    trained = {"run_file": model.metadata["run"], "history": model.metadata["history"]}
    found = evaluate(data, location_of(model), out, params, **trained)
    for name, value in found.items():
        if isinstance(value, float):
            metrics.log_metric(name, value)
    _show_confusion(out, confusion)
    _write_report(out, report)
    return str(out), data


def register(
    model: Artifact, evaluation: str, root: str, image: str, sections: Sections, mlflow_ui: str, links: Artifact
) -> str:
    """Registers the scored model, which `image` made; returns its URI.

    mlflow_ui: address of MLflow for browsers, empty where it is the one that pods use; for `links`.
    """
    from components.register import register
    from components.tracking.connection import store

    os.environ.update(DUAL_HRNET_IMAGE=image)
    params = params_of(sections)
    out = join(root, f"register/{key_of(evaluation, params.register_.name)}")
    uri = register(location_of(model), join(evaluation, "metrics.json"), model.metadata["run"], out, params)
    with local_input(join(out, "version.json")) as path:
        version = json.loads(path.read_text(encoding="utf-8"))
    show_version(version, mlflow_ui or store(), links)
    return uri


def promote(uri: str, data: Sequence[str], sections: Sections) -> str:
    """Promotes the version if it passes the gate; returns the decision as a line.

    data: the scenes that the version was scored on; production is scored on them too, where it was not.
    """
    from components.evaluate import evaluate
    from components.promote import describe, print_comparison, promote
    from components.promotion.rescoring import Rescoring

    params = params_of(sections)
    name, version = uri.removeprefix("models:/").rsplit("/", 1)
    rescoring = Rescoring(data, params, evaluate)
    decision = promote(name, params.promote, version=int(version), rescoring=rescoring, on_comparison=print_comparison)
    return describe(decision)


def _is_there(location: Location) -> bool:
    try:
        return bool(folders_in(location))
    except FileNotFoundError:
        return False


def refer(artifact: Artifact, location: Location, **facts: Any) -> None:
    """Makes the artifact a reference to the location: a line in its file, and what later tasks need as metadata."""
    Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    Path(artifact.path).write_text(f"{location}\n", encoding="utf-8")
    artifact.metadata.update(location=str(location), **facts)


def location_of(artifact: Artifact) -> str:
    """Where what it refers to lies."""
    return str(artifact.metadata["location"])


def _of_sources(parts: Sequence[Artifact], sources: Collection[str]) -> list[Artifact]:
    """The prepared parts of these source folders, in one order."""
    used = sorted((part for part in parts if part.metadata["source"] in sources), key=location_of)
    if not used:
        found = ", ".join(sorted(part.metadata["source"] for part in parts))
        raise TaskError(f"the raw version has {found}, expected one of {', '.join(sorted(sources))}. Add their scenes.")
    return used


def key_of(*parts: Any) -> str:
    """What tells results from those of other parts, fit for JSON: a part of the name of their location."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _show_confusion(out: Location, confusion: Any) -> None:
    """The confusion matrix, in pixels."""
    with local_input(join(out, "confusion.csv")) as path, path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    names = list(dict.fromkeys(line["actual"] for line in lines))
    pixels = {(line["actual"], line["predicted"]): int(line["pixels"]) for line in lines}
    confusion.log_confusion_matrix(names, [[pixels[actual, predicted] for predicted in names] for actual in names])


def _write_report(out: Location, report: Artifact) -> None:
    with local_input(join(out, "report.html")) as page:
        Path(report.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, report.path)

"""Where a run or a version comes from: who made it, of which code, in which image and pipeline run."""

import getpass
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping

# Tags and fields of runs and versions from before raw and prepared versions had names of their own.
OLD_NAMES = {
    "data_version": "prepared_version",
    "scored_data_version": "scored_prepared_version",
}


# Tag of a run: the ids of the pipeline runs that wanted its training; a process of the training knows the first.
PIPELINE_RUN = "pipeline_run"
# Tag of a run and of a version, and field of run.json: the model that training began with.
STARTED_FROM = "started_from"
# Tag of a run: how many scenes it trains on.
TRAINED_SCENES = "trained_scenes"
# Of so many ids. One has 36 characters, and MLflow takes tags of 5,000 (later versions: 8,000).
RUNS_KEPT = 100


def in_todays_names(known: Mapping[str, str]) -> dict[str, str]:
    """Tags or fields of a run or a version, whichever version of this project wrote them."""
    return {OLD_NAMES.get(name, name): value for name, value in known.items()}


def with_run(runs: Iterable[str], run: str) -> list[str]:
    """The ids of pipeline runs that wanted a training, and one more: the first, which its processes know, and then the
    newest of those that followed.
    """
    first, *later = dict.fromkeys([*runs, run])
    return [first, *later[1 - RUNS_KEPT :]]


def who() -> str:
    """user@host, with the identity that git knows here, and the pipeline run in a cluster."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as clusters give
        user = str(os.getuid())
    known = [f"{user}@{socket.gethostname()}"]
    name, email = _git("config", "user.name"), _git("config", "user.email")
    if name or email:
        known.append(f"git {' '.join(part for part in (name, email and f'<{email}>') if part)}")
    if run := circumstances().get(PIPELINE_RUN):
        known.append(f"pipeline run {run}")
    return ", ".join(known)


def source_tags() -> dict[str, str]:
    """Git commit of the working directory, or of the image, and whether it has changes; empty where none is known.

    Changes are those that a person makes, of code, parameters and pointers to data: DVC writes dvc.lock itself, after
    each stage of the very run that is tagged.
    """
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ":/", ":(exclude,top)dvc.lock")
    if commit is None or status is None:
        return built_from()
    return {"git_commit": commit, "git_dirty": str(bool(status)).lower()}


def built_from() -> dict[str, str]:
    """Git commit of which the image was built, and whether it had changes; empty where no image says so."""
    revision = os.environ.get("DUAL_HRNET_REVISION", "unknown")
    if revision == "unknown":
        return {}
    commit = revision.removesuffix("-dirty")
    return {"git_commit": commit, "git_dirty": str(commit != revision).lower()}


def circumstances() -> dict[str, str]:
    """What the cluster tells a process of itself: its image, with the digest, and its pipeline run; else empty."""
    known = {"image": os.environ.get("DUAL_HRNET_IMAGE"), PIPELINE_RUN: os.environ.get("RUN_ID")}
    return {name: value for name, value in known.items() if value}


def _git(*arguments: str) -> str | None:
    """What git answers; None where it has no answer, or is not here."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

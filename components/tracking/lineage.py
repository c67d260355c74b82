"""Who runs a step, and where: what stands in the registry beside a decision."""

import getpass
import os
import socket
import subprocess
from collections.abc import Mapping

# Tags and fields of runs and versions from before raw and prepared versions had names of their own.
OLD_NAMES = {
    "data_version": "prepared_version",
    "scored_data_version": "scored_prepared_version",
    "evaluated_data_version": "evaluated_prepared_version",
}


def in_todays_names(known: Mapping[str, str]) -> dict[str, str]:
    """Tags or fields of a run or a version, whichever version of this project wrote them."""
    return {OLD_NAMES.get(name, name): value for name, value in known.items()}


def who() -> str:
    """user@host, with the identity that git knows here, and the pipeline run in a cluster."""
    from components.tracking.connection import circumstances

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as clusters give
        user = str(os.getuid())
    known = [f"{user}@{socket.gethostname()}"]
    name, email = _git("user.name"), _git("user.email")
    if name or email:
        known.append(f"git {' '.join(part for part in (name, email and f'<{email}>') if part)}")
    if run := circumstances().get("pipeline_run"):
        known.append(f"pipeline run {run}")
    return ", ".join(known)


def _git(setting: str) -> str:
    try:
        return subprocess.run(["git", "config", setting], capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return ""

"""Waits until somebody has approved a version: a tag that a person sets in MLflow."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.promotion.gate import GateError

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

TAG = "approved_by"
LONGEST = 31_536_000  # seconds; what a clock counts, time.sleep cannot wait for without a bound


@dataclass(frozen=True)
class Approval:
    """timeout, interval: seconds to wait in all, and between two looks. Raises GateError where nobody can wait so."""

    timeout: float
    interval: float

    def __post_init__(self) -> None:
        if not (0 <= self.timeout <= LONGEST and 0 < self.interval <= LONGEST):
            raise GateError(
                f"--approval-timeout, --approval-interval: found {self.timeout:g} and {self.interval:g}, expected "
                f"seconds, 0 or more and more than 0, at most {LONGEST} (a year)."
            )


def wait_for_approval(version: "ModelVersion", approval: Approval) -> str:
    """Who approved the version; raises GateError where nobody did in time."""
    from components.tracking import registry
    from components.tracking.connection import AwayError, store

    how = f"set the tag {TAG} to your name on version {version.version} of model {version.name} in MLflow at {store()}"
    deadline = time.monotonic() + approval.timeout
    by = dict(version.tags).get(TAG)
    if not by:
        print(f"waiting {approval.timeout:g} s for approval: {how}", flush=True)
    while not by:
        left = deadline - time.monotonic()
        if left <= 0:
            raise GateError(f"nobody approved it within {approval.timeout:g} s: {how}, and promote again.")
        time.sleep(min(approval.interval, left))
        try:
            found = registry.find_version(version.name, version=int(version.version))
        except AwayError:  # who waits for hours lives through a restart of the server
            continue
        by = None if found is None else dict(found.tags).get(TAG)
    return by

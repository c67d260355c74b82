"""Approval by a person: a tag that names what it approves, set in MLflow or by `promote --approve`, and used once."""

import hashlib
import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from components.promotion.gate import GateError, Row
from components.promotion.handover import PRODUCTION

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

CODE = re.compile(r"[0-9a-f]{8}")
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


@dataclass(frozen=True)
class Request:
    """What is to be approved: that `alias` moves to `version` from `previous`, on the ground of these rows."""

    version: "ModelVersion"
    alias: str
    previous: "ModelVersion | None"
    rows: Sequence[Row]

    @property
    def code(self) -> str:
        """Another one for another version, alias, version to be replaced, score or limit."""
        numbers = [None if one is None else int(one.version) for one in (self.version, self.previous)]
        facts = [self.version.name, self.alias, *numbers, [astuple(row) for row in self.rows]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]

    @property
    def tag(self) -> str:
        """The tag of the version that approves it; its value is who does."""
        return tag_of(self.alias, self.code)

    def __str__(self) -> str:
        """What a person does to approve it."""
        from components.tracking.connection import store

        name, number = self.version.name, self.version.version
        instead = "" if self.previous is None else f" in the place of version {self.previous.version}"
        to = "" if self.alias == PRODUCTION else f" --to {self.alias}"
        return (
            f"to approve version {number} as {self.alias}{instead}, run python -m components.promote --model "
            f"{shlex.quote(name)} --version {number}{to} --approve {self.code}; or set the tag {self.tag} to your name "
            f"on version {number} of model {name} in MLflow at {store()}"
        )


def tag_of(alias: str, code: str) -> str:
    """The tag of a version that approves the decision with this code about the alias."""
    return f"approved_by.{alias}.{code}"


def wait_for_approval(request: Request, approval: Approval) -> str:
    """Who approved it, with the approval used up; raises GateError where nobody did in time, TrackingError."""
    from components.tracking import registry

    version, tag = request.version, request.tag
    deadline, is_asked = time.monotonic() + approval.timeout, False
    # Never by the tags that the version had when this promotion began: another one may have used them meanwhile.
    while not (by := _given(version, tag)):
        if not is_asked:
            print(f"waiting {approval.timeout:g} s for approval: {request}", flush=True)
        left, is_asked = deadline - time.monotonic(), True
        if left <= 0:
            raise GateError(f"nobody approved it within {approval.timeout:g} s: {request}, and promote again.")
        time.sleep(min(approval.interval, left))
    # Before the alias moves: after a rollback the same decision asks for a new approval. Who gave this one stays in
    # the record of the decision.
    registry.untag_version(version, tag)
    return by


def _given(version: "ModelVersion", tag: str) -> str | None:
    from components.tracking import registry
    from components.tracking.connection import AwayError

    try:
        found = registry.find_version(version.name, version=int(version.version))
    except AwayError:  # who waits for hours lives through a restart of the server
        return None
    return None if found is None else dict(found.tags).get(tag)

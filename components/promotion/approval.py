"""Approval by a person: a tag that names what it approves, set in MLflow or by `promote --approve`, and used once.

Three tags of the version belong to a decision: `approval_asked` while it waits, `approved_by` once somebody approved
it, and `approval_used`, with a word of its own behind it, while a promotion takes the approval.
"""

import hashlib
import json
import re
import shlex
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.promotion.gate import GateError, Row
from components.promotion.handover import PRODUCTION

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

CODE = re.compile(r"[0-9a-f]{8}")
ASKED, GIVEN, USED = "approval_asked", "approved_by", "approval_used"
MOMENT = 1.0  # seconds in which another promotion that takes the same approval would show
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

    def __str__(self) -> str:
        """What a person does to approve it."""
        from components.tracking.connection import store

        name, number = self.version.name, self.version.version
        instead = "" if self.previous is None else f" in the place of version {self.previous.version}"
        to = "" if self.alias == PRODUCTION else f" --to {self.alias}"
        tag = tag_of(GIVEN, self.alias, self.code)
        return (
            f"to approve version {number} as {self.alias}{instead}, run python -m components.promote --model "
            f"{shlex.quote(name)} --version {number}{to} --approve {self.code}; or set the tag {tag} to your name "
            f"on version {number} of model {name} in MLflow at {store()}"
        )


def tag_of(kind: str, alias: str, code: str) -> str:
    """The tag of a version about the decision with this code about the alias; kind: ASKED, GIVEN or USED."""
    return f"{kind}.{alias}.{code}"


def asked(tags: Mapping[str, str], alias: str) -> dict[str, str]:
    """Codes of the decisions about the alias that wait, by a version's tags, and by whom and when they were asked."""
    start = tag_of(ASKED, alias, "")
    return {key.removeprefix(start): value for key, value in sorted(tags.items()) if key.startswith(start)}


def wait_for_approval(request: Request, approval: Approval) -> str:
    """Who approved it, with the approval used up; raises GateError where nobody did in time, or another promotion used
    the approval, TrackingError.
    """
    version, tag = request.version, tag_of(GIVEN, request.alias, request.code)
    deadline, is_asked = time.monotonic() + approval.timeout, False
    # Never by the tags that the version had when this promotion began: another one may have used them meanwhile.
    while not (by := _tags(version).get(tag)):
        if not is_asked:
            _ask(request)
            print(f"waiting {approval.timeout:g} s for approval: {request}", flush=True)
        left, is_asked = deadline - time.monotonic(), True
        if left <= 0:
            raise GateError(f"nobody approved it within {approval.timeout:g} s: {request}, and promote again.")
        time.sleep(min(approval.interval, left))
    _use(request)
    return by


def _ask(request: Request) -> None:
    """Lets `promote --approve` know the code, also after the wait: who approves later promotes again."""
    from components.tracking import registry
    from components.tracking.lineage import who

    at = datetime.now(UTC).isoformat(timespec="seconds")
    registry.tag_version(request.version, {tag_of(ASKED, request.alias, request.code): f"{who()} at {at}"})


def _use(request: Request) -> None:
    """Uses the approval up, before the alias moves: after a rollback the same decision asks for a new one. Who gave it
    stays in the record of the decision.

    MLflow cannot compare and set. So each promotion adds a tag of its own and looks after a moment which others there
    are: the latest goes on, and the others raise GateError, as does one that finds the approval gone. This holds as
    long as no request of the one that goes on takes longer than that moment; else two may use one approval, as if it
    had been given twice. The tag of one that was killed is older than that of the next, which takes it away.
    """
    from components.tracking import registry

    version = request.version
    given, asked_for, used = (tag_of(kind, request.alias, request.code) for kind in (GIVEN, ASKED, USED))
    own = f"{used}.{time.time_ns()}.{uuid.uuid4().hex[:8]}"
    registry.tag_version(version, {own: "now"})
    time.sleep(MOMENT)
    found = registry.require_version(version.name, version=int(version.version)).tags
    takers = sorted(key for key in found if key.startswith(f"{used}."))
    is_ours = takers[-1:] == [own] and given in found
    for tag in (given, asked_for, *takers) if is_ours else (own,):
        if tag in found:
            registry.untag_version(version, tag)
    if not is_ours:
        raise GateError(
            f"another promotion used the approval of decision {request.code} at the same time. Promote again; that "
            "asks for a new one where it is still needed."
        )


def _tags(version: "ModelVersion") -> dict[str, str]:
    """Of today; none while the server is away, through which lives who waits for hours."""
    from components.tracking import registry
    from components.tracking.connection import AwayError

    try:
        found = registry.find_version(version.name, version=int(version.version))
    except AwayError:
        return {}
    return {} if found is None else dict(found.tags)

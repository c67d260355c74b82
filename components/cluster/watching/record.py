"""What a launcher must not forget of a job when it is killed: kept in an annotation of the job.

The training operator counts no restarts and keeps no time. A pod that is started again has the same name and another
uid, so uids tell; and a job that Kueue suspends has other pods afterwards, which is no restart.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from components.cluster.backend import Object

RECORD_ANNOTATION = "dual-hrnet/record"


@dataclass(frozen=True)
class Record:
    """pods: uid of each pod by its name, as it was last seen. restarts: of each pod by its name. queued: seconds that
    the job was suspended until its last resumption. queued_since: of a job that is suspended, RFC 3339.
    """

    pods: Mapping[str, str] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    queued: float = 0.0
    queued_since: str | None = None

    @classmethod
    def of(cls, job: Object) -> "Record":
        """That a job carries; an empty one where it carries none that can be read."""
        try:
            return cls(**json.loads(job["metadata"]["annotations"][RECORD_ANNOTATION]))
        except (KeyError, TypeError, ValueError):
            return cls()

    def annotations(self) -> dict[str, str]:
        """Those that a job carries it in."""
        return {RECORD_ANNOTATION: json.dumps(self.__dict__, sort_keys=True)}

    def seen(self, pods: Sequence[Object]) -> "Record":
        """After these pods were seen: a known name with another uid is a restart."""
        known, restarts = dict(self.pods), dict(self.restarts)
        for pod in pods:
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            if known.get(name, uid) != uid:
                restarts[name] = restarts.get(name, 0) + 1
            known[name] = uid
        return self if known == self.pods else replace(self, pods=known, restarts=restarts)

    def suspended(self, now: datetime) -> "Record":
        """While the job is suspended: its pods are gone, and those of its resumption are new ones."""
        if self.queued_since is not None:
            return self
        return replace(self, pods={}, queued_since=now.isoformat())

    def resumed(self, now: datetime) -> "Record":
        """While it is not."""
        if self.queued_since is None:
            return self
        return replace(self, queued=self.queued + _seconds(self.queued_since, now), queued_since=None)

    def most_restarts(self) -> int:
        """How often the pod was started again that was most often: one lost node restarts all pods of the job."""
        return max(self.restarts.values(), default=0)

    def active_seconds(self, job: Object, now: datetime) -> float:
        """Since the job was created, but for the time that it was suspended."""
        queued = self.queued if self.queued_since is None else self.queued + _seconds(self.queued_since, now)
        return _seconds(job["metadata"]["creationTimestamp"], now) - queued


def now() -> datetime:
    """In UTC, as the API tells times."""
    return datetime.now(UTC)


def _seconds(start: Any, end: datetime) -> float:
    return (end - datetime.fromisoformat(start)).total_seconds()

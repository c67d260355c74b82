"""What a kind of training job is to the launcher: its objects, and what they tell of how the training stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from components.cluster.api import Api, Resource
from components.cluster.job import KindName, TrainingJob

Object = Mapping[str, Any]  # of Kubernetes, as JSON
Phase = Literal["unclaimed", "queued", "starting", "running", "restarting", "succeeded", "failed"]


@dataclass(frozen=True)
class Seen:
    """All that is known of a job at one time.

    job: the object itself. pods: of the job. others: what `Backend.others` names and is there. events: on the job and
    on the others.
    """

    job: Object
    pods: Sequence[Object] = ()
    others: Sequence[Object] = ()
    events: Sequence[Object] = ()


@dataclass(frozen=True)
class State:
    """How a job stands.

    phase: unclaimed: no operator has taken it; queued: suspended, until there is quota; starting: its pods wait for a
    node, an image or their containers. message: the operator's words, or empty. restarts: how often the training was
    started again, where the objects tell it; else the launcher counts pods. ended: RFC 3339, of succeeded and failed.
    """

    phase: Phase
    message: str = ""
    restarts: int | None = None
    ended: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job has succeeded or failed."""
        return self.phase in ("succeeded", "failed")


class Backend(Protocol):
    """A kind of training job.

    kind: as `cluster.kind` names it. operator: what runs such jobs, in words. resource: of the object that is the job.
    container: of its pods. propagation: how it is deleted; the job's name is free again when the object and its pods
    are gone.
    """

    kind: KindName
    operator: str
    resource: Resource
    container: str
    propagation: Literal["Foreground", "Background"]

    def longest_name(self, job: TrainingJob) -> int:
        """How many characters a job's name can have, so that those of its pods and services are not too long."""

    def check(self, job: TrainingJob) -> None:
        """Raises JobError, naming the parameter, where the kind cannot do what the job asks for."""

    def manifests(self, job: TrainingJob) -> list[dict[str, Any]]:
        """The objects to apply, in this order; the job itself is the last."""

    def others(self, name: str) -> list[tuple[Resource, str]]:
        """Further objects, by their names, that tell how the job of that name stands."""

    def pods(self, name: str) -> dict[str, str]:
        """Labels of the pods of the job of that name."""

    def first_pod(self, name: str) -> dict[str, str]:
        """Labels of its pod that runs rank 0."""

    def state(self, seen: Seen) -> State:
        """How the job stands."""

    def settle(self, api: Api, job: Object) -> None:
        """Does what the operator leaves undone with a job that has failed and whose logs have been read.

        Raises JobError.
        """

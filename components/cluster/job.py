"""A training job in a cluster, whatever runs it there."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from base.errors import InputError
from components.params import ClusterParams


class JobError(InputError):
    """A training job that cannot be started, that failed, or that cannot be watched."""


class PodReference(NamedTuple):
    """A pod of the job's namespace."""

    name: str
    uid: str


@dataclass(frozen=True)
class TrainJob:
    """Training in containers.

    name: of the job, one for each run in a namespace. arguments: of `components.train`. environment: variables of the
    processes, beside and before those of the section `cluster`. references: further entries of the containers' `env`,
    whose values lie in the cluster. labels: of the job and its pods. owner: the pod that launches; Kubernetes deletes
    the job when that pod is deleted.
    Raises JobError where Kubernetes would refuse the name.
    """

    name: str
    namespace: str
    image: str
    arguments: Sequence[str]
    cluster: ClusterParams
    environment: Mapping[str, str] = field(default_factory=dict)
    references: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: PodReference | None = None

    def __post_init__(self) -> None:
        # NAME-worker-12 names a pod and a service, which have 63 characters.
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", self.name):
            raise JobError(
                f"{self.name!r} cannot name a job. Take up to 50 lower-case letters, digits and -, a letter first "
                "and no - at the end."
            )


@dataclass(frozen=True)
class Finished:
    """A job that succeeded, and when it was created and ended: RFC 3339 in UTC."""

    name: str
    namespace: str
    uid: str
    created: str
    ended: str

"""A training job in a cluster, whatever runs it there: the section `cluster` of params.yaml, and the job itself."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from base.errors import InputError

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
Count = Annotated[int, Field(ge=1)]
# Of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ what sizes are written in.
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*([KMGT]i?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Toleration(BaseModel):
    """A taint of nodes that the pods put up with, as Kubernetes spells it."""

    model_config = _STRICT
    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ClusterParams(BaseModel):
    """Each node of a job is a pod with these resources, all of its own.

    devices_per_node: GPUs, each with a process of its own. device_resource: their name in Kubernetes; null trains on
    CPUs, in that many processes; no devices train on CPUs, in one. cpu: cores. shared_memory: size of /dev/shm, which
    NCCL and the readers of crops use, and which counts as memory. scratch: the node's disk, for the copy of the data.
    node_selector, tolerations, service_account: of the pods. environment: variables of the processes. secrets: names
    of Kubernetes secrets whose keys become variables. restarts: how often pods that were preempted are started
    again. ttl_seconds: how long an ended job is kept. deadline_seconds: time from the start after which the job fails.
    gang_scheduling: start no pod before there is room for all. elastic_min_nodes: go on with as few nodes when some
    are lost; null needs them all.
    """

    model_config = _STRICT
    nodes: Count
    devices_per_node: int = Field(ge=0)
    device_resource: str | None = Field(min_length=1)
    cpu: Count
    memory: Size
    shared_memory: Size
    scratch: Size
    node_selector: dict[str, str]
    tolerations: list[Toleration]
    service_account: Name | None
    environment: dict[Variable, str]
    secrets: list[Name]
    restarts: int = Field(ge=0)
    ttl_seconds: int = Field(ge=0)
    deadline_seconds: Count
    gang_scheduling: bool
    elastic_min_nodes: Count | None

    @field_validator("elastic_min_nodes")
    @classmethod
    def _can_shrink(cls, least: int | None, info: ValidationInfo) -> int | None:
        nodes = info.data.get("nodes", 0)
        if least is not None and not 2 <= nodes >= least:
            raise ValueError(f"expected null, or at least two nodes and no more than there are ({nodes})")
        return least

    @property
    def processes_per_node(self) -> int:
        """Processes of the training on each node."""
        return max(1, self.devices_per_node)


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
    processes, beside and before those of the section `cluster`. labels: of the job and its pods. owner: the pod that
    launches; Kubernetes deletes the job when that pod is deleted.
    Raises JobError where Kubernetes would refuse the name.
    """

    name: str
    namespace: str
    image: str
    arguments: Sequence[str]
    cluster: ClusterParams
    environment: Mapping[str, str] = field(default_factory=dict)
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

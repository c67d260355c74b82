"""A training job in a cluster, whatever kind of object runs it there."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from base.errors import InputError
from components.params import ClusterParams

CONTENT_ANNOTATION = "dual-hrnet/content"  # a hash, by which a launcher knows a job that does the same
# The ids of the pipeline runs that wanted the job, in that order. Its pods, and so the training's run in MLflow, carry
# that of the first one, even where only others still wait for it.
RUNS_ANNOTATION = "dual-hrnet/runs"
OUTPUT_LABEL = "dual-hrnet/output"  # a hash of the location that the job writes to
RUN_LABEL = "dual-hrnet/pipeline-run"  # the id of the pipeline run that asked for the job last
RUN_PAGE = "/#/runs/details/"  # of a pipeline run, by its id, behind the address of Kubeflow's UI
OWN_LABELS = {"app.kubernetes.io/name": "dual-hrnet"}  # of all jobs and pods of ours

KindName = Literal["pytorchjob", "trainjob"]


class JobError(InputError):
    """A training job that cannot be started, that failed, or that cannot be watched."""


class Owner(NamedTuple):
    """An object of the job's namespace, such as the Workflow of a pipeline run. Kubernetes deletes a job when the last
    of its owners is deleted.
    """

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> dict[str, str]:
        """As it stands in `metadata.ownerReferences`."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid}


@dataclass(frozen=True)
class TrainingJob:
    """Training in containers.

    name: of the job, one for each run in a namespace. arguments: of `components.train`. output: the location that they
    name, which two jobs must not write to at a time. environment: variables of the processes, beside and before those
    of the section `cluster`. references: further entries of the containers' `env`, whose values lie in the cluster,
    such as secretKeyRef, and `env_from`: the same of their `envFrom`. labels: of the job and its pods. owner: whoever
    waits for the job.
    """

    name: str
    namespace: str
    image: str
    arguments: Sequence[str]
    output: str
    cluster: ClusterParams
    environment: Mapping[str, str] = field(default_factory=dict)
    references: Sequence[Mapping[str, Any]] = ()
    env_from: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: Owner | None = None

    def content(self) -> str:
        """A hash of all that the job does, without its name, labels and owner: another pipeline run that wants the same
        training has another owner and another label.
        """
        described = {
            "image": self.image,
            "arguments": list(self.arguments),
            "cluster": self.cluster.model_dump(mode="json", exclude={"steps"}),
            # The run of MLflow that a platform makes for each pipeline run is not what is trained.
            "environment": {name: value for name, value in self.environment.items() if name != "MLFLOW_RUN_ID"},
            "references": list(self.references),
            "env_from": list(self.env_from),
        }
        return _hash(described)

    def pod_labels(self) -> dict[str, str]:
        """Labels of the job's pods."""
        return {**OWN_LABELS, **self.labels}

    def metadata(self) -> dict[str, Any]:
        """Of the object that is the job."""
        labels = {**self.pod_labels(), OUTPUT_LABEL: _hash(self.output.rstrip("/"))[:16]}
        # Kueue suspends an object with such a label when it is created, and lets it go when there is quota.
        if self.cluster.queue is not None:
            labels["kueue.x-k8s.io/queue-name"] = self.cluster.queue
        if self.cluster.priority is not None:
            labels["kueue.x-k8s.io/priority-class"] = self.cluster.priority
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": self.namespace,
            "labels": labels,
            "annotations": {CONTENT_ANNOTATION: self.content()},
        }
        if RUN_LABEL in self.labels:
            metadata["annotations"][RUNS_ANNOTATION] = self.labels[RUN_LABEL]
        if self.owner is not None:
            metadata["ownerReferences"] = [self.owner.reference()]
        return metadata


def runs_of(job: Mapping[str, Any]) -> list[str]:
    """The ids of the pipeline runs that wanted a job of the API, the first of which created it."""
    annotations: Mapping[str, str] = job["metadata"].get("annotations", {})
    return annotations.get(RUNS_ANNOTATION, "").split()


@dataclass(frozen=True)
class Finished:
    """A job that succeeded, and when it was created and ended: RFC 3339 in UTC."""

    name: str
    namespace: str
    uid: str
    created: str
    ended: str


def check_name(name: str, longest: int) -> None:
    """Raises JobError where a name cannot name a job whose names have up to `longest` characters."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > longest:
        raise JobError(
            f"{name!r} cannot name a job. Take up to {longest} lower-case letters, digits and -, a letter first and no "
            "- at the end."
        )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

"""What the launcher's own pod tells: who waits for the job, and which credentials and servers its containers have.

A platform may inject variables into the steps of a pipeline (a plugin of Kubeflow Pipelines for MLflow, a webhook of a
cloud): the training's pods get the same ones, as references where the values are secret.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.cluster import certificates
from components.cluster.api import PODS, Api
from components.cluster.check import is_secret
from components.cluster.job import JobError, Owner
from components.cluster.owners import owner_of_pod
from components.cluster.pods import SECRETS

COPIED = re.compile(r"(MLFLOW|AWS)_")
# Of the pod's service account, whose token is a file of that pod.
OF_THE_POD = re.compile(r"AWS_(ROLE|WEB_IDENTITY|CONTAINER)_")
A_FILE = re.compile(r"_(FILE|PATH|BUNDLE)$")
CONTAINER = "main"  # of Argo's pods


@dataclass(frozen=True)
class Surroundings:
    """owner: of jobs that this pod launches. environment, references, env_from: as `TrainingJob` takes them."""

    owner: Owner
    environment: Mapping[str, str] = field(default_factory=dict)
    references: list[dict[str, Any]] = field(default_factory=list)
    env_from: list[dict[str, Any]] = field(default_factory=list)


def read_surroundings(api: Api, pod: str) -> Surroundings:
    """Those of a launcher in the pod of that name. Raises JobError."""
    found = api.get(PODS, pod)
    if found is None:
        raise JobError(f"{api.namespace}/{pod}: the launcher's own pod is not there. Is POD_NAMESPACE right?")
    containers = found["spec"]["containers"]
    own = next((each for each in containers if each["name"] == CONTAINER), containers[0])
    environment: dict[str, str] = {}
    references = []
    for entry in own.get("env") or []:
        name, source = entry["name"], entry.get("valueFrom") or {}
        if not (COPIED.match(name) or name in certificates.ALL) or OF_THE_POD.match(name) or "fieldRef" in source:
            continue
        value = entry.get("value", "")
        if A_FILE.search(name) and (volume := _volume_of(value, own, found["spec"])):
            if value != certificates.FILE:  # which every job has where the steps do
                _warn_of_file(name, value, volume)
        elif source:
            if source.get("secretKeyRef", {}).get("name") not in SECRETS:  # which every job has anyway
                references.append({"name": name, "valueFrom": source})
        elif is_secret(name, value):
            print(
                f"warning: {name} is plain text in this pod, and is not given to the training. Put it into a "
                "Kubernetes secret, and name that in cluster.secrets.",
                file=sys.stderr,
            )
        else:
            environment[name] = value
    env_from = [entry for entry in own.get("envFrom") or [] if entry.get("secretRef", {}).get("name") not in SECRETS]
    return Surroundings(owner_of_pod(found), environment, references, env_from)


def _volume_of(path: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The volume that holds a file of the container; None for one of the image, which the training's pods have, too."""
    for mount in container.get("volumeMounts") or []:
        if f"{path}/".startswith(f"{mount['mountPath'].rstrip('/')}/"):  # or by itself, as a subPath of the volume
            volumes: list[dict[str, Any]] = pod["volumes"]
            return next(volume for volume in volumes if volume["name"] == mount["name"])
    return None


def _warn_of_file(name: str, path: str, volume: Mapping[str, Any]) -> None:
    config_map = volume.get("configMap", {}).get("name")
    remedy = certificates.REMEDY if name in certificates.ALL else "Name a secret with what it holds in cluster.secrets"
    print(
        f"warning: {name}: {path} lies in {f'the config map {config_map}' if config_map else 'a volume'} of this pod, "
        f"which the training's pods do not have. {remedy}.",
        file=sys.stderr,
    )

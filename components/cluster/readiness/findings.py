"""Whether a cluster has what a run needs, asked before the first one: kinds, rights, secrets, levels and queues."""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from components.cluster import certificates
from components.cluster.api import Api, Resource
from components.cluster.check import any_job
from components.cluster.choose import of_kind
from components.cluster.job import JobError
from components.cluster.pods import SECRETS
from components.cluster.pytorchjob.manifest import RESOURCE as PYTORCHJOBS
from components.cluster.trainjob.manifest import JOB as TRAINJOBS
from components.cluster.trainjob.state import JOBSET as JOBSETS
from components.cluster.workflow import WORKFLOWS
from components.params import ClusterParams

ACCOUNTS = ("pipeline-runner", "default-editor")  # of the steps: without user profiles, and with them
OPTIONAL = {"dual-hrnet-mlflow": "none, so MLflow is asked without a password"}
PAIR = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
LEVEL = "pod-security.kubernetes.io/enforce"
OPERATORS = "kubeflow"  # namespace of the training operator
OPERATOR_KINDS = {"pytorchjob": (PYTORCHJOBS,), "trainjob": (TRAINJOBS, JOBSETS)}


class Right(NamedTuple):
    """What a service account may do.

    verbs: on the resource, which is a plural name, with its subresource if any. group: of the API, empty for pods and
    the like. needs: the kind that a cluster must have for the right to be used, if any.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    needs: Resource | None = None


# All that this code asks the Kubernetes API for. The role of deploy/launcher grants this and no more.
RIGHTS = (
    Right("", "pods", ("get", "list", "watch")),
    Right("", "pods/log", ("get",)),
    Right("", "events", ("list",)),
    Right("argoproj.io", "workflows", ("get",)),
    Right("kueue.x-k8s.io", "workloads", ("list",)),
    Right("kubeflow.org", "pytorchjobs", ("create", "delete", "get", "list", "patch", "watch"), PYTORCHJOBS),
    Right("kubeflow.org", "pytorchjobs/status", ("patch",), PYTORCHJOBS),
    # A launcher looks for jobs that write to its output among those of each kind that the cluster has.
    Right("trainer.kubeflow.org", "trainjobs", ("create", "delete", "get", "list", "patch", "watch"), TRAINJOBS),
    Right("trainer.kubeflow.org", "trainingruntimes", ("create", "get", "patch"), TRAINJOBS),
    Right("jobset.x-k8s.io", "jobsets", ("get", "list", "watch"), TRAINJOBS),
)


@dataclass(frozen=True)
class Finding:
    """holds: whether something is as a run needs it; None where the API does not let us ask. remedy: what to do."""

    what: str
    holds: bool | None
    found: str
    remedy: str = ""


def look(api: Api, cluster: ClusterParams, account: str | None) -> Iterator[Finding]:
    """One finding after the other on the namespace of `api`, for the service account of the steps.

    account: None for the first of ACCOUNTS that is there. Raises JobError where the API cannot be reached at all.
    """
    yield Finding("Kubernetes", True, str(api.read("/version")["gitVersion"]))
    yield from _asked("namespace", _namespace, api)
    yield from _asked("Argo Workflows", _kind, api, WORKFLOWS, "Install Kubeflow Pipelines 2.17.")
    yield from _asked("training jobs", _operators, api, cluster)
    yield from _asked("Pod Security", _level, api)
    account = account or next((name for name in ACCOUNTS if _is_there(api, "ServiceAccount", name)), ACCOUNTS[0])
    yield from _asked("service account", _account, api, account)
    for right in RIGHTS:
        if right.needs is None or api.serves(right.needs):
            yield from _asked(f"{account} on {right.resource}", _right, api, account, right)
    without_keys: dict[str, tuple[str, ...]] = dict.fromkeys([*cluster.secrets, *cluster.image_pull_secrets], ())
    for name, keys in {**without_keys, **SECRETS}.items():
        yield from _asked(f"secret {name}", _secret, api, name, keys)
    if cluster.certificates is not None:
        yield from _asked(f"config map {cluster.certificates}", _certificates, api, cluster.certificates)
    if cluster.queue is not None:
        yield from _asked(f"queue {cluster.queue}", _queue, api, cluster.queue)


def ask_service(api: Api, name: str, namespace: str, port: int, path: str) -> str:
    """What a service answers to a GET by HTTP, through the API server, from within the cluster. Raises JobError, also
    where the service has no such path, or nobody behind it.
    """
    answer = api.read(f"/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy{path}")
    if answer is None:
        raise JobError(f"service {name} of {namespace}, port {port}: has nothing at {path} (HTTP 404).")
    return str(answer).strip()


def _asked(what: str, ask: Callable[..., Finding | Iterable[Finding]], *given: Any) -> Iterator[Finding]:
    try:
        answer = ask(*given)
        yield from [answer] if isinstance(answer, Finding) else answer
    except JobError as error:
        yield Finding(what, None, str(error), "Let somebody ask who may.")


def _namespace(api: Api) -> Iterator[Finding]:
    what = f"namespace {api.namespace}"
    if api.read(f"/api/v1/namespaces/{api.namespace}") is None:
        yield Finding(what, False, "not there", "Make the profile, or install Kubeflow Pipelines; see --namespace.")
    else:
        yield Finding(what, True, "there")


def _kind(api: Api, resource: Resource, remedy: str) -> Finding:
    what = f"{resource.kind} ({resource.api_version})"
    return Finding(what, True, "served") if api.serves(resource) else Finding(what, False, "not served", remedy)


def _operators(api: Api, cluster: ClusterParams) -> Iterator[Finding]:
    """The kinds that `cluster.kind` needs; for auto those of the operators that are there, or of the first."""
    wanted = [cluster.kind] if cluster.kind != "auto" else list(OPERATOR_KINDS)
    there = [kind for kind in wanted if api.serves(OPERATOR_KINDS[kind][0])]
    for kind in there or wanted[:1]:
        remedy = f"Install {of_kind(kind).operator}, or name another cluster.kind."
        yield from (_kind(api, resource, remedy) for resource in OPERATOR_KINDS[kind])
    try:
        if there:
            of_kind(there[0]).check(any_job(cluster))
    except JobError as error:
        yield Finding(f"section cluster as a {there[0]}", False, str(error), "No run of these parameters could train.")


def _level(api: Api) -> Iterator[Finding]:
    """Pods of ours comply with every level; the container that the training operator adds only when it was told to."""
    namespace = api.read(f"/api/v1/namespaces/{api.namespace}") or {"metadata": {}}
    level = (namespace["metadata"].get("labels") or {}).get(LEVEL, "privileged")
    yield Finding("Pod Security", True, level)
    if level == "restricted" and api.serves(PYTORCHJOBS):
        path = f"/api/v1/namespaces/{OPERATORS}/configmaps/pytorch-init-container"
        yield Finding(
            "the operator's container",
            api.read(path) is not None,
            f"configmap {OPERATORS}/pytorch-init-container",
            "Without it every worker is refused: apply deploy/training-operator, and patch the operator.",
        )


def _is_there(api: Api, kind: str, name: str) -> bool:
    try:
        return api.get(Resource("v1", kind), name) is not None
    except JobError:
        return False


def _account(api: Api, account: str) -> Finding:
    there = api.get(Resource("v1", "ServiceAccount"), account) is not None
    remedy = "Name that of the steps by --service-account."
    return Finding(f"service account {account}", there, "there" if there else "not there", remedy)


def _right(api: Api, account: str, right: Right) -> Finding:
    missing = [verb for verb in right.verbs if not _may(api, account, right, verb)]
    what = f"{account} on {right.resource}"
    if not missing:
        return Finding(what, True, ", ".join(right.verbs))
    remedy = "kubectl apply -k deploy/base; without user profiles deploy/standalone, too."
    return Finding(what, False, f"may not {', '.join(missing)}", remedy)


def _may(api: Api, account: str, right: Right, verb: str) -> bool:
    """Asks for the namespace alone, which its administrator may, too. Raises JobError."""
    resource, _, subresource = right.resource.partition("/")
    attributes = {"namespace": api.namespace, "verb": verb, "group": right.group, "resource": resource}
    review = api.create(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": api.namespace},
            "spec": {
                "user": f"system:serviceaccount:{api.namespace}:{account}",
                "groups": [
                    "system:serviceaccounts",
                    f"system:serviceaccounts:{api.namespace}",
                    "system:authenticated",
                ],
                "resourceAttributes": {**attributes, "subresource": subresource},
            },
        }
    )
    return bool(review and review["status"]["allowed"])


def _secret(api: Api, name: str, keys: Iterable[str]) -> Finding:
    what = f"secret {name}"
    secret = api.get(Resource("v1", "Secret"), name)
    if secret is None:
        remedy = f"kubectl -n {api.namespace} create secret generic {name} --from-literal=KEY=VALUE (docs/cluster.md)."
        return Finding(what, name in OPTIONAL, OPTIONAL.get(name, "not there"), remedy)
    data: Mapping[str, Any] = secret.get("data") or {}
    there = [key for key in keys if key in data]
    wanted: Iterable[str] = keys
    if name in OPTIONAL:  # a server wants some of the keys, and a user and a password only together
        wanted = PAIR if any(key in data for key in PAIR) else there or [" or ".join(keys)]
    bad = [key for key in wanted if key not in data]
    bad += [key for key in keys if data.get(key) == ""]
    # A line end that `echo` has put behind a value is part of it, and S3 answers 403.
    bad += [f"{key} ends with a line end" for key in keys if base64.b64decode(data.get(key, "")).endswith(b"\n")]
    if bad:
        return Finding(what, False, f"wrong or missing: {', '.join(bad)}", f"Correct it: kubectl edit secret {name}.")
    return Finding(what, True, ", ".join(there) or "there")


def _certificates(api: Api, name: str) -> Finding:
    found = api.get(Resource("v1", "ConfigMap"), name)
    file = ((found or {}).get("data") or {}).get(certificates.KEY, "")
    if "BEGIN CERTIFICATE" in file:
        return Finding(f"config map {name}", True, certificates.KEY)
    remedy = f"kubectl -n {api.namespace} create configmap {name} --from-file={certificates.KEY} (docs/cluster.md)."
    text = "not there" if found is None else f"has no {certificates.KEY} with certificates"
    return Finding(f"config map {name}", False, text, remedy)


def _queue(api: Api, name: str) -> Finding:
    what = f"queue {name}"
    version = api.version_of("kueue.x-k8s.io")
    if version is None:
        return Finding(what, False, "the cluster has no Kueue", "Install Kueue, or set cluster.queue to null.")
    queue = api.get(Resource(version, "LocalQueue"), name)
    if queue is None:
        return Finding(what, False, "no LocalQueue of that name", "Correct cluster.queue, or make the LocalQueue.")
    for condition in queue.get("status", {}).get("conditions") or []:
        if condition["type"] == "Active" and condition["status"] == "False":
            return Finding(what, False, str(condition.get("message")), "Its ClusterQueue has to be there and active.")
    return Finding(what, True, "there")

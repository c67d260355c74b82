"""Who waits for a job: its owners are the Workflows of the pipeline runs that do, and it goes with the last of them.

The job of a launcher in another pod belongs to that pod, and one that a person launched to nobody.
"""

import sys
from typing import Any

from components.cluster.api import PODS, Api, DeniedError
from components.cluster.backend import Backend, Object, Seen
from components.cluster.choose import there
from components.cluster.job import OWN_LABELS, RUN_LABEL, RUNS_ANNOTATION, Owner, runs_of
from components.cluster.workflow import WORKFLOWS, workflow_of
from components.tracking.lineage import with_run

ENDED = ("Succeeded", "Failed", "Error")


def owner_of_pod(pod: Object) -> Owner:
    """The Workflow that a pod is a step of, else the pod itself."""
    for reference in pod["metadata"].get("ownerReferences") or []:
        if reference["kind"] == WORKFLOWS.kind:
            return Owner(reference["apiVersion"], reference["kind"], reference["name"], reference["uid"])
    return Owner(PODS.api_version, PODS.kind, pod["metadata"]["name"], pod["metadata"]["uid"])


def has_given_up(api: Api, owner: Owner) -> bool:
    """Whether nobody wants the job of this owner any more, whose launcher is asked to stop.

    A launcher's pod that is evicted, drained or deleted is started again by its Workflow, and finds the job running. A
    Workflow that a person ended (Kubeflow sets a deadline that is over, Argo's own commands `shutdown`), or that has
    ended by itself, is not. Any other owner is the launcher itself. Raises JobError.
    """
    if owner.kind != WORKFLOWS.kind:
        return True
    workflow = api.get(WORKFLOWS, owner.name)
    if workflow is None or workflow["metadata"]["uid"] != owner.uid or "deletionTimestamp" in workflow["metadata"]:
        return True
    return workflow_of(workflow).is_stopped or workflow.get("status", {}).get("phase") in ENDED


def add(api: Api, backend: Backend, job: Object, owner: Owner | None, labels: dict[str, str]) -> bool:
    """Makes an owner one of the job's, and gives it labels; the run that these name is one that wanted the job.

    False where the job has changed or is gone: look again.
    """
    owners = _references(job)
    if owner is not None and owner.uid not in [each["uid"] for each in owners]:
        owners.append(owner.reference())
    metadata = job["metadata"]
    if owners == _references(job) and labels.items() <= metadata.get("labels", {}).items():
        return True
    change = {"labels": labels, "ownerReferences": owners, "resourceVersion": metadata["resourceVersion"]}
    if RUN_LABEL in labels:
        change["annotations"] = {RUNS_ANNOTATION: " ".join(with_run(runs_of(job), labels[RUN_LABEL]))}
    return api.patch(backend.resource, metadata["name"], {"metadata": change})


def remove(api: Api, backend: Backend, job: Object, uid: str | None) -> bool:
    """Takes an owner from the job, and deletes the job where no other is left; whether it is gone.

    uid: of the owner; None for a launcher outside of the cluster, whose job has none. Raises JobError.
    """
    current: Object | None = job
    while current is not None and current["metadata"]["uid"] == job["metadata"]["uid"]:
        name, version = current["metadata"]["name"], current["metadata"]["resourceVersion"]
        others = [each for each in _references(current) if each["uid"] != uid]
        is_owned = len(others) < len(_references(current)) or uid is None
        if others and is_owned and uid is not None:
            change = {"metadata": {"ownerReferences": others, "resourceVersion": version}}
            try:
                if api.patch(backend.resource, name, change):
                    return False
            except DeniedError as error:  # it goes with the others all the same
                print(f"warning: {api.namespace}/{name}: keeps an owner that has ended: {error}", file=sys.stderr)
                return False
        elif others or not is_owned:
            return False
        elif api.delete(backend.resource, name, backend.propagation, current["metadata"]["uid"], version):
            print(f"{api.namespace}/{name}: deleted", file=sys.stderr, flush=True)
            return True
        current = api.get(backend.resource, name)  # somebody changed it meanwhile
    return True


def release(api: Api, workflow: str) -> list[str]:
    """Takes a Workflow from the owners of all jobs that have not ended; those that have keep their logs for a while.

    Returns the ids of the pipeline runs that wanted one of the Workflow's jobs. Raises JobError.
    """
    runs: dict[str, None] = {}
    for backend in there(api):
        jobs, _ = api.find(backend.resource, OWN_LABELS)
        for job in jobs:
            for owner in _references(job):
                if (owner["kind"], owner["name"]) != (WORKFLOWS.kind, workflow):
                    continue
                runs.update(dict.fromkeys(runs_of(job)))
                if not (backend.state(Seen(job)).is_over or "deletionTimestamp" in job["metadata"]):
                    remove(api, backend, job, owner["uid"])
    return list(runs)


def goes_on(api: Api, run: str) -> bool:
    """Whether a job that this pipeline run wanted has not ended, and is not being deleted. Raises JobError."""
    jobs = [(backend, job) for backend in there(api) for job in api.find(backend.resource, OWN_LABELS)[0]]
    return any(
        run in runs_of(job) and "deletionTimestamp" not in job["metadata"] and not backend.state(Seen(job)).is_over
        for backend, job in jobs
    )


def _references(job: Object) -> list[dict[str, Any]]:
    return [dict(each) for each in job["metadata"].get("ownerReferences") or []]

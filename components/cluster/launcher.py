"""Training as a job in Kubernetes, of whatever kind: it is created, watched to its end and told by how it ended.

The launcher can be killed and started again with the same arguments: it knows its job by a hash in an annotation and
goes on waiting. SIGTERM, by which a cancelled pipeline ends it, deletes the job, so that no GPU stays busy.
"""

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from base.errors import Preempted
from components.cluster.api import Api, JobPatience
from components.cluster.backend import Backend, Seen
from components.cluster.choose import choose, there
from components.cluster.job import CONTENT_ANNOTATION, Finished, JobError, TrainingJob
from components.cluster.watch import LogStream, failure, wait
from components.params import Params
from components.storage.locations import Location


def launch(job: TrainingJob) -> Finished:
    """Runs the job in the cluster of the kubeconfig or of this pod, waits for its end, and prints the logs of rank 0.

    A job of the same name and content is not created again. While it runs it is waited for, and becomes this job's
    owner's and gets its labels; one that succeeded under the same labels is the result; other ended ones are replaced.
    Call it in the main thread.
    Raises JobError where the job fails, is deleted by others, does not end in time, or where the API refuses;
    Preempted on SIGTERM and SIGINT, after the job was deleted.
    """
    api = Api(job.namespace, JobPatience())
    return run(job, api, choose(api, job.cluster))


def run(job: TrainingJob, api: Api, backend: Backend) -> Finished:
    """`launch` as a job of this kind, through an API that is open already."""
    backend.check(job)
    try:
        with _signals_raise():
            return _run(job, api, backend)
    except Preempted:
        with _signals_ignored():
            _delete_own(job, api, backend)
        raise


def delete_jobs(namespace: str, labels: Mapping[str, str]) -> None:
    """Deletes the jobs with these labels that have not ended; those that have keep their logs for a while.

    Raises JobError.
    """
    _delete_jobs(Api(namespace, JobPatience()), labels)


def train_arguments(params: Params, data: Sequence[Location], out: Location) -> list[str]:
    """Arguments of `components.train` for a container that has no parameter file."""
    return ["--params", params.model_dump_json(by_alias=True), "--data", *map(str, data), "--out", str(out)]


def _delete_jobs(api: Api, labels: Mapping[str, str]) -> None:
    for backend in there(api):
        jobs, _ = api.find(backend.resource, labels)
        for job in jobs:
            if not backend.state(Seen(job)).is_over:
                _delete(api, backend, job)
                print(f"{api.namespace}/{job['metadata']['name']}: deleted", file=sys.stderr, flush=True)


def _run(job: TrainingJob, api: Api, backend: Backend) -> Finished:
    current = _create_or_adopt(job, api, backend)
    uid = current["metadata"]["uid"]
    seconds = job.cluster.deadline_seconds + api.patience.overdue
    with LogStream(api, backend, job.name):
        ended = wait(api, backend, job.name, uid, seconds)
    if ended is None:
        _delete(api, backend, current)
        raise JobError(
            f"{job.namespace}/{job.name} has not ended {seconds:g} s after it was launched, and was deleted. Is the "
            "operator running? Else raise cluster.deadline_seconds."
        )
    state = backend.state(Seen(ended))
    if state.phase == "failed":
        raise failure(api, backend, ended)
    created = ended["metadata"]["creationTimestamp"]
    return Finished(job.name, job.namespace, uid, created, state.ended or created)


def _create_or_adopt(job: TrainingJob, api: Api, backend: Backend) -> dict[str, Any]:
    place = f"{job.namespace}/{job.name}"
    content = job.metadata()
    end = time.monotonic() + api.patience.gone
    while True:
        current = api.get(backend.resource, job.name)
        if current is None:
            *before, main = backend.manifests(job)
            for manifest in before:
                api.apply(manifest)
            created = api.create(main)
            if created is None:
                continue  # somebody was faster: perhaps this launcher, by a request whose answer was lost
            print(f"{place}: created", file=sys.stderr, flush=True)
            return created
        state = backend.state(Seen(current))
        if "deletionTimestamp" in current["metadata"]:
            if time.monotonic() > end:
                raise JobError(f"{place} is being deleted, and is not gone yet. Run the same command later.")
            time.sleep(api.patience.first_pause)
        elif not _is_own(current, content):
            raise JobError(f"{place} is the job of another run. Delete it, or choose another name.")
        elif state.phase == "failed" or (state.is_over and not _has_labels(current, content)):
            print(f"{place}: has ended before, and is replaced", file=sys.stderr, flush=True)
            _delete(api, backend, current)
        else:
            print(f"{place}: is there already, and is waited for", file=sys.stderr, flush=True)
            owners = content.get("ownerReferences", [])
            # The launcher before is gone or may go, and the job must not go with it.
            if current["metadata"].get("ownerReferences", []) != owners or not _has_labels(current, content):
                change = {"metadata": {"labels": content["labels"], "ownerReferences": owners}}
                api.patch(backend.resource, job.name, change)
            return current


def _has_labels(current: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    return bool(current["metadata"].get("labels", {}).items() >= content["labels"].items())


def _is_own(current: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    theirs = current["metadata"].get("annotations", {}).get(CONTENT_ANNOTATION)
    return bool(content["annotations"][CONTENT_ANNOTATION] == theirs)


def _delete(api: Api, backend: Backend, job: Mapping[str, Any]) -> None:
    api.delete(backend.resource, job["metadata"]["name"], backend.propagation, job["metadata"]["uid"])


def _delete_own(job: TrainingJob, api: Api, backend: Backend) -> None:
    """Deletes the job, if it was created and is not another's."""
    current = api.get(backend.resource, job.name)
    if current is not None and _is_own(current, job.metadata()):
        _delete(api, backend, current)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGINT interrupt whatever the block waits for."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted(f"{signal.Signals(number).name}: the training job was deleted. Run the same command to go on.")

    with _handler(stop):
        yield


@contextmanager
def _signals_ignored() -> Iterator[None]:
    with _handler(signal.SIG_IGN):
        yield


@contextmanager
def _handler(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)

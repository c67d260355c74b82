"""Training as a job in Kubernetes, of whatever kind: it is created, watched to its end and told by how it ended.

The launcher can be killed and started again with the same arguments: it knows its job by a hash in an annotation and
goes on waiting. SIGTERM, by which a cancelled pipeline ends it, deletes the job, so that no GPU stays busy, unless
another run waits for it, too, or the launcher itself is to be started again.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from base.errors import Preempted
from components.cluster import owners
from components.cluster.api import PODS, REMEDIES, Api, DeniedError, JobPatience, Resource
from components.cluster.backend import Backend, Object, Seen
from components.cluster.choose import choose, there, warn_of_gang
from components.cluster.job import (
    CONTENT_ANNOTATION,
    OUTPUT_LABEL,
    RUN_LABEL,
    RUN_PAGE,
    Finished,
    JobError,
    Owner,
    TrainingJob,
    runs_of,
)
from components.cluster.watching.logs import LogStream
from components.cluster.watching.wait import Wait
from components.params import Params
from components.storage.locations import Location

UNSEEN = "spec.runtimeRef"  # what Trainer refuses until it has seen a runtime that was made a moment ago
SHARED_BY_NOBODY = "Wait for its end, or delete it, and start this run again."
OnRuns = Callable[[Sequence[str]], object]


def launch(job: TrainingJob, on_runs: OnRuns = lambda runs: None) -> Finished:
    """Runs the job in the cluster of the kubeconfig or of this pod, waits for its end, and prints the logs of rank 0.

    A job that trains the same into the same output is not created again. While it runs it is waited for, and gets this
    job's owner and labels; one that succeeded under the same labels is the result; other ended ones are replaced. One
    that runs and trains something else into the same output is refused. Call it in the main thread.

    on_runs: told the ids of the pipeline runs that wanted the job so far, the first of which its pods carry.
    Raises JobError where the job fails, is deleted by others, is restarted too often, does not end in time, or where
    the API refuses; Preempted on SIGTERM and SIGINT, after this job's owner was taken from it (see `owners`).
    """
    api = Api(job.namespace, JobPatience())
    return run(job, api, choose(api, job.cluster), on_runs)


def run(job: TrainingJob, api: Api, backend: Backend, on_runs: OnRuns = lambda runs: None) -> Finished:
    """`launch` as a job of this kind, through an API that is open already."""
    backend.check(job)
    try:
        with _signals_raise():
            warn_of_gang(api, job.cluster)
            return _run(job, api, backend, on_runs)
    except _Signal as error:
        with _signals_ignored():
            raise Preempted(f"{error}: {_leave(job, api)}") from None


def release(namespace: str, workflow: str) -> list[str]:
    """At the end of a Workflow of that name: the jobs that it waits for no longer do, and are deleted where nobody else
    does. Its launcher does so, too, unless it is killed at once.

    Returns the ids of the pipeline runs that wanted one of these jobs. Raises JobError.
    """
    return owners.release(Api(namespace, JobPatience()), workflow)


def goes_on(namespace: str, run: str) -> bool:
    """Whether a job that this pipeline run wanted goes on, because another run waits for it, too.

    False, with a warning, where that cannot be asked.
    """
    try:
        return owners.goes_on(Api(namespace, JobPatience()), run)
    except JobError as error:
        print(f"warning: {error}", file=sys.stderr)
        return False


def train_arguments(
    params: Params, data: Sequence[Location], out: Location, raw_version: str | None = None
) -> list[str]:
    """Arguments of `components.train` for a container that has no parameter file and no repository."""
    known = [] if raw_version is None else ["--raw-version", raw_version]
    return ["--params", params.model_dump_json(by_alias=True), "--data", *map(str, data), "--out", str(out), *known]


def _run(job: TrainingJob, api: Api, backend: Backend, on_runs: OnRuns) -> Finished:
    backend, current = _create_or_adopt(job, api, backend)
    on_runs(runs_of(current))
    name, uid = current["metadata"]["name"], current["metadata"]["uid"]
    wait = Wait(api, backend, current, job.cluster)
    with LogStream(api, backend, name):
        ended, state = wait.run()
    if state.phase == "failed":
        error = wait.failure(state)
        try:
            backend.settle(api, ended)
        except JobError as refused:
            print(f"warning: {job.namespace}/{name} stays until somebody deletes it: {refused}", file=sys.stderr)
        raise error
    created = ended["metadata"]["creationTimestamp"]
    return Finished(name, job.namespace, uid, created, state.ended or created)


def _create_or_adopt(job: TrainingJob, api: Api, backend: Backend) -> tuple[Backend, Object]:
    """The job that trains what is asked for: one that is there, or a new one, and its kind."""
    end = time.monotonic() + api.patience.gone
    while True:
        found = _in_the_way(job, api, backend)
        if found is None:
            if left := _left_behind(job, api, backend):
                _wait_for_deletion(f"{job.namespace}/{left}", end, api)
                continue
            try:
                created = _create(job, api, backend)
            except DeniedError as error:
                _wait_to_be_seen(error, end, api, REMEDIES[422])
                continue
            if created is not None and _is_first(created, job, api, backend):
                return backend, created
            continue  # somebody was faster: perhaps this launcher, by a request whose answer was lost
        kind, current = found
        name = current["metadata"]["name"]
        place = f"{job.namespace}/{name}"
        state = kind.state(Seen(current))
        if "deletionTimestamp" in current["metadata"]:
            _wait_for_deletion(place, end, api)
        elif state.phase == "failed" or (state.is_over and not (_is_same(current, job) and _has_labels(current, job))):
            print(f"{place}: has ended before, and is replaced", file=sys.stderr, flush=True)
            api.delete(kind.resource, name, kind.propagation, current["metadata"]["uid"])
        elif not _is_same(current, job):
            raise JobError(_refusal(current, job))
        else:
            # First: a TrainJob without its runtime takes no change.
            _give_what_it_needs(replace(job, name=name), api, kind, current)
            try:
                if owners.add(api, kind, current, job.owner, job.pod_labels()):
                    print(f"{place}: is there already, and is waited for", file=sys.stderr, flush=True)
                    return kind, current
            except DeniedError as error:
                _wait_to_be_seen(error, end, api, f"{place} is there, but cannot be shared. {SHARED_BY_NOBODY}")


def _wait_for_deletion(place: str, end: float, api: Api) -> None:
    if time.monotonic() > end:
        raise JobError(f"{place} is being deleted, and is not gone yet. Run the same command later.")
    time.sleep(api.patience.first_pause)


def _wait_to_be_seen(error: DeniedError, end: float, api: Api, remedy: str) -> None:
    if UNSEEN not in str(error) or time.monotonic() > end:
        raise JobError(f"{error} {remedy}") from error
    time.sleep(api.patience.first_pause)


def _create(job: TrainingJob, api: Api, backend: Backend) -> Object | None:
    """The job, with what goes before it; None where its name is taken."""
    *before, main = backend.manifests(job)
    for manifest in before:
        api.apply(manifest)
    created = api.create(main)
    if created is None:
        return None
    print(f"{job.namespace}/{job.name}: created", file=sys.stderr, flush=True)
    _give_what_it_needs(job, api, backend, created)
    return created


def _give_what_it_needs(job: TrainingJob, api: Api, backend: Backend, current: Object) -> None:
    """Makes what goes before the job belong to it, so that it is collected with it and not with its first owner, and
    makes it again where somebody deleted it.
    """
    owner = Owner(*backend.resource, job.name, current["metadata"]["uid"]).reference()
    for manifest in backend.manifests(job)[:-1]:
        api.apply({**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}})


def _left_behind(job: TrainingJob, api: Api, backend: Backend) -> str:
    """An object of an earlier job of the name that is about to be collected; empty where all are gone."""
    # They may still write a checkpoint, and new ones have their names.
    for pod in api.find(PODS, backend.pods(job.name))[0]:
        return str(pod["metadata"]["name"])
    for resource, name in backend.others(job.name):
        if api.get(resource, name) is not None:
            return f"{name} ({resource.kind})"
    for resource in map(Resource.of, backend.manifests(job)[:-1]):
        kept = api.get(resource, job.name) or {"metadata": {}}
        if any(owner["kind"] == backend.resource.kind for owner in kept["metadata"].get("ownerReferences", [])):
            return f"{job.name} ({resource.kind})"
    return ""


def _is_first(created: Object, job: TrainingJob, api: Api, backend: Backend) -> bool:
    """Whether no other launcher has made a job for the same output at the same moment, under another name, before this
    one; else this one's job is deleted.
    """
    jobs = [each for kind in _kinds(api, backend) for each in _with_same_output(job, api, kind)]
    first = min(jobs, key=_age, default=created)
    if first["metadata"]["uid"] == created["metadata"]["uid"] or _age(created) < _age(first):
        return True
    api.delete(backend.resource, job.name, backend.propagation, created["metadata"]["uid"])
    return False


def _kinds(api: Api, backend: Backend) -> list[Backend]:
    """This kind, and the others that the cluster runs: they may train into the same output."""
    return [backend, *(other for other in there(api) if other.kind != backend.kind)]


def _in_the_way(job: TrainingJob, api: Api, backend: Backend) -> tuple[Backend, Object] | None:
    """A job that writes to the same output and has not ended, of any kind, else one of the same name."""
    for kind in _kinds(api, backend):
        for found in _with_same_output(job, api, kind):
            return kind, found
    named = api.get(backend.resource, job.name)
    return None if named is None else (backend, named)


def _with_same_output(job: TrainingJob, api: Api, backend: Backend) -> list[dict[str, Any]]:
    """Jobs of a kind that write to the same output and have not ended, the oldest first."""
    jobs, _ = api.find(backend.resource, {OUTPUT_LABEL: job.metadata()["labels"][OUTPUT_LABEL]})
    going_on = [each for each in jobs if not backend.state(Seen(each)).is_over]
    return sorted(going_on, key=_age)


def _age(job: Object) -> tuple[str, str]:
    return job["metadata"]["creationTimestamp"], job["metadata"]["uid"]


def _is_same(current: Object, job: TrainingJob) -> bool:
    return bool(current["metadata"].get("annotations", {}).get(CONTENT_ANNOTATION) == job.content())


def _has_labels(current: Object, job: TrainingJob) -> bool:
    return bool(current["metadata"].get("labels", {}).items() >= job.metadata()["labels"].items())


def _refusal(current: Object, job: TrainingJob) -> str:
    name, labels = current["metadata"]["name"], current["metadata"].get("labels", {})
    run = "no pipeline run"
    if RUN_LABEL in labels:
        run = f"pipeline run {labels[RUN_LABEL]} ({RUN_PAGE}{labels[RUN_LABEL]} in Kubeflow's UI)"
    does = "trains into another output"
    if labels.get(OUTPUT_LABEL) == job.metadata()["labels"][OUTPUT_LABEL]:
        does = f"trains into {job.output} by another image or other parameters"
    return (
        f"{job.namespace}/{name}, of {run}, {does}, and has not ended. Wait for its end, end it, or give this training "
        "another output and name."
    )


def _leave(job: TrainingJob, api: Api) -> str:
    """Takes the job's owner from it, as the launcher is asked to stop; says what becomes of the job."""
    api.patience = replace(api.patience, away=api.patience.farewell)
    try:
        if job.owner is not None and not owners.has_given_up(api, job.owner):
            return "the launcher ends, and the training job goes on. The same command waits for it again."
        uid = None if job.owner is None else job.owner.uid
        deleted = [
            owners.remove(api, kind, each, uid)
            for kind in there(api)
            for each in _with_same_output(job, api, kind)
            if _is_same(each, job)
        ]
    except JobError as error:
        return f"the training job may go on: {error}"
    if not all(deleted):
        return "the training job goes on, as another run waits for it."
    return "the training job was deleted. Run the same command to go on."


class _Signal(BaseException):
    """What a signal raises: no Exception, which a library may catch wherever the signal comes."""


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGINT interrupt whatever the block waits for; again each second, as Python forgets what is raised
    in a destructor, such as that of a connection.
    """
    asked: list[str] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(signal.Signals(number).name)
        signal.setitimer(signal.ITIMER_REAL, 1)
        raise _Signal(asked[0])

    with _handler(stop):
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    with _handler(signal.SIG_IGN):
        yield


@contextmanager
def _handler(handler: Any) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)  # the last one is the timer's
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)

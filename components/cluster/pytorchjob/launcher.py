"""Training as a PyTorchJob in Kubernetes: it is created, watched to its end and told by how it ended.

What is asked for is a `TrainJob`, which knows nothing of this API: whatever brings `launch(job) -> Finished` with the
same errors can take this module's place, such as one that creates the TrainJob of Kubeflow Trainer v2.

The launcher can be killed and started again with the same arguments: it knows its job by a hash in an annotation and
goes on waiting. SIGTERM, by which a cancelled pipeline ends it, deletes the job, so that no GPU stays busy.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from base.errors import Preempted
from components.cli import errors_in_one_line, read_params, step_parser
from components.cluster.job import Finished, JobError, PodReference, TrainJob
from components.cluster.pytorchjob.api import JobApi, JobPatience
from components.cluster.pytorchjob.manifest import CONTENT_ANNOTATION, manifest
from components.cluster.pytorchjob.watch import LogStream, end_of, failure, wait
from components.params import Params
from components.storage.locations import LOCATIONS, Location

__all__ = ["Finished", "JobError", "PodReference", "TrainJob", "delete_jobs", "launch", "manifest", "train_arguments"]


def launch(job: TrainJob) -> Finished:
    """Runs the job in the cluster of the kubeconfig or of this pod, waits for its end, and prints the logs of rank 0.

    A job of the same name and content is not created again. While it runs it is waited for, and becomes this job's
    owner's and gets its labels; one that succeeded under the same labels is the result; other ended ones are replaced.
    Call it in the main thread.
    Raises JobError where the job fails, is deleted by others, does not end in time, or where the API refuses;
    Preempted on SIGTERM and SIGINT, after the job was deleted.
    """
    return run(job, JobApi(job.namespace, JobPatience()))


def run(job: TrainJob, api: JobApi) -> Finished:
    """`launch` through an API that is open already."""
    content = manifest(job)
    try:
        with _signals_raise():
            return _run(job, content, api)
    except Preempted:
        with _signals_ignored():
            _delete_own(content, api)
        raise


def delete_jobs(namespace: str, labels: Mapping[str, str]) -> None:
    """Deletes the jobs with these labels that have not ended; those that have keep their logs for a while.

    Raises JobError.
    """
    _delete_jobs(JobApi(namespace, JobPatience()), labels)


def train_arguments(params: Params, data: Sequence[Location], out: Location) -> list[str]:
    """Arguments of `components.train` for a container that has no parameter file."""
    return ["--params", params.model_dump_json(by_alias=True), "--data", *map(str, data), "--out", str(out)]


def _delete_jobs(api: JobApi, labels: Mapping[str, str]) -> None:
    for job in api.labelled(labels):
        if end_of(job) is None:
            api.delete(job["metadata"]["name"], job["metadata"]["uid"])
            print(f"{api.namespace}/{job['metadata']['name']}: deleted", file=sys.stderr, flush=True)


def _run(job: TrainJob, content: dict[str, Any], api: JobApi) -> Finished:
    current = _create_or_adopt(job, content, api)
    uid = current["metadata"]["uid"]
    seconds = job.cluster.deadline_seconds + api.patience.overdue
    with LogStream(api, job.name):
        ended = wait(api, job.name, uid, seconds)
    if ended is None:
        api.delete(job.name, uid)
        raise JobError(
            f"{job.namespace}/{job.name} has not ended {seconds:g} s after it was launched, and was deleted. Is the "
            "training operator running? Else raise cluster.deadline_seconds."
        )
    if end_of(ended) == "Failed":
        raise failure(api, ended)
    created = ended["metadata"]["creationTimestamp"]
    return Finished(job.name, job.namespace, uid, created, ended["status"].get("completionTime", created))


def _create_or_adopt(job: TrainJob, content: dict[str, Any], api: JobApi) -> dict[str, Any]:
    place = f"{job.namespace}/{job.name}"
    end = time.monotonic() + api.patience.gone
    while True:
        current, _ = api.look(job.name)
        if current is None:
            created = api.create(content)
            if created is None:
                continue  # somebody was faster: perhaps this launcher, by a request whose answer was lost
            print(f"{place}: created", file=sys.stderr, flush=True)
            return created
        if "deletionTimestamp" in current["metadata"]:
            if time.monotonic() > end:
                raise JobError(f"{place} is being deleted, and is not gone yet. Run the same command later.")
            time.sleep(api.patience.first_pause)
        elif not _is_own(current, content):
            raise JobError(f"{place} is the job of another run. Delete it, or choose another name.")
        elif end_of(current) == "Failed" or (end_of(current) and not _has_labels(current, content)):
            print(f"{place}: has ended before, and is replaced", file=sys.stderr, flush=True)
            api.delete(job.name, current["metadata"]["uid"])
        else:
            print(f"{place}: is there already, and is waited for", file=sys.stderr, flush=True)
            owners = content["metadata"].get("ownerReferences", [])
            # The launcher before is gone or may go, and the job must not go with it.
            if current["metadata"].get("ownerReferences", []) != owners or not _has_labels(current, content):
                api.take_over(job.name, content["metadata"]["labels"], owners)
            return current


def _has_labels(current: dict[str, Any], content: dict[str, Any]) -> bool:
    return bool(current["metadata"].get("labels", {}).items() >= content["metadata"]["labels"].items())


def _is_own(current: dict[str, Any], content: dict[str, Any]) -> bool:
    ours, theirs = (job["metadata"].get("annotations", {}).get(CONTENT_ANNOTATION) for job in (content, current))
    return bool(ours == theirs)


def _delete_own(content: dict[str, Any], api: JobApi) -> None:
    """Deletes the job, if it was created and is not another's."""
    current, _ = api.look(content["metadata"]["name"])
    if current is not None and _is_own(current, content):
        api.delete(current["metadata"]["name"], current["metadata"]["uid"])


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


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the launcher."""
    import yaml

    parser = step_parser("pytorchjob", __doc__)
    parser.epilog = f"{LOCATIONS} The pods of the job see no paths of this machine."
    parser.add_argument("--name", required=True, help="of the job; another one for each run")
    parser.add_argument("--image", required=True, help="of this project, by its digest")
    parser.add_argument("--data", required=True, nargs="+", metavar="LOCATION", help="prepared scenes")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the model is written to LOCATION/model")
    parser.add_argument("--namespace", default="default", help="of Kubernetes")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest and create nothing")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        params = read_params(arguments)
        job = TrainJob(
            name=arguments.name,
            namespace=arguments.namespace,
            image=arguments.image,
            arguments=train_arguments(params, arguments.data, arguments.out),
            cluster=params.cluster,
        )
        if arguments.dry_run:
            # Through JSON, because YAML would write what is the same in two places as an anchor.
            print(yaml.safe_dump(json.loads(json.dumps(manifest(job))), sort_keys=False), end="")
            return
        try:
            finished = launch(job)
        except Preempted as error:
            print(error, file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
    print(f"{finished.namespace}/{finished.name} succeeded: {finished.created} to {finished.ended}")

"""Where a task of the graph trains: in processes of this machine, or as a job of the cluster."""

import os
import subprocess
import sys
from collections.abc import Sequence

from base.errors import InputError
from base.patience import VARIABLE as PATIENCE
from components.cluster.job import RUN_LABEL
from components.params import Params
from components.storage.locations import Location

SERVERS = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL")  # of the task, which its job uses, too
# The training's run in MLflow says which pipeline run it is of. By the label: the same training of another run is the
# same job.
RUN_ID = {"name": "RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{RUN_LABEL}']"}}}


class ServersError(InputError):
    """Servers that a task cannot use together."""


def use_servers(mlflow_uri: str, s3_endpoint: str) -> None:
    """Sets which servers this process and the ones it starts use; empty leaves what the environment says.

    Raises ServersError where a platform has made a run for this task in another MLflow, which this one does not know.
    """
    given = dict(zip(SERVERS, (mlflow_uri, s3_endpoint), strict=True))
    run, platforms = os.environ.get("MLFLOW_RUN_ID"), os.environ.get(SERVERS[0], "")
    if run and mlflow_uri and mlflow_uri != platforms:
        raise ServersError(
            f"mlflow_uri: found {mlflow_uri}, but MLFLOW_RUN_ID {run} is a run of {platforms or 'no MLflow named'}. "
            "Leave mlflow_uri out, or unset MLFLOW_RUN_ID."
        )
    os.environ.update({name: value for name, value in given.items() if value})


def check_cluster(params: Params) -> None:
    """Refuses, before data are prepared, what the kind of job that this cluster runs cannot do, and variables that name
    files which pods do not have. Call it in a pod of the pipeline. Raises JobError.
    """
    from components.cluster.api import Api, JobPatience
    from components.cluster.certificates import check_files
    from components.cluster.check import check_there

    check_files(params.cluster.environment)
    check_there(Api(os.environ["POD_NAMESPACE"], JobPatience()), params.cluster)


def train_here(
    params: Params, data: Sequence[str], out: Location, processes: int, raw_version: str | None = None
) -> None:
    """Training in so many processes of this machine; ends this process with the exit code of one that failed."""
    from components.cluster.launcher import train_arguments

    launch = ["-m", "components.launch", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launch, "-m", "components.train", *train_arguments(params, data, out, raw_version)]
    ended = subprocess.run(command)
    if ended.returncode:
        sys.exit(ended.returncode)  # it has said why


def train_in_cluster(
    name: str, image: str, params: Params, data: Sequence[str], out: Location, raw_version: str | None = None
) -> None:
    """Training as a job of pods, which see no folder of this one and use the same servers and credentials.

    Raises JobError, ServersError.
    """
    from components.cluster.api import Api, JobPatience
    from components.cluster.check import check, is_secret
    from components.cluster.job import TrainingJob
    from components.cluster.launcher import launch, train_arguments
    from components.cluster.surroundings import read_surroundings

    check(params)
    namespace = os.environ["POD_NAMESPACE"]
    here = read_surroundings(Api(namespace, JobPatience()), os.environ["POD_NAME"])
    # The section may name a patience of its own; the servers are the run's.
    names = [*SERVERS, *({PATIENCE} - params.cluster.environment.keys())]
    servers = {key: os.environ[key] for key in names if key in os.environ}
    for key, value in servers.items():
        if is_secret(key, value):
            raise ServersError(
                f"{key}: holds a password, which everybody could read in the training job. Give the address without "
                "it, and the password in the secret dual-hrnet-mlflow or dual-hrnet-s3."
            )
    job = TrainingJob(
        name=name,
        namespace=namespace,
        image=image,
        arguments=train_arguments(params, data, out, raw_version),
        output=str(out),
        cluster=params.cluster,
        environment={**here.environment, **servers},
        references=[*here.references, RUN_ID],
        env_from=here.env_from,
        labels={RUN_LABEL: os.environ["RUN_ID"]},
        owner=here.owner,
    )
    began: list[str] = []
    try:
        launch(job, began.extend)
    finally:  # also of a job that failed, or that this run gives up
        _claim(began)


def _claim(began: Sequence[str]) -> None:
    """Makes the training's run in MLflow one of this pipeline run, too, where others began the job."""
    from components.tracking import runs
    from components.tracking.connection import TrackingError

    others = [run for run in began if run != os.environ["RUN_ID"]]
    try:
        if others:
            runs.join_runs(others, os.environ["RUN_ID"])
    except TrackingError as error:
        print(f"warning: {error} The training's run in MLflow does not name this pipeline run.", file=sys.stderr)

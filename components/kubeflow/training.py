"""Where a task of the graph trains: in processes of this machine, or as a job of the cluster."""

import os
import subprocess
import sys
from collections.abc import Sequence

from base.patience import VARIABLE as PATIENCE
from components.params import Params
from components.storage.locations import Location

SERVERS = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL")  # of the task, which its job uses, too
RUN_LABEL = "dual-hrnet/pipeline-run"  # of the training jobs of a run
# The training's run in MLflow says which pipeline run it is of. By the label: the same training of another run is the
# same job.
RUN_ID = {"name": "RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{RUN_LABEL}']"}}}


def train_here(params: Params, data: Sequence[str], out: Location, processes: int) -> None:
    """Training in so many processes of this machine; ends this process with the exit code of one that failed."""
    from components.cluster.pytorchjob.launcher import train_arguments

    launch = ["-m", "components.launch", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launch, "-m", "components.train", *train_arguments(params, data, out)]
    ended = subprocess.run(command)
    if ended.returncode:
        sys.exit(ended.returncode)  # it has said why


def train_in_cluster(name: str, image: str, params: Params, data: Sequence[str], out: Location) -> None:
    """Training as a job of pods, which see no folder of this one and use the same servers; raises JobError."""
    from components.cluster.pytorchjob.launcher import PodReference, TrainJob, launch, train_arguments

    environment = {key: os.environ[key] for key in (*SERVERS, PATIENCE) if key in os.environ}
    job = TrainJob(
        name=name,
        namespace=os.environ["POD_NAMESPACE"],
        image=image,
        arguments=train_arguments(params, data, out),
        cluster=params.cluster,
        environment=environment,
        references=[RUN_ID],
        labels={RUN_LABEL: os.environ["RUN_ID"]},
        owner=PodReference(os.environ["POD_NAME"], os.environ["POD_UID"]),
    )
    launch(job)

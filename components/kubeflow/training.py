"""Where a task of the graph trains: in processes of this machine, or as a job of the cluster."""

import os
import subprocess
import sys
from collections.abc import Sequence

from components.params import Params
from components.storage.locations import Location

SERVERS = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL")  # of the task, which its job uses, too
RUN_LABEL = "dual-hrnet/pipeline-run"  # of the training jobs of a run


def train_here(params: Params, data: Sequence[str], out: Location, processes: int) -> None:
    """Training in so many processes of this machine; ends this process with the exit code of one that failed."""
    from components.cluster.launcher import train_arguments

    launch = ["-m", "components.launch", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launch, "-m", "components.train", *train_arguments(params, data, out)]
    ended = subprocess.run(command)
    if ended.returncode:
        sys.exit(ended.returncode)  # it has said why


def train_in_cluster(name: str, image: str, params: Params, data: Sequence[str], out: Location) -> None:
    """Training as a job of pods, which see no folder of this one and use the same servers; raises JobError."""
    from components.cluster.check import check
    from components.cluster.job import Owner, TrainingJob
    from components.cluster.launcher import launch, train_arguments

    check(params)
    environment = {key: os.environ[key] for key in SERVERS if key in os.environ}
    job = TrainingJob(
        name=name,
        namespace=os.environ["POD_NAMESPACE"],
        image=image,
        arguments=train_arguments(params, data, out),
        output=str(out),
        cluster=params.cluster,
        environment=environment,
        labels={RUN_LABEL: os.environ["RUN_ID"]},
        owner=Owner("v1", "Pod", os.environ["POD_NAME"], os.environ["POD_UID"]),
    )
    launch(job)

"""The launcher of a pipeline's step `train`, as a pod runs it: a process that is forked from one that has imported all,
as it would need seconds for it each time.
"""

import os
from collections.abc import Mapping
from functools import partial
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config

from components.cluster import api, launcher
from components.cluster.api import JobPatience
from components.kubeflow.tasks import task
from components.kubeflow.training import train_in_cluster
from components.params import load_params
from components.tracking import runs  # noqa: F401, of whose imports each process would need seconds
from tests.paths import ROOT

# An API server that is away for a minute is so for a few of these seconds.
QUICK = partial(JobPatience, first_pause=0.05, longest_pause=0.2, watch=5, look=0.5, logs=2, drain=1)


def prepare() -> None:
    """Starts the process that launchers are forked from."""
    get_context("forkserver").set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for the modules that it imports
        forkserver.ensure_running()


def start(said: Path, variables: Mapping[str, str], cluster: Mapping[str, Any]) -> ForkServerProcess:
    """A launcher in an environment of these variables, which says what it says to that file.

    cluster: what is other than in params.yaml.
    """
    process = get_context("forkserver").Process(
        target=_launch, args=(said, dict(variables), dict(cluster)), daemon=True
    )
    process.start()
    return process


def _launch(said: Path, variables: dict[str, str], cluster: dict[str, Any]) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(variables)
    for module in (config, config.kube_config):  # what the library made of $KUBECONFIG when it was imported
        module.KUBE_CONFIG_DEFAULT_LOCATION = variables["KUBECONFIG"]
    for place in (api, launcher):
        place.JobPatience = QUICK  # type: ignore[attr-defined]
    params = load_params(ROOT / "params.yaml")
    changed = params.model_copy(update={"cluster": params.cluster.model_copy(update=cluster)})
    with task(variables["MLFLOW_TRACKING_URI"], "http://s3"):
        train_in_cluster("train-1", "i@sha256:1", changed, ["s3://b/d"], "s3://b/o")

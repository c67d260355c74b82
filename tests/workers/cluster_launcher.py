"""The launcher of a pipeline's step `train`, as a pod runs it: `cluster_launcher.py CHANGES_OF_THE_CLUSTER_AS_JSON`."""

import json
import sys

from components.kubeflow.tasks import task
from components.kubeflow.training import train_in_cluster
from components.params import load_params
from tests.paths import ROOT

if __name__ == "__main__":
    params = load_params(ROOT / "params.yaml")
    cluster = params.cluster.model_copy(update=json.loads(sys.argv[1]))
    with task("http://mlflow", "http://s3"):
        train_in_cluster(
            "train-1", "i@sha256:1", params.model_copy(update={"cluster": cluster}), ["s3://b/d"], "s3://b/o"
        )

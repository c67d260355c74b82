"""What is left to do when a run of the graph has ended, however it did."""

import os

from components.kubeflow.sections import Sections, params_of


def finish(state: str, message: str, sections: Sections) -> None:
    """After a run of the graph, however it ended: deletes the jobs that it left, and records a failure in MLflow."""
    run = os.environ.get("RUN_ID", "")
    if run:
        from components.cluster.api import Api, JobPatience
        from components.cluster.launcher import release
        from components.cluster.surroundings import read_surroundings

        namespace = os.environ["POD_NAMESPACE"]
        here = read_surroundings(Api(namespace, JobPatience()), os.environ["POD_NAME"])
        release(namespace, here.owner.name)
    if state != "SUCCEEDED":
        from components.tracking import runs

        name = params_of(sections).tracking.experiment
        runs.record_failure(name, {"pipeline_run": run, "pipeline_error": message})

"""What is left to do when a run of the graph has ended, however it did."""

import os

from components.kubeflow.sections import Sections, params_of
from components.kubeflow.training import RUN_LABEL


def finish(state: str, message: str, sections: Sections) -> None:
    """After a run of the graph, however it ended: deletes the jobs that it left, and records a failure in MLflow."""
    run = os.environ.get("RUN_ID", "")
    if run:
        from components.cluster.launcher import delete_jobs

        delete_jobs(os.environ["POD_NAMESPACE"], {RUN_LABEL: run})
    if state != "SUCCEEDED":
        from components.tracking import runs

        name = params_of(sections).tracking.experiment
        runs.record_failure(name, {"pipeline_run": run, "pipeline_error": message})

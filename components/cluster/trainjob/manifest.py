"""A training job as the TrainJob (trainer.kubeflow.org/v1alpha1) of Kubeflow Trainer 2.3, with a runtime of its own.

A TrainJob names image, arguments, variables, nodes and resources; all else of its pods is a TrainingRuntime's: volumes,
secrets, the security context, and when the pods are started again. As these are parameters of a run, each job has a
runtime of its own, of the same name.
"""

from typing import Any

from base.command_line import RESTARTABLE
from components.cluster import pods
from components.cluster.api import Resource
from components.cluster.job import TrainingJob

API_VERSION = "trainer.kubeflow.org/v1alpha1"
JOB, RUNTIME = Resource(API_VERSION, "TrainJob"), Resource(API_VERSION, "TrainingRuntime")
NODE = "node"  # Trainer looks for this name of a job and of its container
# Beyond the deadline, which the launcher holds because the operator's own takes the logs away: the operator's is for a
# job whose launcher is gone.
DEADLINE_MARGIN_SECONDS = 600


def runtime(job: TrainingJob) -> dict[str, Any]:
    """The TrainingRuntime: a JobSet of one Job, whose pods are the nodes."""
    template = pods.template(job, NODE)
    (container,) = template["spec"]["containers"]
    for name in ("image", "command", "args", "env", "resources"):  # the TrainJob's, or in two places
        del container[name]
    container["image"] = job.image  # which a container must have
    template["spec"]["restartPolicy"] = "Never"
    node = {
        # As many pods as nodes, and no other pod in place of one that failed: the others would wait for it for ever, as
        # they know a peer that is gone. The set starts them all again.
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                # An evicted pod may end with any code. "Ignore" would replace it alone.
                {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": NODE, "operator": "NotIn", "values": sorted(RESTARTABLE)},
                },
            ]
        },
        # When rank 0 has ended well, the model is in its place. By default all would have to, and one that failed
        # later, or hung, would start a training again that is done.
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "template": template,
    }
    jobset = {
        "failurePolicy": {
            "maxRestarts": job.cluster.restarts,
            "rules": [{"name": "fatal", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
        },
        # Of the pods and their logs. A TrainJob has no such time: it stays until its owner goes or somebody deletes it.
        "ttlSecondsAfterFinished": job.cluster.ttl_seconds,
        "replicatedJobs": [
            {
                "name": NODE,
                "template": {
                    # By which Trainer finds the job that it gives the TrainJob's image and variables.
                    "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                    "spec": node,
                },
            }
        ],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": RUNTIME.kind,
        "metadata": job.metadata(),
        # Without the policy "torch" there are no PET_* variables.
        "spec": {"mlPolicy": {"numNodes": job.cluster.nodes, "torch": {}}, "template": {"spec": jobset}},
    }


def trainjob(job: TrainingJob) -> dict[str, Any]:
    """The TrainJob, which goes by its own runtime."""
    return {
        "apiVersion": API_VERSION,
        "kind": JOB.kind,
        "metadata": job.metadata(),
        "spec": {
            # Without runtimePatches: a queue writes its own into that list, and nobody must replace it.
            "runtimeRef": {"apiGroup": API_VERSION.split("/")[0], "kind": RUNTIME.kind, "name": job.name},
            "activeDeadlineSeconds": job.cluster.deadline_seconds + DEADLINE_MARGIN_SECONDS,
            "trainer": {
                "image": job.image,
                "command": pods.COMMAND,
                "args": list(job.arguments),
                "env": pods.environment(job),
                "numNodes": job.cluster.nodes,
                "numProcPerNode": job.cluster.processes_per_node,
                # All of them: a queue counts these alone, not what the runtime adds.
                "resourcesPerNode": pods.resources(job.cluster),
            },
        },
    }

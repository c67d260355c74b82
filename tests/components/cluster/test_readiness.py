"""The check of a cluster before the first run, against a real Kubernetes API server from which one thing is missing."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from components.cluster.api import Api, JobPatience
from components.cluster.readiness.__main__ import NotReadyError, find, report
from components.params import load_params
from tests.commands import assert_one_line, run_step
from tests.components.cluster.test_pytorchjob_launch import RULES
from tests.paths import ROOT
from tests.servers.kube_api import PYTORCHJOBS, KubeApi, definition, of_any_content
from tests.servers.ports import free_port

Edit = Callable[["Cluster"], object]


KINDS = {
    "Workflow": ("argoproj.io", "v1alpha1"),
    "LocalQueue": ("kueue.x-k8s.io", "v1beta1"),
    "Workload": ("kueue.x-k8s.io", "v1beta1"),
}


class Cluster:
    """A namespace in which a run has all that it needs."""

    def __init__(self, kube: KubeApi) -> None:
        self.kube, self.namespace = kube, kube.new_namespace()
        self.core = client.CoreV1Api(kube.client())
        self.rights = client.RbacAuthorizationV1Api(kube.client())
        self.objects = client.CustomObjectsApi(kube.client())
        self.core.create_namespaced_service_account(self.namespace, {"metadata": {"name": "pipeline-runner"}})
        self.grant(RULES)
        self.secret("dual-hrnet-s3", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
        self.queue({"conditions": [{"type": "Active", "status": "True", "message": "Can submit new workloads"}]})

    def grant(self, rules: list[dict[str, Any]]) -> None:
        """These rights and no others for the steps."""
        for delete in (self.rights.delete_namespaced_role, self.rights.delete_namespaced_role_binding):
            try:
                delete("launcher", self.namespace)
            except client.ApiException as error:
                assert error.status == 404
        self.rights.create_namespaced_role(self.namespace, {"metadata": {"name": "launcher"}, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "launcher"}
        account = {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": self.namespace}
        binding = {"metadata": {"name": "launcher"}, "roleRef": role, "subjects": [account]}
        self.rights.create_namespaced_role_binding(self.namespace, binding)

    def secret(self, name: str, **values: str) -> None:
        """A secret with these values, and nothing else in it."""
        content = {"metadata": {"name": name}, "stringData": values}
        try:
            self.core.delete_namespaced_secret(name, self.namespace)
        except client.ApiException as error:
            assert error.status == 404
        self.core.create_namespaced_secret(self.namespace, content)

    def queue(self, status: dict[str, Any]) -> None:
        """The LocalQueue `team`."""
        group, version = KINDS["LocalQueue"]
        content = {"apiVersion": f"{group}/{version}", "kind": "LocalQueue", "metadata": {"name": "team"}}
        content["status"] = status
        place = (group, version, self.namespace, "localqueues")
        if self.objects.list_namespaced_custom_object(*place)["items"]:
            self.objects.delete_namespaced_custom_object(*place, "team")
        self.objects.create_namespaced_custom_object(*place, content)

    def label(self, level: str) -> None:
        """The Pod Security level of the namespace."""
        labels = {"pod-security.kubernetes.io/enforce": level}
        self.core.patch_namespace(self.namespace, {"metadata": {"labels": labels}})


@pytest.fixture(scope="module")
def kinds(kube_server: KubeApi) -> KubeApi:
    """The server with the kinds of the others, beside the PyTorchJob."""
    others = (of_any_content(group, version, f"{kind.lower()}s", kind) for kind, (group, version) in KINDS.items())
    kube_server.only(definition(PYTORCHJOBS), *others)
    return kube_server


@pytest.fixture
def cluster(kinds: KubeApi) -> Cluster:
    return Cluster(kinds)


class MlflowVersion(BaseHTTPRequestHandler):
    """Answers as MLflow does to /version."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write(b"3.17.2")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def mlflow_at(address: str) -> Iterator[int]:
    server = ThreadingHTTPServer((address, 0), MlflowVersion)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def ask(cluster: Cluster, *locations: str, mlflow_uri: str | None = None, user: str = "admin", **settings: Any) -> str:
    """The error with which the check ends, empty where nothing is missing."""
    api = Api(cluster.namespace, replace(JobPatience(), away=0), cluster.kube.kubeconfig(user))
    params = load_params(ROOT / "params.yaml").cluster.model_copy(update={"queue": "team", **settings})
    try:
        report(find(api, params, None, locations, mlflow_uri))
    except NotReadyError as error:
        return str(error)
    return ""


def lines(printed: str, mark: str) -> list[str]:
    return [line.removeprefix(f"{mark} ") for line in printed.splitlines() if line.startswith(mark)]


def names(printed: str, mark: str) -> list[str]:
    return [line.split("  ")[0] for line in lines(printed, mark)]


def test_where_everything_is_there_nothing_is_missing(
    cluster: Cluster, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    with mlflow_at("127.0.0.1") as port:
        assert ask(cluster, "s3://dvc/runs", "s3://dvc/xbd", mlflow_uri=f"http://127.0.0.1:{port}") == ""
    printed = capsys.readouterr().out
    assert (lines(printed, "✗"), lines(printed, "?")) == ([], [])
    assert names(printed, "✓") == [
        "Kubernetes", f"namespace {cluster.namespace}", "Workflow (argoproj.io/v1alpha1)",
        "PyTorchJob (kubeflow.org/v1)", "Pod Security", "service account pipeline-runner", "pipeline-runner on pods",
        "pipeline-runner on pods/log", "pipeline-runner on events", "pipeline-runner on workflows",
        "pipeline-runner on workloads", "pipeline-runner on pytorchjobs", "pipeline-runner on pytorchjobs/status",
        "secret dual-hrnet-s3", "secret dual-hrnet-mlflow", "queue team", "S3", "S3", "MLflow",
    ]  # fmt: skip


def without(resource: str, verb: str) -> list[dict[str, Any]]:
    """The rights of the launcher but for one verb."""
    return [
        {**rule, "verbs": [each for each in rule["verbs"] if each != verb or resource not in rule["resources"]]}
        for rule in RULES
        if rule["verbs"] != [verb] or resource not in rule["resources"]
    ]


@pytest.mark.parametrize(
    ("edit", "settings", "missing", "remedy"),
    [
        (lambda it: it.secret("dual-hrnet-s3", AWS_ACCESS_KEY_ID="key"), {}, "secret dual-hrnet-s3", "Correct it: "),
        (lambda it: it.secret("dual-hrnet-s3", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="line\n"), {},
         "secret dual-hrnet-s3", "Correct it: "),
        (lambda it: it.core.delete_namespaced_secret("dual-hrnet-s3", it.namespace), {}, "secret dual-hrnet-s3",
         "create secret generic dual-hrnet-s3"),
        (lambda it: it.secret("dual-hrnet-mlflow", MLFLOW_TRACKING_USERNAME="user"), {}, "secret dual-hrnet-mlflow",
         "Correct it: "),
        (lambda it: None, {"secrets": ["more"]}, "secret more", "create secret generic more"),
        (lambda it: None, {"image_pull_secrets": ["pull"]}, "secret pull", "create secret generic pull"),
        (lambda it: it.grant(without("pytorchjobs", "delete")), {}, "pipeline-runner on pytorchjobs",
         "kubectl apply -k deploy/base; without user profiles deploy/standalone, too."),
        (lambda it: it.grant(without("pods/log", "get")), {}, "pipeline-runner on pods/log", "kubectl apply -k"),
        (lambda it: it.core.delete_namespaced_service_account("pipeline-runner", it.namespace), {},
         "service account pipeline-runner", "--service-account"),
        (lambda it: None, {"certificates": "ca"}, "config map ca", "create configmap ca --from-file=ca.crt"),
        (lambda it: None, {"queue": "other"}, "queue other", "Correct cluster.queue"),
        (lambda it: it.queue({"conditions": [{"type": "Active", "status": "False", "message": "it is stopped"}]}), {},
         "queue team", "Its ClusterQueue has to be there"),
        (lambda it: None, {"kind": "trainjob"}, "TrainJob (trainer.kubeflow.org/v1alpha1)", "Kubeflow Trainer 2"),
        (lambda it: it.label("restricted"), {}, "the operator's container", "deploy/training-operator"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_what_to_do(
    edit: Edit, settings: dict[str, Any], missing: str, remedy: str, cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    edit(cluster)
    told = ask(cluster, **settings)
    printed = capsys.readouterr().out
    assert missing in names(printed, "✗"), printed
    rows = printed.splitlines()
    (row,) = [number for number, text in enumerate(rows) if text.startswith(f"✗ {missing} ")]
    assert remedy in rows[row + 1]
    assert told.endswith("Mend them, and run the same command again.")


def test_of_mlflows_keys_a_token_alone_is_enough(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.secret("dual-hrnet-mlflow", MLFLOW_TRACKING_TOKEN="token")
    ask(cluster)
    (row,) = [line for line in lines(capsys.readouterr().out, "✓") if line.startswith("secret dual-hrnet-mlflow ")]
    assert row.split()[2:] == ["MLFLOW_TRACKING_TOKEN"]


def test_a_namespace_that_is_not_there_is_told(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.namespace = "nowhere"
    assert ask(cluster)
    assert "namespace nowhere" in names(capsys.readouterr().out, "✗")


def test_servers_that_are_away_are_told(
    cluster: Cluster, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    told = ask(cluster, "s3://no-such-bucket/runs", mlflow_uri=f"http://127.0.0.1:{free_port()}")
    assert told == "2 of the above are missing (✗). Mend them, and run the same command again."
    bucket, server = lines(capsys.readouterr().out, "✗")
    assert "s3://no-such-bucket/runs" in bucket
    assert "Connection refused" in server


def test_mlflow_as_a_service_is_asked_from_within_the_cluster(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing, and chooses the address to send from
        except OSError:
            pytest.skip("this machine has only loopback addresses, which Kubernetes refuses as endpoints")
        address = probe.getsockname()[0]
    with mlflow_at(address) as port:
        ports = [{"port": 5000, "targetPort": port}]
        cluster.core.create_namespaced_service(
            cluster.namespace, {"metadata": {"name": "mlflow"}, "spec": {"ports": ports}}
        )
        containers = [{"name": "mlflow", "image": "i:1"}]
        pod = cluster.core.create_namespaced_pod(
            cluster.namespace, {"metadata": {"name": "mlflow"}, "spec": {"containers": containers}}
        )
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
        cluster.core.patch_namespaced_pod_status("mlflow", cluster.namespace, status)
        # The API server passes requests on to pods only.
        reference = {"kind": "Pod", "namespace": cluster.namespace, "name": "mlflow", "uid": pod.metadata.uid}
        subsets = [{"addresses": [{"ip": address, "targetRef": reference}], "ports": [{"port": port}]}]
        cluster.core.create_namespaced_endpoints(
            cluster.namespace, {"metadata": {"name": "mlflow"}, "subsets": subsets}
        )
        assert ask(cluster, mlflow_uri=f"http://mlflow.{cluster.namespace}.svc:5000") == ""
        assert "MLflow                              3.17.2, as a service of the cluster" in capsys.readouterr().out
        assert ask(cluster, mlflow_uri=f"http://mlflow.{cluster.namespace}.svc:5000/elsewhere")
        assert "has nothing at /elsewhere/version (HTTP 404)" in capsys.readouterr().out
    assert ask(cluster, mlflow_uri=f"http://mlflow.{cluster.namespace}:5000").startswith("1 of the above")
    assert "kubectl -n dual-hrnet get pods" in capsys.readouterr().out


def test_what_may_not_be_asked_is_not_called_missing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ask(cluster, user="stranger")
    printed = capsys.readouterr().out
    assert {"namespace", "pipeline-runner on pods", "secret dual-hrnet-s3"} <= set(names(printed, "?"))
    assert lines(printed, "✗") == []


def test_an_administrator_of_the_namespace_alone_may_ask_for_all_of_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("admin", "edit", "view"):  # of Kubernetes' own role `admin`, which a controller would put together
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"system:aggregate-to-{part}"}
        user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "stranger"}
        binding = {"metadata": {"name": part}, "roleRef": role, "subjects": [user]}
        cluster.rights.create_namespaced_role_binding(cluster.namespace, binding)
    assert ask(cluster, user="stranger", queue=None) == ""
    assert lines(capsys.readouterr().out, "?") == []


def test_the_command_ends_with_1_and_one_line_where_something_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.core.delete_namespaced_secret("dual-hrnet-s3", cluster.namespace)
    arguments = ("--params", ROOT / "params.yaml", "--namespace", cluster.namespace)
    result = run_step("cluster.readiness", *arguments, cwd=tmp_path, KUBECONFIG=str(cluster.kube.kubeconfig()))
    assert_one_line(result, "NotReadyError: 1 of the above are missing")
    assert "✗ secret dual-hrnet-s3" in result.stdout
    away = cluster.kube.kubeconfig(url=f"https://127.0.0.1:{free_port()}")
    result = run_step("cluster.readiness", *arguments, cwd=tmp_path, KUBECONFIG=str(away))
    assert_one_line(result, "JobError: Kubernetes at https://127.0.0.1:")

"""A real Kubernetes API server for the tests, with the PyTorchJob installed.

KUBEBUILDER_ASSETS names a folder with the programs etcd and kube-apiserver, as `setup-envtest use -p path` prints it.
There are no controllers and no kubelets: a job stays as it is until a test changes its status.
"""

import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from tests.paths import ROOT
from tests.servers.ports import free_ports

CRDS = ROOT / "tests" / "crd"
PYTORCHJOBS = "kubeflow.org_pytorchjobs_v1.9.4.yaml"
USERS = ("admin", "launcher", "stranger")  # admin may do everything, the others what a test binds them to
PLACE = {"group": "kubeflow.org", "version": "v1", "plural": "pytorchjobs"}
WAIT_SECONDS = 60


class KubeApi:
    """etcd and kube-apiserver, which keep their files in `folder`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        store, peer, self.port = free_ports(3)
        key = folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        groups = {"admin": "system:masters"}
        tokens = [f'{user}-token,{user},{user},"{groups.get(user, "")}"' for user in USERS]
        (folder / "tokens.csv").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        store_url, peer_url = f"http://127.0.0.1:{store}", f"http://127.0.0.1:{peer}"
        etcd = f"""{programs}/etcd --data-dir {folder}/etcd --unsafe-no-fsync
            --listen-client-urls {store_url} --advertise-client-urls {store_url}
            --listen-peer-urls {peer_url} --initial-advertise-peer-urls {peer_url}
            --initial-cluster default={peer_url}"""
        server = f"""{programs}/kube-apiserver --etcd-servers={store_url} --secure-port={self.port}
            --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --cert-dir={folder}/certs
            --service-cluster-ip-range=10.0.0.0/24 --token-auth-file={folder}/tokens.csv --authorization-mode=RBAC
            --service-account-issuer=https://kubernetes.default.svc --service-account-key-file={key}
            --service-account-signing-key-file={key} --disable-admission-plugins=ServiceAccount
            --allow-privileged=true"""
        self.commands = [etcd.split(), server.split()]
        self.certificate = str(folder / "certs" / "apiserver.crt")  # which the server makes and signs itself
        self.processes: list[subprocess.Popen[bytes]] = []
        self.installed: set[str] = set()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts both, waits until they are ready, and installs the PyTorchJob."""
        with self.log.open("ab") as log:
            self.processes = [subprocess.Popen(line, stdout=log, stderr=log) for line in self.commands]
        eventually(self._is_ready, f"kube-apiserver is not ready: see {self.log}")
        self.install(PYTORCHJOBS)

    def install(self, *names: str) -> None:
        """Has further kinds of objects served, by the files of tests/crd, each once."""
        extensions = client.ApiextensionsV1Api(self.client())
        objects = client.CustomObjectsApi(extensions.api_client)
        for name in names:
            if name in self.installed:
                continue
            definition = yaml.load((CRDS / name).read_text(encoding="utf-8"), yaml.CSafeLoader)
            extensions.create_custom_resource_definition(definition)
            spec, plural = definition["spec"], definition["spec"]["names"]["plural"]
            place = {"group": spec["group"], "version": spec["versions"][0]["name"], "plural": plural}
            eventually(partial(is_served, objects, place), f"{plural} are not served")
            self.installed.add(name)

    def stop(self) -> None:
        """Ends both."""
        for process in reversed(self.processes):
            process.kill()
            process.wait(WAIT_SECONDS)

    def kubeconfig(self, user: str = "admin", url: str | None = None, namespace: str = "default") -> Path:
        """A file for KUBECONFIG; url: of a proxy in front of the server."""
        place = url or self.url
        name = f"{user}-{place.rpartition(':')[2]}-{namespace}"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": place, "certificate-authority": self.certificate}}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": namespace}}],
            "current-context": name,
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def client(self, user: str = "admin") -> client.ApiClient:
        """A client of the server as that user."""
        return config.new_client_from_config(str(self.kubeconfig(user)))

    def new_namespace(self) -> str:
        """Creates a namespace that no other test has."""
        made = client.CoreV1Api(self.client()).create_namespace({"metadata": {"generateName": "test-"}})
        return str(made.metadata.name)

    def bind(self, user: str, namespace: str, rules: list[dict[str, list[str]]]) -> None:
        """Lets a user do in a namespace what these rules of a Role say."""
        access = client.RbacAuthorizationV1Api(self.client())
        access.create_namespaced_role(namespace, {"metadata": {"name": user}, "rules": rules})
        binding = {
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
        access.create_namespaced_role_binding(namespace, binding)

    def _is_ready(self) -> bool:
        for process in self.processes:
            assert process.poll() is None, f"{process.args!r} ended with {process.returncode}: see {self.log}"
        anyone = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5, context=anyone) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def running(folder: Path) -> Iterator[KubeApi]:
    """A server for the block; skips the test where its programs are not here."""
    programs = os.environ.get("KUBEBUILDER_ASSETS")
    if not programs or not (Path(programs) / "kube-apiserver").exists():
        pytest.skip("no Kubernetes API server: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes a key for the Kubernetes API server")
    server = KubeApi(folder, Path(programs))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def is_served(objects: client.CustomObjectsApi, place: dict[str, Any]) -> bool:
    """Whether the server knows these objects already."""
    try:
        objects.list_cluster_custom_object(**place)
    except client.ApiException as error:
        assert error.status == 404, error
        return False
    return True


def eventually(holds: Callable[[], bool], complaint: str) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)

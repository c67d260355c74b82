"""A real Kubernetes API server for the tests, with the kinds of objects that each asks for.

KUBEBUILDER_ASSETS names a folder with the programs etcd and kube-apiserver, as `setup-envtest use -p path` prints it.
There are no controllers and no kubelets: a job stays as it is until a test changes its status.
"""

import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
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
Definition = dict[str, Any]


@cache
def definition(name: str) -> Definition:
    """That of a file in tests/crd."""
    return dict(yaml.load((CRDS / name).read_text(encoding="utf-8"), yaml.CSafeLoader))


def of_any_content(group: str, version: str, plural: str, kind: str) -> Definition:
    """The definition of a kind of objects that is not ours and little read."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = {"name": version, "served": True, "storage": True, "schema": schema}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"}  # for *.k8s.io
    return {
        "metadata": {"name": f"{plural}.{group}", "annotations": approved},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


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
            --allow-privileged=true --enable-priority-and-fairness=false --profiling=false
            --endpoint-reconciler-type=none --runtime-config=api/beta=false,api/alpha=false"""
        self.commands = [etcd.split(), server.split()]
        self.certificate = str(folder / "certs" / "apiserver.crt")  # which the server makes and signs itself
        self.processes: list[subprocess.Popen[bytes]] = []
        self.served: dict[str, Definition] = {}  # by its name
        self.clients: dict[str, client.ApiClient] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts both, and waits until they are ready."""
        with self.log.open("ab") as log:
            self.processes = [subprocess.Popen(line, stdout=log, stderr=log) for line in self.commands]
        eventually(self._is_ready, f"kube-apiserver is not ready: see {self.log}")

    def install(self, *definitions: Definition) -> None:
        """Has further kinds of objects served, each once."""
        extensions = client.ApiextensionsV1Api(self.client())
        for one in definitions:
            name = one["metadata"]["name"]
            if name not in self.served:
                extensions.create_custom_resource_definition(one)
                eventually(partial(self._serves, one), f"{name} is not served")
                self.served[name] = one

    def only(self, *definitions: Definition) -> None:
        """Has these kinds of objects served and no others, beside Kubernetes' own.

        Others are not taken away: objects that wait for an operator would hold that up. The server begins anew.
        """
        if self.served.keys() - {one["metadata"]["name"] for one in definitions}:
            self.stop()
            shutil.rmtree(self.folder / "etcd")
            self.served.clear()
            self.start()
        self.install(*definitions)

    def stop(self) -> None:
        """Ends both."""
        for process in reversed(self.processes):
            process.kill()
            process.wait(WAIT_SECONDS)

    def pause(self) -> None:
        """Has both stand still until `go_on`: idle, they take a tenth of a core."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undoes `pause`."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)

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
        """The client of the server as that user."""
        if user not in self.clients:
            self.clients[user] = config.new_client_from_config(str(self.kubeconfig(user)))
        return self.clients[user]

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

    def _serves(self, one: Definition) -> bool:
        """Whether the server both lists such objects and says so; the two come apart for a moment."""
        objects, spec = client.CustomObjectsApi(self.client()), one["spec"]
        place, plural = {"group": spec["group"], "version": spec["versions"][0]["name"]}, spec["names"]["plural"]
        lists = says = False
        with suppress(client.ApiException):
            objects.list_cluster_custom_object(**place, plural=plural)
            lists = True
        with suppress(client.ApiException):
            says = plural in {each.name for each in objects.get_api_resources(**place).resources}
        return lists and says

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


def eventually(holds: Callable[[], bool], complaint: str) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)

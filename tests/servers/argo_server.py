"""A small server that plays a Kubernetes API with one recorded Workflow, the logs of its pods, and no training jobs.

It answers with a kubelet's logs, which the real API server of the other tests has not.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

NAMESPACE = "dual-hrnet"
# All that an exit hook needs beside what a launcher may do.
RULE = {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get"]}


class ArgoServer:
    """workflow: what it has, None for nothing. logs: by pod. refusal: HTTP status of the Workflow, instead."""

    def __init__(self, recording: Path | None = None) -> None:
        self.workflow: dict[str, Any] | None = None
        self.logs: dict[str, str] = {}
        self.refusal: int | None = None
        self.asked: list[str] = []
        if recording is not None:
            self.workflow = json.loads((recording / "workflow.json").read_text(encoding="utf-8"))
            self.logs = {path.stem: path.read_text(encoding="utf-8") for path in recording.glob("logs/*.log")}

    def answer(self, path: str) -> tuple[int, Any]:
        """Status and content of the answer to a GET."""
        match path.strip("/").split("/"):
            case "apis", "argoproj.io", "v1alpha1", "namespaces", namespace, "workflows", name:
                if self.refusal is not None:
                    return self.refusal, {"kind": "Status", "message": f'workflows "{name}" is forbidden'}
                if self.workflow and (namespace, name) == (NAMESPACE, self.workflow["metadata"]["name"]):
                    return 200, self.workflow
            case "api", "v1", "namespaces", _, "pods", pod, "log" if pod in self.logs:
                return 200, self.logs[pod]
            case "apis", "kubeflow.org", "v1", "namespaces", _, "pytorchjobs":
                return 200, {"items": [], "metadata": {"resourceVersion": "1"}}
        return 404, {"kind": "Status", "message": f"{path} not found"}

    @contextmanager
    def running(self, folder: Path) -> Iterator[Path]:
        """Answers during the block, which gets a file for KUBECONFIG."""
        handler = type("Handler", (_Handler,), {"argo": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        place = {"server": f"http://127.0.0.1:{server.server_address[1]}"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "played", "cluster": place}],
            "users": [{"name": "finish", "user": {}}],
            "contexts": [{"name": "played", "context": {"cluster": "played", "user": "finish"}}],
            "current-context": "played",
        }
        path = folder / "played.kubeconfig"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        try:
            yield path
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    argo: ArgoServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.argo.asked.append(path)
        status, answer = self.argo.answer(path)
        content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

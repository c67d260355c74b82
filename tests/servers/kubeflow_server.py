"""A small server that plays the REST API of Kubeflow Pipelines (v2beta1) as far as the client uses it.

It keeps what it is given over a stop and a start on the same port, as a cluster does. Its answers have the form of
those of KFP 2.17: fields without a value are left out, and numbers of 64 bits are strings.
"""

import email
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.servers.ports import free_port

API = "/apis/v2beta1"
EQUALS, SUBSTRING = ("EQUALS", 1), ("IS_SUBSTRING", 9)  # in filter.proto; JSON of a proto may have name or number


class Asked(NamedTuple):
    """A request: its query and its body, JSON or the uploaded file."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None
    cookie: str | None = None


class KubeflowServer:
    """Its state is open to tests. kept: what was created, by kind. frames: what a run answers, one for each look at
    it, the last one again and again; a callable acts first and answers with the next one. refusal: status and body
    of all answers, instead. logs: by pod. is_ui: whether the UI is in front, which has the logs under a path of its
    own, and gives the API server's path of them to nobody.
    """

    def __init__(self, token: str | None = None, multi_user: bool = False) -> None:
        self.port = free_port()
        self.token, self.multi_user = token, multi_user
        self.asked: list[Asked] = []
        self.kept: dict[str, list[dict[str, Any]]] = {
            kind: [] for kind in ("pipelines", "pipeline_versions", "experiments", "runs", "recurringRuns")
        }
        self.uploads: list[bytes] = []
        self.frames: list[dict[str, Any] | Callable[[], None]] = [{"state": "SUCCEEDED"}]
        self.refusal: tuple[int, bytes] | None = None
        self.headers: dict[str, str] = {}  # of a refusal
        self.logs: dict[str, str] = {}
        self.is_ui = True
        self.server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts to answer."""
        handler = type("Handler", (_Handler,), {"kubeflow": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Goes away; nothing listens on the port any more."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def replay(self, recording: Path) -> str:
        """Has a recorded run, which goes on by one change at each look at it; returns its ID."""
        run = json.loads((recording / "run.json").read_text(encoding="utf-8"))
        self.kept["runs"] = [{"run_id": run["run_id"], "display_name": run["display_name"]}]
        self.frames = list(recorded_frames(run))
        self.logs = {path.stem: path.read_text(encoding="utf-8") for path in recording.glob("logs/*.log")}
        return str(run["run_id"])

    def bodies(self, method: str, path: str) -> list[Any]:
        """Bodies of the requests of that method to that path below the API."""
        return [asked.body for asked in self.asked if (asked.method, asked.path) == (method, API + path)]

    def answer(self, asked: Asked) -> tuple[int, dict[str, Any] | str]:
        """Status and content of the answer to a request."""
        if self.token is not None and asked.authorization != f"Bearer {self.token}":
            return 401, {"error": "Unauthenticated", "code": 16, "message": "Request header error: there is no user."}
        method, path = asked.method, asked.path.removeprefix(API).strip("/").split("/")
        match method, *path:
            case "GET", "k8s", "pod", "logs" if self.is_ui:
                if asked.query["podname"] not in self.logs:
                    return 404, "pod not found"
                return 200, self.logs[asked.query["podname"]]
            case "GET", "apis", "v1alpha1", "runs", _, "nodes", pod, "log" if not self.is_ui:
                if pod not in self.logs:
                    return 500, {"error_message": f"Failed to read logs from pod {pod}", "error_details": ""}
                return 200, self.logs[pod]
            case "GET", "healthz":
                return 200, {"multi_user": True} if self.multi_user else {}
            case "GET", "runs", run:
                return self._look(run)
            case "POST", "pipelines", "upload_version":
                self.uploads.append(asked.body)
                query = {"pipeline_id": asked.query["pipelineid"], "display_name": asked.query["name"]}
                return self._make("pipeline_versions", "pipeline_version_id", query)
            case "GET", "pipelines", pipeline, "versions":
                of_pipeline = [row for row in self.kept["pipeline_versions"] if row["pipeline_id"] == pipeline]
                return 200, _listed("pipeline_versions", of_pipeline, asked)
            case "GET", ("pipelines" | "experiments") as kind:
                return 200, _listed(kind, self.kept[kind], asked)
            case "GET", "recurringruns":
                return 200, _listed("recurringRuns", self.kept["recurringRuns"], asked)
            case "POST", "pipelines":
                return self._make("pipelines", "pipeline_id", asked.body)
            case "POST", "experiments":
                return self._make("experiments", "experiment_id", asked.body)
            case "POST", "runs":
                return self._make("runs", "run_id", asked.body, unique=False)
            case "POST", "recurringruns":
                return self._make("recurringRuns", "recurring_run_id", asked.body, unique=False)
            case "DELETE", "recurringruns", name:
                kept = self.kept["recurringRuns"]
                kept[:] = [row for row in kept if row["recurring_run_id"] != name]
                return 200, {}
        return 404, {"code": 5, "message": "Not Found"}

    def _make(self, kind: str, key: str, body: dict[str, Any], unique: bool = True) -> tuple[int, dict[str, Any]]:
        if unique and any(row["display_name"] == body["display_name"] for row in self.kept[kind]):
            return 409, {"code": 6, "message": f"Already exist error: {body['display_name']} is there."}
        made = {**body, key: f"{key}-{len(self.kept[kind]) + 1}-of-{len(self.asked)}"}
        self.kept[kind].append(made)
        return 200, made

    def _look(self, run: str) -> tuple[int, dict[str, Any]]:
        found = [row for row in self.kept["runs"] if row["run_id"] == run]
        if not found:
            return 404, {"code": 5, "message": f"Failed to get a run: Run {run} not found."}
        frame = self.frames[0] if len(self.frames) == 1 else self.frames.pop(0)
        if callable(frame):
            frame()
            return self._look(run)
        return 200, {**found[0], **frame}


class _Handler(BaseHTTPRequestHandler):
    kubeflow: KubeflowServer

    def handle_any(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        form = self.headers.get("Content-Type", "")
        body: Any = json.loads(content) if content and "json" in form else content
        if form.startswith("multipart/form-data"):
            whole = email.message_from_bytes(f"Content-Type: {form}\r\n\r\n".encode() + content)
            body = next(part.get_payload(decode=True) for part in whole.walk() if part.get_filename())
        place = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        asked = Asked(
            self.command, place.path, query, body, self.headers.get("authorization"), self.headers.get("cookie")
        )
        self.kubeflow.asked.append(asked)
        refusal = self.kubeflow.refusal
        if refusal is None:
            status, answer = self.kubeflow.answer(asked)
            refusal = (status, (answer if isinstance(answer, str) else json.dumps(answer)).encode())
        self.send_response(refusal[0])
        for name, value in {"Content-Length": str(len(refusal[1])), **self.kubeflow.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(refusal[1])

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _listed(kind: str, rows: list[dict[str, Any]], asked: Asked) -> dict[str, Any]:
    """The rows with the name and the namespace that were asked for; nothing at all where there are none."""
    [predicate] = json.loads(asked.query["filter"])["predicates"]
    assert (predicate["operation"] in EQUALS + SUBSTRING, predicate["key"]) == (True, "display_name")
    wanted, is_part = predicate["stringValue"], predicate["operation"] in SUBSTRING
    found = [row for row in rows if row["display_name"] == wanted or (is_part and wanted in row["display_name"])]
    if "namespace" in asked.query:
        found = [row for row in found if row.get("namespace") == asked.query["namespace"]]
    return {kind: found, "total_size": len(found)} if found else {}


def recorded_frames(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a recorded run answered after each of its changes: states as their histories tell them."""
    tasks = run["run_details"]["task_details"]
    times = {row["update_time"] for rows in (run, *tasks) for row in rows.get("state_history", [])}
    for time in sorted(times):
        yield {**_at(run, time), "run_details": {"task_details": [_at(task, time) for task in tasks]}}
    yield {key: value for key, value in run.items() if key != "run_id"}


def _at(what: dict[str, Any], time: str) -> dict[str, Any]:
    """A run or a task at a time of its past; without a state before its first one, and without an end before its last.

    Times of RFC 3339 in UTC sort as text.
    """
    whole = what.get("state_history", [])
    history = [row for row in whole if row["update_time"] <= time]
    later = {"run_id", "state", "state_history"} | (set() if history == whole else {"end_time"})
    now = {key: value for key, value in what.items() if key not in later}
    return (
        now
        | ({"state_history": history} if history else {})
        | {k: v for k, v in (history or [{}])[-1].items() if k == "state"}
    )


def task(name: str, state: str, number: int = 0, pod: str | None = None) -> dict[str, Any]:
    """A task of a run; pod: node of its last attempt. No task has an error, whatever happens to it."""
    times = {"start_time": "2026-11-28T11:42:01Z", "end_time": "2026-11-28T11:43:14Z"}
    known = {"task_id": f"{name}-{number}", "display_name": name, "state": state, **times}
    return known if pod is None else {**known, "child_tasks": [{"pod_name": pod}]}


def frame(state: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A run in that state."""
    return {"state": state, "run_details": {"task_details": list(tasks)}, **more}

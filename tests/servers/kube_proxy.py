"""An HTTP proxy in front of the Kubernetes API server, which does what a healthy one does not: it refuses, hangs up,
loses answers, forgets versions, and has the logs of pods.
"""

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers.kube_api import KubeApi

Act = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, which an act of the proxy or the server answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the end of an answer waits until the client confirms its beginning
    proxy: "KubeProxy"
    answer: http.client.HTTPResponse | None = None

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.proxy.choose(self.command, self.path)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def ask_server(self) -> http.client.HTTPResponse:
        if self.answer is None or not self.answer.isclosed():  # else the last one was read to its end
            context = ssl._create_unverified_context()
            self.upstream = http.client.HTTPSConnection("127.0.0.1", self.proxy.kube.port, context=context)
        headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Accept-Encoding")}
        self.upstream.request(self.command, self.path, self.body, headers)
        self.answer = self.upstream.getresponse()
        return self.answer

    def send(self, status: int, chunks: Iterable[bytes], **headers: str) -> None:
        """Answers chunk by chunk."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class KubeProxy:
    """Passes requests on, but for those that a fault is waiting for."""

    def __init__(self, kube: KubeApi) -> None:
        self.kube = kube
        self.faults: list[tuple[str, str, Act, bool]] = []
        self.asked: list[str] = []  # method and path of every request
        handler = type("Handler", (Request,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def fault(self, method: str, part: str, act: Act, *, always: bool = False) -> None:
        """The next request, or every one, of that method and with that part in its path and query gets this answer."""
        self.faults.append((method, part, act, always))

    def choose(self, method: str, path: str) -> Act:
        """What answers a request."""
        self.asked.append(f"{method} {path}")
        for fault in self.faults:
            if fault[0] == method and fault[1] in path:
                if not fault[3]:
                    self.faults.remove(fault)
                return fault[2]
        return pass_on

    def count(self, part: str) -> int:
        """Requests so far with that part in method, path and query."""
        return sum(part in asked for asked in self.asked)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def pass_on(request: Request) -> None:
    """The server's answer."""
    answer = request.ask_server()
    request.send(answer.status, iter(lambda: answer.read1(65536), b""))


def refuse(status: int, message: str, **headers: str) -> Act:
    """An error, as the API words it; headers with _ for -."""
    body = json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": status}).encode()
    return lambda request: request.send(status, [body], **headers)


def hang_up(request: Request) -> None:
    """The connection is lost before the server has heard of the request."""
    request.connection.close()
    request.close_connection = True


def lose_answer(request: Request) -> None:
    """The server does what it was asked, and the connection is lost before it can tell."""
    request.ask_server().read()
    hang_up(request)


def stale(request: Request) -> None:
    """Asks for what happened since the first version that there ever was."""
    path, _, query = request.path.partition("?")
    words = ["resourceVersion=1" if word.startswith("resourceVersion=") else word for word in query.split("&")]
    request.path = f"{path}?{'&'.join(words)}"
    pass_on(request)


def expire(request: Request) -> None:
    """A watch that ends with the event that its version is gone."""
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    request.send(200, [json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"])


def cut_line(request: Request) -> None:
    """A watch whose connection is lost in the middle of an event."""
    request.send(200, _then_hang_up(b'{"type": "MODIFIED", "object": {"meta'))


def lines(*texts: str, cut: bool = False) -> Act:
    """Logs; cut: the connection is lost behind them."""
    chunks = [f"{text}\n".encode() for text in texts]
    return lambda request: request.send(200, _then_hang_up(*chunks) if cut else chunks)


def _then_hang_up(*chunks: bytes) -> Iterator[bytes]:
    yield from chunks
    raise BrokenPipeError

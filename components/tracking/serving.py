"""MLflow's scoring server for a registered model, as `mlflow models serve` runs it, with answers that are short.

MLflow repeats a request in what it says of it: megabytes for a pair of images. It takes requests of any size, and a
Content-Type only in small letters. And what it does not expect of one, such as one without a Content-Type, is an error
of the server there. Here it is the client's, in one line.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from base.command_line import Parser, whole_number
from base.errors import errors_in_one_line, printable

MIB = 2**20
# MiB of a request: seven pairs of 1024 x 1024 pixels of noise in base64, twice as many of satellite images.
MAX_BODY = 64
LIMIT = 500  # characters of a message
WORD = re.compile(r"[^\s,.:;]{60,}")  # nothing of ours is as long, and base64 is
KEPT = 20  # characters of such a word
# Behind which MLflow repeats a request that is no JSON, and within which one that is no UTF-8.
ECHOES = re.compile(r"\nInput: \n.*|(?<=UnicodeDecodeError\('utf-8', )b.*, (?=\d+, \d+, ')", re.DOTALL)
INNER = "\nError: "  # behind which stands what the model said, after the data that it said it of

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


def serve(uri: str, host: str, port: int, timeout: int, max_body: int) -> None:
    """Serves a registered model until the process is asked to stop.

    timeout: seconds for an answer, with the wait for the requests before. max_body: see `short_answers`. Raises
    TrackingError where there is no such model or its files cannot be fetched.
    """
    import mlflow
    import uvicorn
    from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    from mlflow.pyfunc import scoring_server

    from components.tracking.connection import TrackingError
    from components.tracking.registry import download_model

    MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.set(timeout)  # type: ignore[no-untyped-call]
    with TemporaryDirectory(prefix="model-") as folder:
        weights = download_model(uri, Path(folder))
        root = next((parent for parent in weights.parents if (parent / "MLmodel").is_file()), None)
        if root is None:
            raise TrackingError(
                f"{uri}: is the model of an event, which grades the buildings of GeoTIFFs, expected one of pairs of "
                "images. Use it by predict, or serve the network alone."
            )
        app = scoring_server.init(mlflow.pyfunc.load_model(str(root)))
        uvicorn.run(short_answers(app, max_body), host=host, port=port)


def short_answers(app: App, max_body: int = MAX_BODY) -> App:
    """The ASGI application with its refusals as short JSON, of error_code and message.

    max_body: MiB of a request. Of a larger one no more than that is ever in memory.
    """

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if scope["method"] == "POST":
            headers = dict(scope["headers"])
            kind = _plain_type(headers.get(b"content-type", b""))
            if not kind:
                await _refuse(send, 415, "the header Content-Type is missing, expected application/json.")
                return
            scope["headers"] = [(name, kind if name == b"content-type" else value) for name, value in scope["headers"]]
            taken = await _take(receive, headers.get(b"content-length", b""), max_body * MIB)
            if taken is None:
                await _refuse(
                    send, 413, f"the request is larger than {max_body} MiB (--max-body). Send fewer pairs at once."
                )
                return
            receive = taken
        status, body, is_answered = 0, bytearray(), False

        async def pass_on(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start" and message["status"] >= 400:
                status = message["status"]
            elif status:
                body.extend(message.get("body", b""))
            else:
                is_answered = True
                await send(message)

        try:
            await app(scope, receive, pass_on)
        except Exception as error:  # of reading the request: what the model raises, MLflow answers
            if is_answered:
                raise
            await _refuse(send, 400, f"the request cannot be read ({type(error).__name__}). Send dataframe_split.")
            return
        if status:
            await _refuse(send, status, _message_of(bytes(body)))

    return answer


def _plain_type(given: bytes) -> bytes:
    """A Content-Type as MLflow compares it: in small letters, and with no other parameter than charset."""
    kind, *parameters = (part.strip() for part in given.lower().split(b";"))
    pairs = [[part.strip(b' "') for part in parameter.partition(b"=")] for parameter in parameters]
    return b"; ".join([kind, *(b"charset=" + value for name, _, value in pairs if name == b"charset")])


async def _take(receive: Receive, length: bytes, limit: int) -> Receive | None:
    """The request up to its end, to be received again; None where it has more bytes than the limit.

    length: what its header says. What is too much is thrown away as it comes, as much again as the limit, because most
    clients read the answer only when they have sent all.
    """
    messages: list[Message] = []
    size, is_more = 0, True
    is_too_large = length.isdigit() and int(length) > limit
    while is_more and size <= 2 * limit:
        message = await receive()
        size += len(message.get("body", b""))
        is_more = message.get("more_body", False)
        is_too_large = is_too_large or size > limit
        if is_too_large:
            messages.clear()
        else:
            messages.append(message)
    if is_too_large:
        return None
    waiting = iter(messages)

    async def receive_again() -> Message:
        found = next(waiting, None)
        return await receive() if found is None else found

    return receive_again


async def _refuse(send: Send, status: int, message: str) -> None:
    code = HTTPStatus(status).name
    body = json.dumps({"error_code": code, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _message_of(body: bytes) -> str:
    """What an answer of MLflow, as JSON or plain text, says is wrong. The trace that it may have goes to the log."""
    text = body.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except ValueError:
        content = text
    if isinstance(content, dict):
        text = str(content.get("message", content.get("detail", "")))
        if trace := content.get("stack_trace"):
            lines = [_short(line) for line in str(trace).splitlines()]
            logging.getLogger("uvicorn.error").error("%s", "\n".join(lines[-40:]))
    return _short(ECHOES.sub("", text).rpartition(INNER)[2])


def _short(text: str) -> str:
    shorter = WORD.sub(lambda word: f"{word[0][:KEPT]}...", text)
    return printable(shorter[:LIMIT]) + (" ..." if len(shorter) > LIMIT else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the server."""
    parser = Parser(prog="python -m components.tracking.serving", description=__doc__)
    parser.add_argument("--model", required=True, metavar="URI", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5001, help="(default: %(default)s)")
    text = "seconds for an answer, with the wait for the requests before (default: %(default)s)"
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help=text)
    text = "largest request, of all its pairs together (default: %(default)s)"
    parser.add_argument("--max-body", type=whole_number(1, 2**20), default=MAX_BODY, metavar="MIB", help=text)
    a = parser.parse_args(argv)
    with errors_in_one_line():
        serve(a.model, a.host, a.port, a.timeout, a.max_body)


if __name__ == "__main__":
    main()

"""Requests of any content: masks, or a short refusal, and never an error of the server."""

import asyncio
import base64
import json
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.pyfunc import scoring_server

from base.images import encode_png
from components.tracking.serving import App, short_answers
from model.dual_hrnet import DualHRNet
from model.inference import save_model
from model.pyfunc import SIGNATURE
from tests.paths import ROOT
from tests.tiny import SMALL

IMAGES = [base64.b64encode(encode_png(np.zeros((size, 8, 3), np.uint8))).decode() for size in (8, 12)]
words = st.sampled_from([*IMAGES, IMAGES[0][:-4], IMAGES[0][:-1], "iVBORw0K", "iVBORw0K!", "", "é"])
things: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
cells = words | things
rows = st.lists(st.fixed_dictionaries({}, optional={"pre": cells, "post": cells, "more": things}), max_size=2)
split = st.fixed_dictionaries(
    {"data": st.lists(st.lists(cells, max_size=3), max_size=2) | things},
    optional={"columns": st.just(["pre", "post"]) | things, "index": things, "more": things},
)
columns = st.dictionaries(st.sampled_from(["pre", "post", "more"]), st.lists(cells, max_size=2) | cells, max_size=3)
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
bodies = (
    things
    | st.dictionaries(st.sampled_from([*FORMS, "params", "messages"]), rows | columns | things, max_size=2)
    | st.builds(lambda content: {"dataframe_split": content}, split)
    | st.builds(lambda form, content: {form: content}, st.sampled_from(FORMS[1:]), rows | columns)
)
JSON = "application/json"
KINDS = (JSON, f"{JSON}; charset=utf-8", "Text/CSV;charset", "text/csv", "application/vnd.apache.parquet", "", ";", "é")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """MLflow's server of a model with random weights, as `components.tracking.serving` runs it."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    save_model(DualHRNet(**SMALL), folder / "model")
    mlflow.pyfunc.save_model(
        folder / "package", python_model=str(ROOT / "model" / "pyfunc.py"), artifacts={"model": str(folder / "model")},
        signature=SIGNATURE, pip_requirements=[],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # which `init` sets, and would leave so
        return short_answers(scoring_server.init(mlflow.pyfunc.load_model(str(folder / "package"))))


def post(app: App, body: bytes | Iterable[bytes], kind: str = JSON, **headers: str) -> tuple[int, bytes]:
    """Status and body of the answer. body: as a whole, or as parts that come one by one and never end."""
    sent: list[Any] = []
    parts = None if isinstance(body, bytes) else iter(body)

    async def receive() -> Any:
        return {"type": "http.request", "body": body if parts is None else next(parts), "more_body": parts is not None}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "query_string": b"", "http_version": "1.1",
             "headers": [(b"content-type", kind.encode()), *((name.encode(), value.encode()) for name, value in
                         headers.items())]}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def check(app: App, body: bytes, kind: str = JSON) -> None:
    status, answer = post(app, body, kind)
    content = json.loads(answer)
    if status == 200:
        assert all(base64.b64decode(row["damage"]).startswith(b"\x89PNG") for row in content["predictions"])
        assert content["predictions"]
        return
    assert status in (400, 415)
    assert set(content) == {"error_code", "message"}
    assert content["message"].isprintable() and 0 < len(content["message"]) < 600
    assert not any(image[24:60] in content["message"] for image in IMAGES)


@settings(max_examples=40)
@given(bodies)
def test_any_json_is_answered_or_refused(app: App, body: Any) -> None:
    check(app, json.dumps(body).encode("utf-8", "surrogatepass"))


@settings(max_examples=40)
@given(st.binary(max_size=80) | st.sampled_from([b"pre,post\n", b"PAR1", b'{"inputs": ']), st.sampled_from(KINDS))
def test_any_bytes_of_any_type_are_answered_or_refused(app: App, body: bytes, kind: str) -> None:
    check(app, body, kind)


@pytest.mark.parametrize("form", FORMS[1:])
def test_an_image_whose_base64_lost_its_end_is_refused(app: App, form: str) -> None:
    row: Any = {"pre": IMAGES[0], "post": IMAGES[0][:-1]}
    content = {name: [image] for name, image in row.items()} if form == "inputs" else [row]
    status, answer = post(app, json.dumps({form: content}).encode())
    assert status == 400
    assert "adding" in json.loads(answer)["message"]  # Python's word for it


def test_a_request_that_is_no_text_is_not_repeated(app: App) -> None:
    status, answer = post(app, b'{"note": "of a person, (1, 2, \'three\')", "pre": "\xff\xfe"}')
    assert status == 400
    message = json.loads(answer)["message"]
    assert "UnicodeDecodeError" in message and "invalid start byte" in message
    assert "person" not in message and "three" not in message


@pytest.mark.parametrize(
    ("kind", "status"),
    [("Application/JSON", 200), ("application/json;charset=UTF-8", 200), ('APPLICATION/JSON ; Charset="utf-8"', 200),
     ("application/json; version=1", 200), ("application/json; charset=latin-1", 415), ("text/json", 415)],
)  # fmt: skip
def test_a_content_type_is_read_in_any_case_and_with_parameters(app: App, kind: str, status: int) -> None:
    body = json.dumps({"instances": [{"pre": IMAGES[0], "post": IMAGES[0]}]}).encode()
    assert post(app, body, kind)[0] == status


TOO_LARGE = "the request is larger than 1 MiB (--max-body). Send fewer pairs at once."


@pytest.mark.parametrize("headers", [{}, {"content-length": str(2**40)}], ids=["chunked", "with its length"])
def test_a_request_that_is_too_large_is_refused_before_its_end(app: App, headers: dict[str, str]) -> None:
    taken = 0

    def parts() -> Iterable[bytes]:
        nonlocal taken
        for part in repeat(bytes(2**16)):
            taken += len(part)
            yield part

    status, answer = post(short_answers(app, 1), parts(), **headers)
    assert (status, json.loads(answer)["message"]) == (413, TOO_LARGE)
    assert taken < 3 * 2**20


def test_a_request_of_the_largest_size_is_read_and_one_byte_more_is_not(app: App) -> None:
    body = json.dumps({"instances": [{"pre": IMAGES[0], "post": IMAGES[0]}]}).encode().ljust(2**20)
    small = short_answers(app, 1)
    assert post(small, body)[0] == 200
    assert post(small, body + b" ")[0] == 413

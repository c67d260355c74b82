"""The registered model behind the command of deploy/serving, MLflow's scoring server, as its clients see it."""

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import shapely
import torch
import yaml

from components.evaluate import evaluate
from components.params import load_params
from components.promote import promote
from components.register import register
from components.tracking import runs
from model.dual_hrnet import DualHRNet
from model.inference import save_model
from tests.commands import environment, succeed
from tests.comparing import read_png
from tests.paths import ROOT
from tests.scenes import pair
from tests.servers.ports import free_port
from tests.tiny import SMALL, write_params
from xbd.scenes import prepared_version

pytestmark = pytest.mark.slow


class Answer(NamedTuple):
    status: int
    text: str

    def row(self) -> dict[str, Any]:
        (row,) = json.loads(self.text)["predictions"]
        return dict(row)


class Served:
    """A server of the production version of a model with random weights."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri, self.port, self.log = folder, uri, free_port(), folder / "server.log"
        manifest = yaml.safe_load((ROOT / "deploy" / "serving" / "serving.yaml").read_text(encoding="utf-8"))
        (container,) = manifest["spec"]["predictor"]["containers"]
        ours = {"model": "models:/served@production", "host": "127.0.0.1", "port": str(self.port)}
        given = (word.removeprefix("--").partition("=") for word in container["args"])
        command = [f"--{name}={ours.get(name, value)}" if is_option else name for name, is_option, value in given]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment(MLFLOW_TRACKING_URI=uri),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while self._get("ping") != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def _get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
                return int(answer.status)
        except OSError:
            return 0

    def post(self, body: bytes, kind: str = "application/json") -> Answer:
        address = f"http://127.0.0.1:{self.port}/invocations"
        request = urllib.request.Request(address, body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode())

    def ask(self, *rows: tuple[bytes | None, bytes | None]) -> Answer:
        data = [[None if part is None else base64.b64encode(part).decode() for part in row] for row in rows]
        return self.post(json.dumps({"dataframe_split": {"columns": ["pre", "post"], "data": data}}).encode())


@pytest.fixture(scope="module")
def served(prepared: Path, mlflow_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    params = load_params(write_params(folder / "params.yaml", {"register": {"name": "served"}}))
    torch.manual_seed(9)  # with which it sees some buildings, of three grades
    save_model(DualHRNet(**SMALL), folder / "model")
    run = runs.open_run(folder / "run.json", "served", prepared_version(prepared), "settings")
    runs.finish_run(run)
    evaluate(prepared, folder / "model", folder / "scores", params, run_file=folder / "run.json")
    register(folder / "model", folder / "scores/metrics.json", folder / "run.json", folder / "version", params)
    promote("served", params.promote, version=1)
    server = Served(folder, mlflow_store)
    try:
        yield server
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(server.process.pid)])
        server.process.wait()


@pytest.fixture(scope="module")
def images(raw: Path) -> tuple[bytes, bytes]:
    _, pre, _, post = pair(raw)
    return Path(pre).read_bytes(), Path(post).read_bytes()


def decoded(text: str) -> Any:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


def test_masks_are_those_of_predict(served: Served, images: tuple[bytes, bytes], raw: Path, tmp_path: Path) -> None:
    answer = served.ask(images)
    assert answer.status == 200, answer.text
    succeed("predict", "--model", "models:/served@production", *pair(raw), "--out", tmp_path, cwd=tmp_path,
            MLFLOW_TRACKING_URI=served.uri)  # fmt: skip
    for name in ("localization", "damage"):
        np.testing.assert_array_equal(decoded(answer.row()[name]), read_png(tmp_path / f"{name}.png"))


def test_buildings_cover_the_localization_and_have_one_grade_each(served: Served, images: tuple[bytes, bytes]) -> None:
    row = served.ask(images).row()
    localization, damage = decoded(row["localization"]), decoded(row["damage"])
    assert len(row["buildings"]) > 1
    ys, xs = np.indices(localization.shape) + 0.5  # centres of the pixels
    drawn = np.zeros_like(localization)
    for building in row["buildings"]:
        outline = shapely.union_all([shapely.Polygon(outer, holes) for outer, *holes in building["polygons"]])
        own = shapely.contains_xy(outline, xs, ys)
        assert own.sum() == building["area"]
        of_pixels = set(np.unique(damage[own]))
        assert of_pixels <= {1, 2, 3, 4}
        assert len(of_pixels) > 1 or of_pixels == {building["grade"]}  # where all agree, so does the vote
        assert building["damage"] == ("no-damage", "minor-damage", "major-damage", "destroyed")[building["grade"] - 1]
        assert 0.25 <= building["confidence"] <= 1
        drawn += own
    np.testing.assert_array_equal(drawn, localization)


def test_rows_of_other_sizes_are_answered_in_one_request(served: Served, images: tuple[bytes, bytes]) -> None:
    small = [encode(np.zeros((40, 56, 3), np.uint8)) for _ in range(2)]
    answer = served.ask(images, (small[0], small[1]))
    assert [decoded(row["damage"]).shape for row in json.loads(answer.text)["predictions"]] == [(64, 64), (40, 56)]


def encode(image: Any) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes of data do not have."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("bad", "finding"),
    [
        (b"GIF89a no PNG at all", "row 0, pre: begins with b'GIF89a n', expected the bytes of a PNG file"),
        (b"", "row 0, pre: is empty"),
        (None, "Failed to convert column pre"),
        (png_of(31623, 31623), "row 0, pre: claims 31623x31623 pixels, the limit is 4194304"),  # 3 GB of RGB
        (png_of(64, 64), "row 0, pre: cannot be decoded"),
        (encode(np.zeros((64, 64), np.uint8)), "row 0, pre: has mode L, expected 8-bit RGB"),
        (encode(np.zeros((32, 64, 3), np.uint8)), "row 0: pre and post are 64x32 and 64x64 pixels, expected one size"),
    ],
    ids=["text", "nothing", "null", "bomb", "truncated", "grey", "size"],
)
def test_a_bad_pair_is_refused_and_the_server_lives_on(
    bad: bytes | None, finding: str, served: Served, images: tuple[bytes, bytes]
) -> None:
    answer = served.ask((bad, images[1]))
    assert answer.status == 400
    assert finding in json.loads(answer.text)["message"]
    assert len(answer.text) < 700
    assert "Traceback" not in answer.text and "stack_trace" not in answer.text
    assert served.ask(images).status == 200


def in_base64(images: tuple[bytes, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(image).decode() for name, image in zip(("pre", "post"), images, strict=True)}


def test_every_form_of_a_request_is_answered_alike(served: Served, images: tuple[bytes, bytes]) -> None:
    row = in_base64(images)
    forms: dict[str, Any] = {
        "dataframe_records": [row],
        "instances": [row],
        "inputs": {name: [image] for name, image in row.items()},
    }
    expected = served.ask(images).row()
    for form, content in forms.items():
        answer = served.post(json.dumps({form: content}).encode())
        assert answer.status == 200, answer
        assert answer.row() == expected


@pytest.mark.parametrize("form", ["dataframe_records", "instances", "inputs", "pairs", "broken", "schema"])
def test_no_answer_and_no_log_repeats_a_request(form: str, served: Served, images: tuple[bytes, bytes]) -> None:
    row = in_base64((images[0], images[1] + bytes(300)))
    row["pre"] = row["pre"][:-200] + "!" * 8  # no base64
    bodies = {"inputs": {"inputs": {name: [image] for name, image in row.items()}},
              "schema": {"inputs": {"pre": [row["pre"]]}}}  # fmt: skip
    body = json.dumps(bodies.get(form, {form: [row]})).encode()
    answer = served.post(body[:-3] if form == "broken" else body)
    assert answer.status == 400, answer
    assert len(answer.text) < 700
    parts = [row[name][start : start + 40] for name in row for start in range(60, len(row[name]) - 300, 40)]
    said = answer.text + served.log.read_text(encoding="utf-8")
    assert [part for part in parts if part in said] == []


def test_a_request_without_a_content_type_is_the_clients_fault(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"the header Content-Type is missing, expected application/json" in answer


@pytest.mark.parametrize(
    ("body", "kind", "finding"),
    [
        (b"", "application/json", "valid JSON"),
        (b"{", "application/json", "JSON"),
        (b'{"pairs": []}', "application/json", "dataframe_split"),
        (b'{"dataframe_split": {"columns": ["pre", "post"], "data": []}}', "application/json", "has no row"),
        (b'{"dataframe_split": {"columns": ["pre"], "data": [["aGk="]]}}', "application/json", "post"),
        (b'{"dataframe_records": [{"pre": "abc", "post": "aGk="}]}', "application/json", "Incorrect padding"),
        (b'{"dataframe_records": []}', "application/json", "missing inputs"),
        (b"pre,post", "text/plain", "text/plain"),
        (b"[" * 100_000, "application/json", "RecursionError"),
        (b'{"inputs": 3}', "application/json", ""),
        (b'{"dataframe_split": {"data": [[{}, []]]}}', "application/json", ""),
        (b"pre,post\nYQ==,YQ==", "text/csv", ""),
        (b"PAR1", "application/vnd.apache.parquet", ""),
    ],
    ids=["empty", "broken", "unknown", "no rows", "no post", "no base64", "no records", "text", "deep", "number",
         "no columns", "csv", "parquet"],
)  # fmt: skip
def test_a_bad_request_is_the_clients_fault(
    body: bytes, kind: str, finding: str, served: Served, images: tuple[bytes, bytes]
) -> None:
    answer = served.post(body, kind)
    assert 400 <= answer.status < 500, answer
    assert finding in json.loads(answer.text)["message"]
    assert len(answer.text) < 700
    assert "Traceback" not in answer.text and "stack_trace" not in answer.text
    assert served.ask(images).status == 200

"""Labels, indexes and arrays of any content: what they hold, or one line that says why not."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.paths import GOLDEN
from xbd.labels import LabelError, decode_label
from xbd.masks import is_drawn, rasterize
from xbd.scenes import SceneError, open_scene, parse_record, read_index, save_scene, scene_path

numbers = st.floats(allow_nan=True) | st.integers(-(10**12), 10**12)
rings = st.lists(st.tuples(numbers, numbers), max_size=6).map(
    lambda ring: "(" + ", ".join(f"{x} {y}" for x, y in [*ring, *ring[:1]]) + ")"
)
wkt = (
    st.builds("POLYGON {}({})".format, st.sampled_from(["", "Z ", "M ", "EMPTY "]), rings)
    | st.builds("{} ({})".format, st.sampled_from(["MULTIPOLYGON", "CURVEPOLYGON", "GEOMETRYCOLLECTION"]), rings)
    | st.text(alphabet="POLYGNEMTZ ()0123456789.,-einfa", max_size=40)
)
things: Any = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
properties = st.fixed_dictionaries(
    {}, optional={"uid": things, "subtype": st.sampled_from(["destroyed", "no-damage", None]) | things}
)
features = st.fixed_dictionaries({"properties": properties | things, "wkt": wkt | things})
contents = st.fixed_dictionaries(
    {"features": st.fixed_dictionaries({"xy": st.lists(features, max_size=4) | things}) | things,
     "metadata": st.dictionaries(st.sampled_from(["width", "gsd", "disaster"]), things) | things}
)  # fmt: skip


def check(content: bytes) -> None:
    """Decodes a label; the buildings that come must be fit to be drawn."""
    try:
        label = decode_label(content, "a.json")
    except LabelError as error:
        assert str(error).startswith("a.json: ")
        return
    mask = rasterize(label.buildings, (20, 30))
    shown = [building for building in label.buildings if is_drawn(building, (20, 30))]
    assert mask.any() or not shown


CURVE = {"properties": {}, "wkt": "CURVEPOLYGON ((0 0, 0 0))"}


@settings(max_examples=150)
@example({"features": {"xy": [CURVE]}, "metadata": {}})
@given(contents)
def test_any_content_is_a_label_or_refused(content: Any) -> None:
    check(json.dumps(content).encode())


@settings(max_examples=100)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"{"]))
def test_any_bytes_are_a_label_or_refused(content: bytes, start: bytes) -> None:
    check(start + content)


LINES = list(csv.reader(io.StringIO((GOLDEN / "earlier" / "prepared" / "index.csv").read_text(encoding="utf-8"))))
words = st.text(max_size=6) | st.sampled_from(["", "nan", "-1", "1e9", "9" * 5000, "\x00", '"', "../a", "1_0", "none"])


@settings(max_examples=150)
@example(changes=[(1, LINES[0].index("height"), "-1")], bytes_=b"", place=0)
@example(changes=[(1, LINES[0].index("height"), str(2**63))], bytes_=b"", place=0)
@given(
    st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.integers(0, len(LINES[0]) - 1), words), max_size=4),
    st.binary(max_size=4),
    st.integers(0, 10**5),
)
def test_any_index_is_read_or_refused(
    tmp_path_factory: Any, changes: list[tuple[int, int, str]], bytes_: bytes, place: int
) -> None:
    lines = [list(line) for line in LINES]
    for row, column, word in changes:
        lines[row][column] = word
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(lines)
    content = written.getvalue().encode("utf-8", "replace")
    start = place % len(content)
    root = Path(tmp_path_factory.getbasetemp())
    (root / "index.csv").write_bytes(content[:start] + bytes_ + content[start + len(bytes_) :])
    try:
        records = read_index(root)
    except SceneError as error:
        assert str(error).startswith(str(root))
        return
    assert all(record.scene and np.isreal(record.gsd) and 0 <= record.height < 2**31 for record in records)


@settings(max_examples=100)
@example(changes=[], cut=0, header="{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, -7), }")
@given(
    changes=st.lists(st.tuples(st.integers(0, 160), st.binary(max_size=4)), max_size=4),
    cut=st.integers(0, 200),
    header=st.none() | st.text(alphabet="{}()[]'\"descrfotanhpu|<1278,: -", max_size=40),
)
def test_any_array_is_a_scene_or_refused(
    tmp_path_factory: Any, changes: list[tuple[int, bytes]], cut: int, header: str | None
) -> None:
    root = Path(tmp_path_factory.getbasetemp())
    (root / "scenes").mkdir(exist_ok=True)
    record = replace(parse_record(dict(zip(LINES[0], LINES[1], strict=True))), height=2, width=3)
    save_scene(root, record.scene, np.zeros((2, 3, 7), np.uint8))
    path = scene_path(root, record.scene)
    content = bytearray(path.read_bytes())
    if header is not None:
        content[10:128] = header.encode().ljust(118)
    for place, value in changes:
        content[place : place + len(value)] = value
    path.write_bytes(content[: cut or None])
    try:
        array = open_scene(root, record)
    except SceneError as error:
        assert str(error).startswith(f"{path}: ")
        assert str(error).isprintable()
        return
    assert array.shape == (2, 3, 7)
    assert array.dtype == np.uint8
    assert array.sum() >= 0  # every page of it can be read

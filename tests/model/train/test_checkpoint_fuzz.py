"""Checkpoints of any content: the state that was written, or one line that says why not."""

import hashlib
import io
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.train.checkpoint_folder import UnusableError, check_checkpoint, load_state
from tests.model.train.checkpoint_states import IDENTITY, state, write

IDENTITY_AS_JSON = json.loads(json.dumps(IDENTITY))
changes = st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4)), max_size=6)
things: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write(folder, 10)
    return folder / "step_00000010"


def check(path: Path) -> None:
    """Loads a checkpoint; what comes must be a state."""
    try:
        loaded = load_state(path, check_checkpoint(path, IDENTITY_AS_JSON))
    except UnusableError as error:
        assert str(error).isprintable()
        return
    assert isinstance(loaded, dict)


def describe(path: Path) -> None:
    """Gives a checkpoint the size and sha256 of the state that it has, as if it had been written so."""
    description = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
    content = (path / "state.pt").read_bytes()
    description |= {"state_size": len(content), "state_sha256": hashlib.sha256(content).hexdigest()}
    (path / "checkpoint.json").write_text(json.dumps(description), encoding="utf-8")


@pytest.fixture(scope="module")
def path(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a copy of the good checkpoint with files of other content."""
    copy = tmp_path_factory.mktemp("copy") / good.name
    copy.mkdir()

    def make(**contents: bytes) -> Path:
        for name in ("state.pt", "checkpoint.json"):
            (copy / name).write_bytes(contents.get(name.partition(".")[0], (good / name).read_bytes()))
        return copy

    return make


def changed(content: bytes, changes: list[tuple[int, bytes]], cut: int) -> bytes:
    result = bytearray(content)
    for place, value in changes:
        start = place % len(result)
        result[start : start + len(value)] = value
    return bytes(result[: cut or None])


@settings(max_examples=60)
@given(changes=changes, cut=st.integers(0, 6000), is_described=st.booleans())
def test_a_changed_state_is_the_one_written_or_refused(
    path: Callable[..., Path], good: Path, changes: list[tuple[int, bytes]], cut: int, is_described: bool
) -> None:
    before = (good / "state.pt").read_bytes()
    copy = path(state=changed(before, changes, cut))
    if is_described:
        describe(copy)
    elif (copy / "state.pt").read_bytes() != before:
        with pytest.raises(UnusableError):
            load_state(copy, check_checkpoint(copy, IDENTITY_AS_JSON))
    check(copy)


@settings(max_examples=60)
@given(changes=changes, cut=st.integers(0, 500), other=things, key=st.sampled_from([None, "step", "score", "identity"]))
def test_any_description_is_read_or_refused(
    path: Callable[..., Path], good: Path, changes: list[tuple[int, bytes]], cut: int, other: Any, key: str | None
) -> None:
    before = (good / "checkpoint.json").read_bytes()
    check(path(checkpoint=changed(before, changes, cut)))
    described = other if key is None else json.loads(before) | {key: other}
    check(path(checkpoint=json.dumps(described).encode("utf-8", "surrogatepass")))


class Runs:
    """A pickle of it ends the process that loads it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [saved(torch.zeros(3)), saved([state(1)]), saved(None), saved(Runs()), pickle.dumps(Runs()), pickle.dumps({}),
     pickle.dumps(OrderedDict(a=1)), b"PK\3\4", b"\x80\2.", saved({1: Runs()})],
    ids=["tensor", "list", "none", "code", "pickled code", "pickled mapping", "ordered", "zip", "stop", "code in it"],
)  # fmt: skip
def test_other_pickles_are_no_state_and_do_not_run(path: Callable[..., Path], content: bytes) -> None:
    copy = path(state=content)
    describe(copy)
    with pytest.raises(UnusableError, match=r"^state\.pt (cannot be read|holds)"):
        load_state(copy, check_checkpoint(copy, IDENTITY_AS_JSON))

"""Model directories of any content: a model that predicts, or one line that says why not."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from model.dual_hrnet import DualHRNet
from model.inference import ModelError, load_model, read_origin, save_model
from tests.tiny import SMALL

changes = st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4)), max_size=6)
# Sizes that build in no time, and those that no machine can.
sizes = st.integers(-1, 3) | st.sampled_from([2**31, 2**70])
things: Any = st.recursive(
    st.none() | st.booleans() | sizes | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("width", "stem_width", "stage1_width", "stem_order", "batch_norm_momentum", "name", "")
architectures = st.dictionaries(st.sampled_from(FIELDS), things, max_size=2).map(lambda changed: SMALL | changed)
KEYS = ("model", "architecture", "preprocessing", "trained_on")
shapes = st.lists(sizes, max_size=4)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good") / "model"
    torch.manual_seed(0)
    save_model(DualHRNet(**SMALL), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def check(folder: Path, good: dict[str, bytes], **contents: bytes) -> None:
    """Loads a model directory with these files; what comes must be a model in float32, and finite."""
    write(folder, {name: contents.get(name.partition(".")[0], content) for name, content in good.items()})
    try:
        model = load_model(folder)
        read_origin(folder)
    except ModelError as error:
        assert str(error).startswith(f"{folder}/")
        assert str(error).isprintable()
        return
    values = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert all(value.dtype == torch.float32 for value in values)
    image = torch.zeros(1, 3, 32, 32)
    with torch.inference_mode():
        assert model(image, image).damage.shape == (1, 4, 8, 8)
    assert all(value.isfinite().all() for value in values)


@settings(max_examples=8)
@given(config=things | st.dictionaries(st.sampled_from(KEYS), things | architectures, max_size=3))
def test_any_config_is_a_model_or_refused(folder: Path, good: dict[str, bytes], config: Any) -> None:
    check(folder, good, config=json.dumps(config).encode("utf-8", "surrogatepass"))
    if isinstance(config, dict):
        check(folder, good, config=json.dumps(json.loads(good["config.json"]) | config).encode())


@settings(max_examples=8)
@given(changes=changes, cut=st.integers(0, 2**16), name=st.sampled_from(["config", "model"]))
def test_damaged_files_are_a_model_or_refused(
    folder: Path, good: dict[str, bytes], changes: list[tuple[int, bytes]], cut: int, name: str
) -> None:
    content = bytearray(next(content for file, content in good.items() if file.startswith(name)))
    for place, value in changes:
        start = place % len(content)
        content[start : start + len(value)] = value
    check(folder, good, **{name: bytes(content[: cut or None])})


@settings(max_examples=12)
@given(
    which=st.integers(0, 1000),
    change=st.fixed_dictionaries(
        {},
        optional={"dtype": st.sampled_from(["F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "X"]) | things,
                  "shape": shapes | things, "data_offsets": st.lists(st.integers(0, 2**17) | sizes, max_size=3)},
    ),
    more=st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), things, max_size=1),
)  # fmt: skip
def test_any_header_of_weights_is_a_model_or_refused(
    folder: Path, good: dict[str, bytes], which: int, change: dict[str, Any], more: dict[str, Any]
) -> None:
    weights = good["model.safetensors"]
    (size,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + size])
    name = sorted(header)[which % len(header)]
    header[name] = {**header[name], **change}
    written = json.dumps(header | more).encode("utf-8", "surrogatepass")
    check(folder, good, model=struct.pack("<Q", len(written)) + written + weights[8 + size :])


@pytest.mark.parametrize(
    ("change", "finding"),
    [(lambda weight: weight.int(), r"1 tensors do not fit .* is \(8,\) of int32, expected \(8,\)\. Use"),
     (lambda weight: weight / 0, r"1 tensors hold values that are no numbers, cls_net\.bn1\.weight among them")],
    ids=["whole numbers", "infinite"],
)  # fmt: skip
def test_weights_that_are_no_weights_are_refused(
    folder: Path, good: dict[str, bytes], change: Callable[[torch.Tensor], torch.Tensor], finding: str
) -> None:
    state = load(good["model.safetensors"])
    changed = state | {"cls_net.bn1.weight": change(state["cls_net.bn1.weight"])}
    write(folder, good | {"model.safetensors": save(changed)})
    with pytest.raises(ModelError, match=finding):
        load_model(folder)


def test_weights_of_half_precision_are_a_model_of_single_precision(folder: Path, good: dict[str, bytes]) -> None:
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in load(good["model.safetensors"]).items()
    }
    write(folder, good | {"model.safetensors": save(halves)})
    found = load_model(folder).state_dict()
    assert all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in halves.items())
    assert found["cls_net.bn1.weight"].dtype == torch.float32

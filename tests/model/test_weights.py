"""Weight files of others: what is read, which published checkpoints load, and what is refused without being run."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.dual_hrnet import DualHRNet
from model.published import load_published
from model.weights import WeightsError, read_state
from tests.paths import GOLDEN
from tests.tiny import SMALL

PUBLISHED = GOLDEN / "model" / "published_format_tiny.pth"
COUNTER = "num_batches_tracked"
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(4)}

State = dict[str, Tensor]


def published_state() -> State:
    state: State = torch.load(PUBLISHED, weights_only=True)["state_dict"]
    return state


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refusal(load: Callable[[Path], Any], path: Path) -> str:
    """The message with which the file is refused: one line that names it."""
    with pytest.raises(WeightsError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    return line


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


# --- reading ---


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "model.module."])
@pytest.mark.parametrize("nested", [True, False], ids=["state_dict", "bare"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_tensors_are_read_from_every_kind_of_file(kind: str, nested: bool, prefix: str, tmp_path: Path) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    else:
        path = tmp_path / "weights.pth"
        content = {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}} if nested else state
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    found = read_state(path)
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_a_prefix_that_not_all_names_carry_stays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"model.a": torch.ones(1), "model.module.b": torch.ones(1), "c": torch.ones(1)})
    assert list(read_state(path)) == ["model.a", "model.module.b", "c"]


class Attack:
    """Writes a file when it is unpickled by a reader that trusts the pickle."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    content = {"state_dict": STATE, "epoch": Attack(tmp_path / "executed")}
    path = tmp_path / "weight.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content["epoch"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    line = refusal(read_state, path)
    assert not (tmp_path / "executed").exists()
    assert "is a pickle" in line
    assert "was not loaded" in line
    assert kind == "pickle" or "mkdir" in line
    if kind == "pickle":  # the attack works where it is let
        pickle.loads(path.read_bytes())
        assert (tmp_path / "executed").is_dir()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_missing_file_a_folder_and_an_empty_file_are_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weight{ending}"
    assert "No such file" in refusal(read_state, path)
    path.mkdir()
    assert "is a folder, expected a file" in refusal(read_state, path)
    path.rmdir()
    path.touch()
    assert "it is empty" in refusal(read_state, path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("weight.safetensors" if kind == "safetensors" else "weight.pth")
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    for length in range(1, len(content) - 1, len(content) // 20):
        path.write_bytes(content[:length])
        line = refusal(read_state, path)
        # A legacy file that ends within the name of a class asks for a class that nobody has.
        assert "is no whole weight file" in line or (kind == "legacy" and "is a pickle that calls" in line)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_page_in_place_of_weights_is_shown(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"weight{ending}"
    path.write_text("<!DOCTYPE html><html><body>Quota exceeded</body></html>")
    assert "it starts with '<!DOCTYPE html>" in refusal(read_state, path)
    path.write_bytes(bytes(range(255, 0, -1)))
    assert "is no whole weight file" in refusal(read_state, path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"model": STATE, "epoch": 3}, "a dict of model, epoch"),
        ({"state_dict": {}, "epoch": 3}, "a dict of state_dict, epoch"),
        ({"state_dict": 3}, "a dict of state_dict"),
        ({}, "a dict of nothing"),
        ([torch.ones(1)], "list"),
        (torch.ones(1), "Tensor"),
        ({"line\nbreak": 1}, r"'line\nbreak'"),
        ({"a": torch.ones(1), "b": "text"}, "b is a str among tensors"),
        ({"a": torch.ones(1), 3: torch.ones(1)}, "3 is a Tensor among tensors"),
    ],
    ids=str,
)
def test_a_file_without_a_state_dict_is_refused_with_what_it_holds(content: Any, named: str, tmp_path: Path) -> None:
    assert named in refusal(read_state, save(tmp_path / "weight.pth", content))


# --- published checkpoints ---


def test_sizes_of_a_published_checkpoint_are_read_off_its_tensors() -> None:
    model = load_published(PUBLISHED)
    a = model.architecture
    assert (a.width, a.stem_width, a.stage1_width, a.stage1_blocks, a.blocks) == (8, 64, 8, 1, 1)
    assert list(a.modules) == [1, 2, 1]
    assert a.stem_order == "published"
    assert not any(module.training for module in model.modules())
    assert_equal(model.state_dict(), published_state())


def test_other_sizes_are_read_too(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "width": 6,
        "stem_width": 10,
        "stage1_width": 3,
        "stage1_blocks": 2,
        "modules": [2, 1, 3],
        "blocks": 3,
    }
    with torch.random.fork_rng():
        original = DualHRNet(**fields)
    a = load_published(save(tmp_path / "weight.pth", original.state_dict())).architecture
    assert {name: getattr(a, name) for name in fields} == fields


def test_half_precision_and_missing_counters_are_no_hindrance(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in published_state().items() if not name.endswith(COUNTER)}
    model = load_published(save(tmp_path / "weight.pth", state))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].float() if name in state else torch.tensor(0))
        assert tensor.device.type == "cpu"


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    state = published_state()
    missing = ["cls_net.last_layer.0.bias", "fuse_loc_stage2.1.0.weight"]
    for name in missing:
        del state[name]
    state["disaster_layer.2.weight"] = torch.ones(6, 120)
    state["loc_net.last_layer.3.weight"] = torch.ones(5, 120, 1, 1)
    line = refusal(load_published, save(tmp_path / "weight.pth", state))
    assert f"2 missing: {', '.join(missing)}" in line
    assert "1 unknown: disaster_layer.2.weight" in line
    assert "1 misshapen: loc_net.last_layer.3.weight is (5, 120, 1, 1), expected (2, 120, 1, 1)" in line


def test_of_many_tensors_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    state = published_state() | {f"extra.{number}": torch.ones(1) for number in range(25)}
    line = refusal(load_published, save(tmp_path / "weight.pth", state))
    assert "25 unknown: extra.0, extra.1," in line
    assert "and 15 more" in line


@pytest.mark.parametrize("name", ["conv1.weight", "stage2.0.branches.0.0.conv1.weight", "layer1.0.conv1.weight"])
def test_a_tensor_that_tells_a_size_may_be_missing_and_is_named(name: str, tmp_path: Path) -> None:
    state = published_state()
    del state[f"loc_net.{name}"]
    assert f"1 missing: loc_net.{name}" in refusal(load_published, save(tmp_path / "weight.pth", state))
    state[f"cls_net.{name}"] = torch.ones(3)
    assert f"{name} is missing or misshapen in both streams" in refusal(
        load_published, save(tmp_path / "weight.pth", state)
    )


def test_a_stage_that_both_streams_lack_is_named(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in published_state().items() if ".stage3." not in name}
    line = refusal(load_published, save(tmp_path / "weight.pth", state))
    assert "stage3.0 is missing" in line
    assert "stage4" not in line


def test_streams_of_two_sizes_are_not_one_network(tmp_path: Path) -> None:
    wide = DualHRNet(**SMALL | {"width": 6}).state_dict()
    state = {
        name: wide[name] if "loc_net" in name else tensor for name, tensor in DualHRNet(**SMALL).state_dict().items()
    }
    line = refusal(load_published, save(tmp_path / "weight.pth", state))
    assert "width is 6 in loc_net and 4 in cls_net" in line


def test_a_file_of_another_network_is_no_dual_hrnet(tmp_path: Path) -> None:
    single = {name.removeprefix("loc_net."): tensor for name, tensor in published_state().items() if "loc_net" in name}
    line = refusal(load_published, save(tmp_path / "weight.pth", single))
    assert "is no Dual-HRNet" in line
    assert "goes to train.pretrained" in line
    line = refusal(load_published, save(tmp_path / "weight.pth", {"fc.weight": torch.ones(3, 4)}))
    assert "is no Dual-HRNet, it has fc" in line
    one = {name: tensor for name, tensor in published_state().items() if not name.startswith("cls_net.")}
    assert "is no Dual-HRNet" in refusal(load_published, save(tmp_path / "weight.pth", one))

"""Batch norm over processes equals batch norm of one process on the whole batch."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from model.dual_hrnet import DualHRNet
from model.fast.folding import fold
from model.train.distributed import World
from model.train.sync_batch_norm import SyncBatchNorm2d, convert
from tests.commands import environment
from tests.comparing import assert_close
from tests.paths import ROOT
from tests.tiny import SMALL
from tests.workers.sync_batch_norm_worker import CASES, SIZES, Case, network, network_batch, network_step, train_steps

CPU = torch.device("cpu")
Results = dict[int, list[dict[str, dict[str, Tensor]]]]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of every world: by rank, by case."""
    out = tmp_path_factory.mktemp("sync_batch_norm")
    command = [sys.executable, str(ROOT / "tests" / "workers" / "sync_batch_norm_worker.py"), str(out)]
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return {size: [torch.load(out / f"{size}-{rank}.pt") for rank in range(size)] for size in SIZES}


def whole(name: str, case: Case, size: int) -> dict[str, Tensor]:
    """torch's own batch norm, in one process."""
    return train_steps(case.norm(nn.BatchNorm2d), case, size, slice(None))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in CASES if name != "large mean"])
def test_a_batch_over_several_processes_is_normalized_as_in_one(name: str, size: int, results: Results) -> None:
    case = CASES[name]
    ranks = [rank[name] for rank in results[size]]
    expected = whole(name, case, size)
    tolerance = TOLERANCES[case.dtype]
    assert all(rank.keys() == expected.keys() for rank in ranks)
    for key, value in expected.items():
        if key in ("output", "input_grad", "eval"):
            assert_close(torch.cat([rank[key] for rank in ranks]), value, tolerance)
        elif key.endswith("_grad"):
            assert_close(torch.stack([rank[key] for rank in ranks]).sum(0), value, tolerance)
        else:  # running statistics, float32 or float64 in all cases
            assert_close(ranks[0][key], value, min(tolerance, 1e-6))
            assert all(torch.equal(rank[key], ranks[0][key]) for rank in ranks)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["float32", "plain layout"])
def test_the_memory_layout_of_the_input_is_that_of_output_and_gradient(name: str, size: int, results: Results) -> None:
    layout = torch.channels_last if CASES[name].channels_last else torch.contiguous_format
    for rank in results[size]:
        for key in ("output", "input_grad"):
            assert rank[name][key].is_contiguous(memory_format=layout)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_mean_far_from_zero_does_not_swallow_the_variance(size: int, results: Results) -> None:
    norm = CASES["large mean"].norm(nn.BatchNorm2d).double()
    for step in range(3):
        norm(CASES["large mean"].batch(size, step)[0].double())
    # In float32 numbers at 4096 are 0.0005 apart; E[x^2] - E[x]^2 would be off by about 1, at a variance of 2.
    for rank in results[size]:
        torch.testing.assert_close(rank["large mean"]["running_var"].double(), norm.running_var, rtol=1e-3, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_step_of_the_network_over_several_processes_is_the_step_of_one(
    size: int, recompute: bool, results: Results
) -> None:
    model = network(recompute=False)
    network_step(model, *network_batch())
    for rank in results[size]:
        found = rank[f"network, recompute {recompute}"]
        assert found.keys() == model.state_dict().keys()
        for key, value in model.state_dict().items():
            # A bias before a batch norm has a gradient of zero, and rounding noise instead, of the size of the others'.
            share = 1.0 if key.endswith("bias") else float(value.abs().max())
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-12 * share)


def test_converting_keeps_every_tensor_under_its_name() -> None:
    model = DualHRNet(**SMALL)
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    values = copy.deepcopy(model.state_dict())
    converted = convert(model, World(0, 2, 0, CPU))
    after = dict(converted.named_parameters()) | dict(converted.named_buffers())
    assert after.keys() == before.keys()
    assert all(after[name] is tensor for name, tensor in before.items())
    assert converted.state_dict().keys() == values.keys()
    assert all(torch.equal(tensor, values[name]) for name, tensor in converted.state_dict().items())
    norms = [part for part in converted.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and all(type(norm) is SyncBatchNorm2d for norm in norms)


def test_on_cuda_the_native_layer_takes_over_the_same_tensors() -> None:
    model = DualHRNet(**SMALL)
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    converted = convert(model, World(0, 2, 0, torch.device("cuda", 0)))
    after = dict(converted.named_parameters()) | dict(converted.named_buffers())
    assert after.keys() == before.keys()
    assert all(after[name] is tensor for name, tensor in before.items())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in converted.modules())


def test_a_world_of_one_keeps_torchs_batch_norm() -> None:
    model = convert(DualHRNet(**SMALL), World(0, 1, 0, CPU))
    assert {type(part) for part in model.modules() if isinstance(part, nn.BatchNorm2d)} == {nn.BatchNorm2d}


@pytest.mark.parametrize("device", ["cpu", "cuda"])  # of the world; the network stays where it is
@pytest.mark.parametrize("stem_order", ["imagenet", "published"])
def test_a_converted_network_is_folded_like_any_other(stem_order: str, device: str) -> None:
    torch.manual_seed(8)
    model = DualHRNet(**SMALL, stem_order=stem_order).train()
    with torch.no_grad():
        for _ in range(5):
            model(*torch.randn(2, 2, 3, 64, 64))
    images = torch.randn(2, 2, 3, 64, 96)
    with torch.inference_mode():
        expected = fold(model)(*images)
        folded = fold(convert(model, World(0, 2, 0, torch.device(device))).eval())
        assert all(torch.equal(*pair) for pair in zip(folded(*images), expected, strict=True))
    left = sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in folded.modules())
    assert left == (2 if stem_order == "published" else 0)  # those behind a ReLU


def test_without_a_process_group_it_is_plain_batch_norm() -> None:
    case = CASES["float32"]
    found = train_steps(case.norm(SyncBatchNorm2d), case, 2, slice(None))
    for key, value in whole("float32", case, 2).items():
        assert torch.equal(found[key], value)


def test_only_image_batches_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="expected 4D input"):
        SyncBatchNorm2d(3)(torch.zeros(2, 3))

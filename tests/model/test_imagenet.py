"""ImageNet backbones: every tensor of an HRNet classification file goes into both streams, or the file is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.dual_hrnet import DualHRNet
from model.weights import WeightsError, load_imagenet
from tests.paths import GOLDEN

COUNTER = "num_batches_tracked"
# No two of its channel counts are equal, so that no tensor fits a wrong place by chance.
BACKBONE: dict[str, Any] = {
    "width": 5,
    "stem_width": 6,
    "stage1_width": 3,
    "stage1_blocks": 2,
    "modules": (1, 2, 1),
    "blocks": 2,
}

State = dict[str, Tensor]
Layout = Iterator[tuple[str, tuple[int, ...]]]  # names and shapes


# The layout of an HRNet classification file, enumerated as timm's hrnet.py builds it.


def conv(name: str, out: int, channels: int, kernel: int, bias: bool = False) -> Layout:
    yield f"{name}.weight", (out, channels, kernel, kernel)
    if bias:
        yield f"{name}.bias", (out,)


def norm(name: str, channels: int) -> Layout:
    yield from ((f"{name}.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var"))
    yield f"{name}.{COUNTER}", ()


def bottleneck(name: str, channels: int, planes: int) -> Layout:
    layers = [(planes, channels, 1), (planes, planes, 3), (4 * planes, planes, 1)]
    for number, (out, before, kernel) in enumerate(layers, 1):
        yield from conv(f"{name}.conv{number}", out, before, kernel)
        yield from norm(f"{name}.bn{number}", out)
    if channels != 4 * planes:
        yield from conv(f"{name}.downsample.0", 4 * planes, channels, 1)
        yield from norm(f"{name}.downsample.1", 4 * planes)


def exchange(name: str, channels: list[int]) -> Layout:
    for i, out in enumerate(channels):
        for j, source in enumerate(channels):
            if j > i:
                yield from conv(f"{name}.{i}.{j}.0", out, source, 1)
                yield from norm(f"{name}.{i}.{j}.1", out)
            for k in range(i - j):
                step = out if k == i - j - 1 else source
                yield from conv(f"{name}.{i}.{j}.{k}.0", step, source, 3)
                yield from norm(f"{name}.{i}.{j}.{k}.1", step)


def backbone_layout(a: dict[str, Any]) -> Layout:
    width, stem, wide = a["width"], a["stem_width"], 4 * a["stage1_width"]
    for number, before in ((1, 3), (2, stem)):
        yield from conv(f"conv{number}", stem, before, 3)
        yield from norm(f"bn{number}", stem)
    for i in range(a["stage1_blocks"]):
        yield from bottleneck(f"layer1.{i}", wide if i else stem, a["stage1_width"])
    # A changed branch is one block; a new one is a list of blocks, hence one more number.
    transitions = [("transition1.0", width, wide), ("transition1.1.0", 2 * width, wide)]
    transitions += [("transition2.2.0", 4 * width, 2 * width), ("transition3.3.0", 8 * width, 4 * width)]
    for name, out, before in transitions:
        yield from conv(f"{name}.0", out, before, 3)
        yield from norm(f"{name}.1", out)
    for stage, modules in zip((2, 3, 4), a["modules"], strict=True):
        channels = [width * 2**branch for branch in range(stage)]
        for module in (f"stage{stage}.{number}" for number in range(modules)):
            for branch, count in enumerate(channels):
                for block in (f"{module}.branches.{branch}.{number}" for number in range(a["blocks"])):
                    for layer in (1, 2):
                        yield from conv(f"{block}.conv{layer}", count, count, 3)
                        yield from norm(f"{block}.bn{layer}", count)
            yield from exchange(f"{module}.fuse_layers", channels)


def head_layout(width: int) -> Layout:
    planes = (2, 3, 5, 6)  # 32, 64, 128, 256 in the real files; never read
    for i, count in enumerate(planes):
        yield from bottleneck(f"incre_modules.{i}.0", width * 2**i, count)
    for i in range(3):
        yield from conv(f"downsamp_modules.{i}.0", 4 * planes[i + 1], 4 * planes[i], 3, bias=True)
        yield from norm(f"downsamp_modules.{i}.1", 4 * planes[i + 1])
    yield from conv("final_layer.0", 20, 4 * planes[3], 1, bias=True)
    yield from norm("final_layer.1", 20)
    yield from (("classifier.weight", (10, 20)), ("classifier.bias", (10,)))


def fill(layout: Layout) -> State:
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.tensor(1234) if name.endswith(COUNTER) else torch.randn(shape, generator=generator)
        for name, shape in layout
    }


def in_ours(name: str) -> str:
    """Our name, below a stream, of a tensor of the backbone."""
    for stage in (1, 2, 3):
        name = name.replace(f"transition{stage}.", f"transitions.{stage - 1}.")
    return name


def copy_of(model: DualHRNet) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refusal(network: DualHRNet, path: Path) -> str:
    """The message with which the file is refused: one line that names it, and the network is as it was."""
    before = copy_of(network)
    with pytest.raises(WeightsError) as caught:
        load_imagenet(network, path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    assert [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])] == []
    return line


@pytest.fixture(scope="module")
def backbone() -> State:
    return fill(backbone_layout(BACKBONE))


@pytest.fixture(scope="module")
def head() -> State:
    return fill(head_layout(BACKBONE["width"]))


@pytest.fixture
def network() -> DualHRNet:
    torch.manual_seed(0)
    return DualHRNet(**BACKBONE)


@pytest.mark.parametrize("kind", ["timm", "prefixed", "original", "without counters"])
def test_a_backbone_goes_into_both_streams(
    kind: str, backbone: State, head: State, network: DualHRNet, tmp_path: Path
) -> None:
    if kind == "without counters":
        backbone = {name: tensor for name, tensor in backbone.items() if not name.endswith(COUNTER)}
    before, path = copy_of(network), tmp_path / "hrnet.pth"
    if kind == "timm":
        path = tmp_path / "model.safetensors"
        save_file({name: tensor.clone() for name, tensor in (backbone | head).items()}, path)
    elif kind == "prefixed":
        save(path, {"state_dict": {f"model.{name}": tensor for name, tensor in (backbone | head).items()}})
    else:  # the original repository saved bare state dicts, with PyTorch 0.4 and 1.0
        torch.save(backbone | head, path, _use_new_zipfile_serialization=False)
    report = load_imagenet(network, path)

    after = network.state_dict()
    copied = {
        f"{stream}.{in_ours(name)}": tensor for stream in ("loc_net", "cls_net") for name, tensor in backbone.items()
    }
    ours = {name for name in after if ".last_layer." in name or name.startswith("fuse_")}
    assert set(report.loaded) == set(copied)
    assert set(report.skipped) == set(head)
    assert set(report.random) == ours
    assert len(report.loaded) == len(copied)
    assert all(torch.equal(after[name], tensor) for name, tensor in copied.items())
    assert all(torch.equal(after[name], before[name]) for name in after.keys() - copied.keys())
    rest = after.keys() - copied.keys() - ours
    assert all(name.endswith(COUNTER) for name in rest)
    assert bool(rest) == (kind == "without counters")


def test_the_report_names_what_is_not_loaded(backbone: State, head: State, network: DualHRNet, tmp_path: Path) -> None:
    summary = load_imagenet(network, save(tmp_path / "hrnet.pth", backbone | head)).summary()
    assert f"{2 * len(backbone)} tensors loaded into both streams" in summary
    assert f"{len(head)} of the file not used (incre_modules, downsamp_modules, final_layer, classifier)" in summary
    for part in ("loc_net.last_layer", "cls_net.last_layer", "fuse_loc_stage1", "fuse_cls_stage3"):
        assert part in summary
    assert "\n" not in summary


def test_a_loaded_network_still_trains(backbone: State, network: DualHRNet, tmp_path: Path) -> None:
    load_imagenet(network, save(tmp_path / "hrnet.pth", backbone))
    sum(part.sum() for part in network.train()(*torch.randn(2, 2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 8}, ["transition1.0.0.weight is (8, 12, 3, 3), expected (5, 12, 3, 3)", "train.network.width: 8"]),
        ({"stem_width": 4}, ["conv1.weight is (4, 3, 3, 3), expected (6, 3, 3, 3)", "train.network.stem_width: 4"]),
        ({"stage1_width": 2}, ["layer1.0.conv1.weight is (2, 6, 1, 1)", "train.network.stage1_width: 2"]),
        ({"stage1_blocks": 1}, ["missing: layer1.1.conv1.weight", "train.network.stage1_blocks: 1"]),
        ({"modules": (1, 1, 1)}, ["missing: stage3.1.branches.0.0.conv1.weight", "train.network.modules: [1, 1, 1]"]),
        ({"modules": (1, 4, 3)}, ["unknown: stage3.2.branches.0.0.conv1.weight", "train.network.modules: [1, 4, 3]"]),
        ({"blocks": 1}, ["missing: stage2.0.branches.0.1.conv1.weight", "train.network.blocks: 1"]),
        ({"blocks": 4}, ["unknown: stage2.0.branches.0.2.conv1.weight", "train.network.blocks: 4"]),
    ],
    ids=str,
)
def test_a_backbone_of_another_size_is_refused_with_what_to_set(
    fields: dict[str, Any], named: list[str], network: DualHRNet, tmp_path: Path
) -> None:
    path = save(tmp_path / "hrnet.pth", fill(backbone_layout(BACKBONE | fields)))
    line = refusal(network, path)
    for part in named:
        assert part in line


@pytest.mark.parametrize(
    "name", ["conv1.weight", "transition2.2.0.0.weight", "stage4.0.fuse_layers.3.0.2.1.running_var"]
)
def test_a_tensor_that_the_backbone_lacks_is_named_as_in_the_file(
    name: str, backbone: State, network: DualHRNet, tmp_path: Path
) -> None:
    path = save(tmp_path / "hrnet.pth", {key: tensor for key, tensor in backbone.items() if key != name})
    assert f"1 missing: {name};" in refusal(network, path)


def test_a_file_of_another_network_is_no_backbone(network: DualHRNet, tmp_path: Path) -> None:
    assert "is no HRNet backbone, it has loc_net" in refusal(network, GOLDEN / "model" / "published_format_tiny.pth")
    path = save(tmp_path / "resnet.pth", {"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(1)})
    assert "is no HRNet backbone, it has conv1, fc" in refusal(network, path)


def test_the_published_stem_takes_no_imagenet_weights(backbone: State, tmp_path: Path) -> None:
    network = DualHRNet(**BACKBONE, stem_order="published")
    line = refusal(network, save(tmp_path / "hrnet.pth", backbone))
    assert "Set train.network.stem_order: imagenet" in line

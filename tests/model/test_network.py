"""Dual-HRNet: its size, its layout against published weights, its streams and what it refuses."""

import copy
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.architecture import Architecture
from model.dual_hrnet import DualHRNet, DualLogits
from model.hrnet import Head
from tests.comparing import LOGITS, assert_close
from tests.paths import GOLDEN
from tests.tiny import SMALL

PUBLISHED: dict[str, Any] = {"width": 8, "stage1_width": 8, "stage1_blocks": 1, "modules": (1, 2, 1), "blocks": 1}


def published_logits(stem_order: str) -> tuple[DualLogits, dict[str, torch.Tensor]]:
    """Logits of the published-format checkpoint for its stored images, and everything that is stored."""
    folder = GOLDEN / "model"
    golden = {key: torch.tensor(value) for key, value in np.load(folder / "published_format_tiny_io.npz").items()}
    checkpoint = torch.load(folder / "published_format_tiny.pth", map_location="cpu", weights_only=True)
    model = DualHRNet(**PUBLISHED, stem_order=stem_order).eval()
    model.load_state_dict(checkpoint["state_dict"], strict=True)
    with torch.inference_mode():
        return model(golden["pre"], golden["post"]), golden


def test_the_network_of_the_paper_has_59_535_494_parameters() -> None:
    with torch.device("meta"):
        model = DualHRNet(width=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 59_535_494


def test_published_weights_give_the_published_logits() -> None:
    logits, golden = published_logits("published")
    for found, key in ((logits.localization, "loc_logits"), (logits.damage, "cls_logits")):
        assert_close(found, golden[key], LOGITS)


def test_published_weights_need_the_published_stem() -> None:
    logits, golden = published_logits("imagenet")
    assert (logits.localization - golden["loc_logits"]).abs().max() > 0.01
    assert (logits.damage - golden["cls_logits"]).abs().max() > 0.01


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 32), (50, 70), (1, 33)])
@pytest.mark.parametrize("channels", [2, 18, 32, 48])
def test_logits_have_a_quarter_of_the_resolution_rounded_up(height: int, width: int, channels: int) -> None:
    model = DualHRNet(**SMALL | {"width": channels}).eval()
    with torch.inference_mode():
        logits = model(torch.rand(2, 3, height, width), torch.rand(2, 3, height, width))
    assert logits.localization.shape == (2, 2, -(-height // 4), -(-width // 4))
    assert logits.damage.shape == (2, 4, -(-height // 4), -(-width // 4))


def test_images_of_odd_size_are_padded_with_zeros_at_the_right_and_the_bottom() -> None:
    torch.manual_seed(0)
    model = DualHRNet(**SMALL).eval()
    images = torch.randn(2, 1, 3, 50, 70)
    padded = torch.zeros(2, 1, 3, 64, 96)
    padded[..., :50, :70] = images
    with torch.inference_mode():
        for found, whole in zip(model(*images), model(*padded), strict=True):
            assert torch.equal(found, whole[..., :13, :18])


@pytest.mark.parametrize(
    ("pre", "post"),
    [
        ((1, 3, 64, 64), (1, 3, 64, 96)),
        ((1, 3, 64, 64), (2, 3, 64, 64)),
        ((1, 1, 64, 64), (1, 1, 64, 64)),
        ((1, 4, 64, 64), (1, 4, 64, 64)),
        ((3, 64, 64), (3, 64, 64)),
    ],
    ids=str,
)
def test_images_that_do_not_fit_are_refused_with_both_shapes_named(pre: tuple[int, ...], post: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="DualHRNet") as caught:
        DualHRNet(**SMALL)(torch.rand(pre), torch.rand(post))
    assert f"pre {pre}" in str(caught.value)
    assert f"post {post}" in str(caught.value)


def test_each_stream_hears_the_other() -> None:
    torch.manual_seed(0)
    model = DualHRNet(**SMALL).eval()
    pre, post, other = torch.randn(3, 1, 3, 64, 64)
    with torch.inference_mode():
        usual, other_pre, other_post = model(pre, post), model(other, post), model(pre, other)
    assert (usual.damage - other_pre.damage).abs().max() > 1e-3
    assert (usual.localization - other_post.localization).abs().max() > 1e-3


def test_without_fused_features_of_the_other_stream_the_streams_are_apart() -> None:
    """Zeroed halves of the fusion blocks cut the only way between the streams."""
    torch.manual_seed(0)
    model = DualHRNet(**SMALL).eval()
    for stage in (1, 2, 3):
        for stream, foreign_half in (("loc", 1), ("cls", 0)):
            for block in model.get_submodule(f"fuse_{stream}_stage{stage}").children():
                weight = block.get_parameter("0.weight")
                weight.data.chunk(2, dim=1)[foreign_half].zero_()
    pre, post, other = torch.randn(3, 1, 3, 64, 64)
    with torch.inference_mode():
        usual, other_pre, other_post = model(pre, post), model(other, post), model(pre, other)
    assert torch.equal(usual.damage, other_pre.damage)
    assert torch.equal(usual.localization, other_post.localization)
    assert not torch.equal(usual.localization, other_pre.localization)


def test_the_head_sums_over_branches_in_training_what_it_concatenates_in_evaluation() -> None:
    torch.manual_seed(0)
    head = Head([3, 5, 4, 2], classes=4, momentum=0.1)
    xs = [torch.randn(2, c, 32 >> i, 16 >> i) for i, c in enumerate(head.branches)]
    in_training = head.train()(xs)
    full = torch.cat([F.interpolate(x, size=(32, 16), mode="bilinear", align_corners=False) for x in xs], dim=1)
    expected = head[3](F.relu(head[1](head[0](full))))
    assert_close(in_training, expected, 2**-20)  # two layers, and sums of 14 numbers in another order


def test_recomputed_activations_change_neither_gradients_nor_statistics() -> None:
    torch.manual_seed(0)
    plain = DualHRNet(**SMALL | {"modules": (1, 2, 1)}).train()
    sparing = copy.deepcopy(plain)
    sparing.set_recompute(True)
    images = torch.randn(2, 2, 3, 64, 64)
    kept = []
    for model in (plain, sparing):
        sizes: list[int] = []

        def count(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            logits = model(*images)
        kept.append(sum(sizes))
        (logits.localization.square().mean() + logits.damage.square().mean()).backward()
    for (name, one), other in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert torch.equal(cast(Tensor, one.grad), cast(Tensor, other.grad)), name
    for (name, usual), found in zip(plain.named_buffers(), sparing.buffers(), strict=True):
        assert torch.equal(usual, found), name
    assert kept[1] < 0.5 * kept[0]


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = DualHRNet(**SMALL | {"modules": (1, 2, 2), "blocks": 2}).train()
    logits = model(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64))
    (logits.localization.square().mean() + logits.damage.square().mean()).backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    # The batch norm behind a convolution takes out any constant: a bias there has no gradient but rounding.
    assert not [name for name in still if name not in ("loc_net.last_layer.0.bias", "cls_net.last_layer.0.bias")]


def test_batch_norm_momentum_reaches_every_layer() -> None:
    model = DualHRNet(**SMALL, batch_norm_momentum=0.07)
    momenta = {module.momentum for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert momenta == {0.07}


def test_fields_override_an_architecture() -> None:
    base = Architecture(**SMALL)
    model = DualHRNet(base, width=6)
    assert model.architecture.width == 6
    assert model.architecture.stem_width == base.stem_width


@pytest.mark.parametrize("field", [{"width": 0}, {"modules": (1, 1)}, {"stem_order": "other"}, {"colour": 1}], ids=str)
def test_an_impossible_architecture_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(field))):
        DualHRNet(**SMALL | field)

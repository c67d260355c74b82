"""The network folded for inference: the same function as the network itself."""

from typing import Any

import pytest
import torch
from torch import nn

from model.dual_hrnet import DualHRNet
from model.fast.folding import fold
from model.inference import Predictor, classify, normalize
from tests.comparing import assert_close
from tests.tiny import SMALL


def trained(**fields: Any) -> DualHRNet:
    """A random network whose batch norms have statistics, scales and shifts of their own."""
    torch.manual_seed(4)
    model = DualHRNet(**SMALL | fields).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    with torch.no_grad():
        for _ in range(10):
            model(*torch.randn(2, 2, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("stem_order", ["imagenet", "published"])
@pytest.mark.parametrize("fields", [{}, {"width": 18, "modules": (1, 2, 1), "blocks": 2, "stage1_blocks": 2}], ids=str)
def test_a_folded_network_gives_the_same_logits(
    fields: dict[str, Any], stem_order: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: fused)
    model = trained(**fields, stem_order=stem_order)
    folded = fold(model)
    for size in ((2, 3, 64, 96), (1, 3, 50, 33)):
        images = torch.randn(2, *size)
        before = images.clone()
        with torch.inference_mode():
            for found, expected in zip(folded(*images), model(*images), strict=True):
                assert_close(found, expected, 1e-4)
        assert torch.equal(images, before)


def test_folding_leaves_the_model_as_it_was() -> None:
    model = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        fold(model)(*torch.randn(2, 1, 3, 64, 64))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("stem_order", "left"), [("imagenet", 0), ("published", 2)])
def test_every_batch_norm_is_folded_but_those_behind_a_relu(stem_order: str, left: int) -> None:
    folded = fold(trained(stem_order=stem_order))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == left


def test_the_predictor_gives_the_class_map_of_the_plain_network() -> None:
    model = trained(width=8)
    pre, post = torch.randint(0, 256, (2, 2, 3, 128, 160), dtype=torch.uint8)
    with torch.inference_mode():
        logits = model(normalize(pre), normalize(post)).localization
        model.loc_net.last_layer[3].get_parameter("bias")[1] += (logits[:, 0] - logits[:, 1]).median()
        expected = classify(model(normalize(pre), normalize(post)), (128, 160))
    for found, plain in zip(Predictor(model)(pre, post), expected, strict=True):
        assert len(torch.bincount(plain.flatten())) > 1
        assert (found == plain).float().mean() >= 0.9999

"""Ways to predict with one model: each is the plain one where its own setting does nothing."""

from pathlib import Path

import pytest
import torch

from benchmarks import at_inference
from model.inference import Predictor, load_model, normalize
from model.judge.evaluation import vote
from model.networks.pair_network import DualLogits, PairNetwork
from xbd.dataset import Sample

IMAGES = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(1))
PAIR = Sample(IMAGES[0], IMAGES[1], torch.zeros(1, 64, 64, dtype=torch.uint8))


class Normalized(PairNetwork):
    """Its damage logits are the colours of post, through a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, pre: torch.Tensor, post: torch.Tensor) -> DualLogits:
        post = self.norm(post)[..., ::4, ::4]
        return DualLogits(pre[:, :2, ::4, ::4], torch.cat([post, torch.zeros_like(post[:, :1])], 1))


def same(found: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(found, other, strict=True))


def test_statistics_of_the_event_take_their_share(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_model(model)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = Predictor(network).logits(*IMAGES)
    for share in (0.0, 0.6):
        monkeypatch.setattr(at_inference, "SHARE", share)
        predictor = at_inference.statistics_of_the_event(network, [PAIR, PAIR])
        assert isinstance(predictor, Predictor)
        found = predictor.logits(*IMAGES)
        assert torch.allclose(found.damage, plain.damage, rtol=1e-4, atol=1e-4) == (share == 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_batch_norm_gets_the_mean_of_the_statistics_of_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [PAIR._replace(post=PAIR.post // part) for part in (1, 2)]
    monkeypatch.setattr(at_inference, "SHARE", 0.25)
    predictor = at_inference.statistics_of_the_event(Normalized().eval(), pairs)
    assert isinstance(predictor, Predictor)
    posts = [normalize(pair.post) for pair in pairs]
    mean = 0.25 * torch.stack([post.mean((0, 2, 3)) for post in posts]).mean(0)  # before it was 0
    variance = 0.25 * torch.stack([post.var((0, 2, 3)) for post in posts]).mean(0) + 0.75  # before it was 1
    expected = (posts[0] - mean.view(3, 1, 1)) / (variance.view(3, 1, 1) + 1e-5).sqrt()
    found = predictor.logits(PAIR.pre, PAIR.post).damage
    torch.testing.assert_close(found[:, :3], expected[..., ::4, ::4])


def test_a_building_from_a_half_is_the_plain_prediction(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_model(model)
    plain = Predictor(network)(*IMAGES)
    monkeypatch.setattr(at_inference, "BUILDING_FROM", 0.5)
    assert same(at_inference.more_buildings(network, [])(*IMAGES), plain)
    monkeypatch.setattr(at_inference, "BUILDING_FROM", 0.0)
    assert at_inference.more_buildings(network, [])(*IMAGES).localization.all()


def test_one_grade_a_building_is_the_vote(model: Path) -> None:
    network = load_model(model)
    found, probabilities = Predictor(network).probabilities(*IMAGES)
    voted = at_inference.one_grade_a_building(network, [])(*IMAGES)
    assert torch.equal(voted.localization, found.localization)
    assert (voted.damage[0].numpy() == vote(found, probabilities).damage).all()

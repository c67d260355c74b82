"""Training in several processes is training in one: the same batches, weights, running statistics and scores."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.calibration.offsets import count_grades, grade_offsets
from model.dual_hrnet import DualHRNet, DualLogits
from model.inference import normalize
from model.losses import Losses, dual_loss
from model.settings import TrainSettings
from tests.commands import environment
from tests.paths import ROOT
from tests.tiny import write_params
from tests.tiny_network import Tiny, TinySettings
from tests.workers.training_worker import CASES, VALIDATIONS, mean_loss, validation_name, validator
from xbd.dataset import SceneCrops
from xbd.scenes import read_index, scene_path

Steps = list[list[list[list[int]]]]  # indices of crops: by step, by pass, by rank
Rank = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.endurance]


class Results:
    """What the worker left: of every case and rank, and the folders of the runs."""

    def __init__(self, params: Path, data: Path, out: Path) -> None:
        self.params, self.data, self.out = params, data, out

    def ranks(self, name: str, size: int) -> list[Rank]:
        return [torch.load(self.out / f"{name}-{rank}.pt", weights_only=False) for rank in range(size)]

    def case(self, name: str) -> tuple[TrainSettings, list[Rank]]:
        return CASES[name].all_settings(self.params), self.ranks(name, CASES[name].size)


@pytest.fixture(scope="module")
def results(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    out = tmp_path_factory.mktemp("worlds")
    params = write_params(out / "params.yaml", {})
    command = [
        sys.executable,
        str(ROOT / "tests" / "workers" / "training_worker.py"),
        str(params),
        str(prepared),
        str(out),
    ]
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    return Results(params, prepared, out)


def steps_of(ranks: Sequence[Rank], settings: TrainSettings) -> Steps:
    """The batches as the ranks read them."""
    device = settings.device_batch_size
    passes = settings.global_batch_size // device // len(ranks)
    shares = np.array([rank["seen"] for rank in ranks]).reshape(len(ranks), -1, passes, device)
    return shares.transpose(1, 2, 0, 3).tolist()  # type: ignore[no-any-return]


def whole_batches(steps: Steps) -> list[list[int]]:
    return [sorted(i for shares in step for share in shares for i in share) for step in steps]


class Plain:
    """The recipe in one process, without anything of model/train/training.py: torch's own batch norm over each pass."""

    def __init__(self, results: Results, settings: TrainSettings, kind: torch.dtype = torch.float64) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.kind = settings, kind
        network = Tiny if isinstance(settings.network, TinySettings) else DualHRNet
        self.model = network(settings.network).to(self.kind).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1, momentum=0.9, weight_decay=0.0005)
        self.crops = SceneCrops(
            results.data, crop_size=64, scale=(0.8, 1.2), crops_per_scene=settings.crops_per_scene, seed=settings.seed
        )
        self.losses: list[float] = []
        self.norms: list[float] = []

    def load(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = False  # the fused loop wants momentum and weights in one memory layout

    def train(
        self, steps: Steps, loss: Callable[[DualLogits, Tensor, TrainSettings], Losses], done: int = 0
    ) -> dict[str, Tensor]:
        """Takes the mean of the loss over the shares of a pass and over the passes. done: steps before these."""
        for number, passes in enumerate(steps, start=done):
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * (1 - number / (done + len(steps))) ** 0.9
            self.optimizer.zero_grad()
            totals = []
            for shares in passes:
                samples = [self.crops[i] for share in shares for i in share]
                pre, post, mask = map(torch.stack, zip(*samples, strict=True))
                logits = self.model(normalize(pre).to(self.kind), normalize(post).to(self.kind))
                bounds = np.cumsum([0, *map(len, shares)])
                for start, end in pairwise(bounds):
                    part = DualLogits(*(logit[start:end] for logit in logits))
                    totals.append(loss(part, mask[start:end], self.settings).total)
                sum(totals[-len(shares) :]).div(len(shares) * len(passes)).backward()  # type: ignore[union-attr]
            self.losses.append(torch.stack(totals).mean().item())
            self.norms.append(float(torch.cat([p.grad.flatten() for p in self.model.parameters()]).norm()))  # type: ignore[union-attr]
            self.optimizer.step()
        return self.model.state_dict()


def distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Largest difference of weights and running statistics; relative to a tensor's largest number where that is > 1."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - value).abs().max()) / max(1.0, float(value.abs().max()))
        for name, value in expected.items()
    )


def in_one_share(steps: Steps) -> Steps:
    """The same batches, with the loss of a whole pass at once."""
    return [[[list(chain(*shares))] for shares in passes] for passes in steps]


def assert_ranks_agree(ranks: Sequence[Rank]) -> None:
    for rank in ranks[1:]:
        assert all(torch.equal(tensor, ranks[0]["model"][name]) for name, tensor in rank["model"].items())


@pytest.mark.parametrize("name", [name for name in CASES if "mean" in name])
def test_any_number_of_processes_trains_as_one_process_on_the_whole_batch(name: str, results: Results) -> None:
    settings, ranks = results.case(name)
    steps = steps_of(ranks, settings)
    plain = Plain(results, settings)
    exact = plain.train(in_one_share(steps), mean_loss)
    assert_ranks_agree(ranks)
    if CASES[name].double:
        assert distance(ranks[0]["model"], exact) < 1e-9
        assert ranks[0]["kept"]["loss"] == pytest.approx(np.mean(plain.losses), rel=1e-6)
        assert ranks[0]["kept"]["gradient_norm"] == pytest.approx(np.mean(plain.norms), rel=1e-6)
    else:  # no further from the truth than rounding brings one process
        rounded = Plain(results, settings, torch.float32).train(in_one_share(steps), mean_loss)
        assert distance(ranks[0]["model"], exact) < 4 * distance(rounded, exact)


def test_the_processes_count_each_scene_once_for_the_shares_of_the_grades(results: Results) -> None:
    settings, ranks = results.case("16, mean")  # more processes than scenes
    pixels = count_grades(results.data, read_index(results.data, ["train"]))
    assert {rank["offsets"] for rank in ranks} == {grade_offsets(pixels, settings.logit_adjustment)}
    assert results.ranks("1, mean", 1)[0]["offsets"] is None


def test_any_number_of_processes_sees_the_same_batches(results: Results) -> None:
    names = ["1, mean", "2, mean", "4, mean", "2, mean, 2 passes", "2, lovasz", "4, lovasz"]
    cases = [results.case(name) for name in names]
    first, *others = (whole_batches(steps_of(ranks, settings)) for settings, ranks in cases)
    assert sorted(chain(*first)) == list(range(12))  # each crop of the epoch once
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", ["2, lovasz", "4, lovasz"])
def test_what_is_optimized_is_the_mean_of_the_ranks_lovasz_losses(name: str, results: Results) -> None:
    """The paper's batch of 2 on each GPU; docs/scaling.md says why."""
    settings, ranks = results.case(name)
    steps = steps_of(ranks, settings)
    expected = Plain(results, settings).train(steps, dual_loss)
    assert distance(ranks[0]["model"], expected) < 1e-6
    assert_ranks_agree(ranks)
    other = Plain(results, settings).train(in_one_share(steps), dual_loss)
    assert distance(ranks[0]["model"], other) > 1e-3


def test_a_run_goes_on_in_fewer_processes(results: Results) -> None:
    """Two processes make two passes for each pass of four: batches and losses stay, batch norm sees 2 pairs, not 4."""
    settings, stopped = results.case("stopped")
    _, resumed = results.case("resumed")
    _, undisturbed = results.case("4, lovasz")
    assert "update 1: asked to stop" in stopped[0]["error"]
    rest = steps_of(resumed, settings)
    batches = whole_batches(steps_of(stopped, settings)) + whole_batches(rest)
    assert batches == whole_batches(steps_of(undisturbed, settings))

    plain = Plain(results, settings)
    plain.load(results.out / "stopped" / "run" / "checkpoints" / "step_00000001" / "state.pt")
    assert distance(resumed[0]["model"], plain.train(rest, dual_loss, done=1)) < 1e-6
    assert_ranks_agree(resumed)


@pytest.mark.parametrize(("size", "splits"), VALIDATIONS)
def test_validation_counts_every_scene_once_whatever_the_number_of_processes(
    size: int, splits: tuple[str, ...], results: Results
) -> None:
    (alone,) = results.ranks(validation_name(1, splits), 1)
    ranks = results.ranks(validation_name(size, splits), size)
    scenes = read_index(results.data, splits)
    assert sorted(scene for rank in ranks for scene in rank["seen"]) == [record.scene for record in scenes]
    for rank in ranks:
        assert torch.equal(rank["counts"], alone["counts"])
        assert rank["scores"] == alone["scores"]
    assert int(alone["counts"].sum()) == sum(record.height * record.width for record in scenes)


def test_what_validation_counts_is_what_the_model_says(results: Results) -> None:
    """By the model itself, scene by scene; folded for inference it rounds otherwise, which may turn single pixels."""
    (found,) = results.ranks(validation_name(1, ("validation",)), 1)
    model, counts = validator().eval(), np.zeros((2, 5, 5), dtype=np.int64)
    for record in read_index(results.data, ["validation"]):
        scene = torch.tensor(np.load(scene_path(results.data, record.scene))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            logits = model(normalize(scene[:, :3]), normalize(scene[:, 3:6]))
        building, grade = (
            torch.nn.functional.interpolate(part, scale_factor=4, mode="bilinear").argmax(1).numpy() for part in logits
        )
        target = np.where(scene[:, 6] == 255, 1, scene[:, 6])
        np.add.at(counts, (building, (grade + 1) * building, target), 1)
    assert np.abs(found["counts"].numpy() - counts).sum() <= 4


def test_a_loss_that_is_not_finite_on_one_rank_is_the_same_line_on_all(results: Results) -> None:
    settings, ranks = results.case("nan")
    crops = Plain(results, settings).crops
    scenes = sorted({crops.scene_of(i) for i in ranks[1]["seen"][2:4]})
    assert {rank["error"] for rank in ranks} == {
        f"epoch 1, update 2: the loss is not finite in a pass with {', '.join(scenes)}. Lower train.learning_rate, or "
        f"look at these scenes; the last good checkpoint is step_00000001."
    }
    assert not (results.out / "nan" / "run" / "model").exists()

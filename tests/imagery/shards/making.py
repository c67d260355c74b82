"""A made event in several files, its map by one machine, and the same in shards."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagery.formats.stac import MadeBy
from imagery.give.event import Event as Learned
from imagery.give.summary import Summary
from imagery.mapping import Loaded, make_map
from imagery.settings import Reading, Sources, Windows
from imagery.shards.merging import merge_shards
from imagery.shards.plan import Plan
from imagery.shards.planning import PlannedModel, make_plan
from imagery.shards.predicting import predict_shard
from imagery.shards.stored import read_shard
from model.calibration.domain import Domain
from model.inference import Origin, Predictor
from model.networks.pair_network import DualLogits, PairNetwork
from tests.imagery.geotiff import moved, noise, write_tif

WINDOWS = Windows(tile=128, overlap=32, workers=1)
READING = Reading(percentiles=(1, 99))
SIDE = 64  # of a block
# What six scenes looked like: the features of `Bright`, from 0 to 1, and colours not far from the made event's.
_SCENES = np.random.default_rng(4)
DOMAIN = Domain(
    _SCENES.random((6, 4), np.float32), _SCENES.normal(100, 20, (6, 12)).astype(np.float32),
    np.full(6, 0.3, np.float32), np.array([10, 20, np.nan, 30, 12, 25], np.float32),
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks of 64 pixels, so that small images have many."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("division", "plan"):
            patch.setattr(f"imagery.shards.{module}.BLOCK", SIDE)
        yield


class Bright(PairNetwork):
    """Takes for a building what is brighter before than what lies within 32 pixels, and grades it by how bright it is
    after.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = torch.nn.Parameter(torch.tensor(5.0))

    def forward(self, pre: Tensor, post: Tensor) -> DualLogits:
        return self.with_features(pre, post)[0]

    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        size = [-(-side // 4) for side in pre.shape[2:]]
        padding = [0, -pre.shape[3] % 32, 0, -pre.shape[2] % 32]
        lights = [F.avg_pool2d(F.pad(image, padding, "replicate").mean(1, keepdim=True), 4) for image in (pre, post)]
        near = F.avg_pool2d(torch.cat(lights, 1), 8)
        before, after = (light[..., : size[0], : size[1]] for light in lights)
        around = F.interpolate(near, scale_factor=8, mode="bilinear")[:, :1, : size[0], : size[1]]
        damage = torch.cat([-((after - middle) ** 2) for middle in (0.5, 0.2, -0.2, -0.5)], 1)
        localization = torch.cat([torch.zeros_like(before), self.sharpness * (before - around - 0.4)], 1)
        return DualLogits(localization, damage), [torch.cat(lights, 1), near]


class Event(NamedTuple):
    """Tiles of one image each."""

    pre: list[Path]
    post: list[Path]


def make_event(folder: Path) -> Event:
    """Images of 16 bits, 224 x 160 pixels, pre in four files and post in two, which lie on another grid."""
    before, other = (noise(40, 56, seed).astype(np.uint16) * 9 for seed in (1, 2))
    after = np.where(np.random.default_rng(3).random((40, 56)) < 0.3, other, before)
    images = [image.repeat(4, axis=1).repeat(4, axis=2) for image in (before, after)]
    pre = [
        write_tif(folder / f"pre_{x}_{y}.tif", images[0][:, y : y + 80, x : x + 112], transform=moved(x, y))
        for y in (0, 80) for x in (0, 112)
    ]  # fmt: skip
    post = [
        write_tif(folder / f"post_{y}.tif", images[1][:, y : y + 80], transform=moved(0.3, y + 0.6)) for y in (0, 80)
    ]
    return Event(pre, post)


def load(learned: Learned | None = None) -> Loaded:
    """The network, and the model of an event over it."""
    return Loaded(Predictor(Bright()), "a network", Origin("real", ("an event",)), DOMAIN, MadeBy("a model"), learned)


def on_one_machine(event: Event, out: Path, learned: Learned | None = None, **more: Any) -> Summary:
    names = {"before": [*map(str, event.pre)], "after": [*map(str, event.post)]}
    sources = Sources(tuple(event.pre), tuple(event.post), **vars(READING))
    work = out.parent / f".{out.name}"
    settings = {"windows": WINDOWS, "features": True, **more}
    return make_map(lambda: load(learned), sources, out, work, names=names, **settings)


def plan_of(event: Event, shards: int, learned: Learned | None = None, **more: Any) -> Plan:
    own = load(learned)
    model = PlannedModel(
        "a model",
        "its place",
        own.identity,
        own.origin,
        own.domain,
        own.event,
        {"calibrated": False, "adjusted": False},
    )
    places = [*map(str, event.pre)], [*map(str, event.post)]
    settings = {"reading": READING, "windows": WINDOWS, "features": True, **more}
    return make_plan(
        lambda: model, *places, Path, shards, names={"before": places[0], "after": places[1]}, **settings
    )  # fmt: skip


def changed_plan(plan: Plan, **changes: Any) -> Plan:
    """Another plan."""
    return Plan(**{name: changes.get(name, getattr(plan, name)) for name in Plan.model_fields})


def predict(plan: Plan, number: int, out: Path, fetch: Callable[[str], Path] = Path) -> Path:
    folder = out / f"{number}"
    work = out / f".{number}"
    predict_shard(plan, number, lambda: load()[:2], fetch, folder, work, batch=1, workers=1)
    return folder


def merge(plan: Plan, folders: Sequence[Path], out: Path, **more: Any) -> tuple[Summary, str]:
    shards = [read_shard(folder, plan, int(folder.name)) for folder in folders]
    return merge_shards(plan, shards, more.pop("missing", ()), Path, out, out.parent / ".merge", **more)

"""Imagery against what its model learned from: what is told, in the line, the summary and the page of a map."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components import predict
from imagery.estimating.interval import wilson
from imagery.predict.domain import UNKNOWN, WIDE, Likeness, fewest_judged
from model.calibration.domain import Distance, summarize, to_tensors
from model.dual_hrnet import DualHRNet
from model.inference import save_model
from tests.imagery.geotiff import ORIGIN, UTM, noise, write_tif
from tests.tiny import SMALL
from xbd.dataset import Sample

NEAR, FAR = Distance(1.0, 2.0), Distance(3.0, 2.0)
SIDE = 64


def test_so_many_judged_give_every_share_an_interval_that_is_narrow_enough() -> None:
    for count, enough in ((fewest_judged(), True), (fewest_judged() - 1, False)):
        low, high = wilson(np.linspace(0, 1, 101), np.full(101, float(count)))
        assert bool((high - low).max() <= WIDE) == enough


def test_what_is_unlike_is_named_and_what_is_not_known_is_not() -> None:
    unlike = Likeness(FAR, NEAR, False, (0.5, 0.6), None)
    assert unlike.unlike == ("features", "the size of its pixels")
    assert str(unlike) == (
        f"unlike the training data in features, the size of its pixels: judge at least {fewest_judged()} buildings, or "
        "all, before its numbers are used"
    )
    like = Likeness(None, NEAR, True, (0.5, 0.6), (1.0, 2.0))
    assert (like.unlike, str(like)) == ((), "not unlike the training data in colours, the size of its pixels")
    assert str(Likeness(None, None, None, None, None)) == UNKNOWN
    assert json.loads(json.dumps(unlike.facts())) == {
        "said": str(unlike),
        "unlike": ["features", "the size of its pixels"],
        "features": {"distance": 3.0, "usual": 2.0, "unlike": True},
        "colours": {"distance": 1.0, "usual": 2.0, "unlike": False},
        "gsd": {"trained_on": [0.5, 0.6], "unlike": True},
        "off_nadir": None,
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("imagery")
    pictures = noise(SIDE, SIDE, bands=6).reshape(2, 3, SIDE, SIDE)
    return [
        write_tif(folder / f"{name}.tif", own, UTM, ORIGIN) for name, own in zip(("pre", "post"), pictures, strict=True)
    ]


@pytest.fixture(scope="module")
def network() -> DualHRNet:
    torch.manual_seed(0)
    return DualHRNet(**SMALL).eval()


def run(model: Path, images: list[Path], out: Path, *options: str) -> tuple[dict[str, Any], str]:
    pre, post = map(str, images)
    predict.main(["--model", str(model), "--pre", pre, "--post", post, "--align", "off", "--out", str(out), *options])
    domain: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))["scene"]["domain"]
    return domain, (out / "report.html").read_text(encoding="utf-8")


def sample_of(pair: Any) -> Sample:
    """A batch of one. pair: uint8 [2, 3, H, W]."""
    pre, post = torch.from_numpy(pair)[:, None]
    return Sample(pre, post, torch.zeros(1, SIDE, SIDE))


def scenes_like(seed: int, brightness: int) -> list[Sample]:
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 40, (12, 1, 3, 1, 1)) + brightness
    images = generator.integers(0, 120, (12, 2, 3, SIDE, SIDE)) + colours
    return [sample_of(own.astype(np.uint8)) for own in images]


def test_imagery_like_the_training_data_is_told_apart_from_other(
    network: DualHRNet, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, gsd, brightness in (("like", 0.5, 20), ("unlike", 2.0, 95)):
        domain = summarize(network, scenes_like(1, brightness), [gsd] * 12, [float("nan")] * 12, lambda: None)
        save_model(network, tmp_path / name, domain=to_tensors(domain))
        found[name] = run(tmp_path / name, images, tmp_path / f"map-{name}")
    (unlike, page), errors = found["unlike"], capsys.readouterr().err
    assert unlike["unlike"][-2:] == ["colours", "the size of its pixels"]
    assert f"warning: the imagery: {unlike['said']}" in errors
    assert f"<strong>Warning:</strong> the imagery: {unlike['said']}." in page
    assert "the size of its pixels" not in found["like"][0]["unlike"]


def test_the_numbers_are_those_of_the_imagery_itself(network: DualHRNet, images: list[Path], tmp_path: Path) -> None:
    """Its own scene and the nearest one are one: no distance."""
    own = sample_of(noise(SIDE, SIDE, bands=6).reshape(2, 3, SIDE, SIDE))
    scenes = [*scenes_like(2, 0)[:5], own]
    domain = summarize(network, scenes, [0.5] * 6, [10.0, 25.0] * 3, lambda: None)
    save_model(network, tmp_path / "model", domain=to_tensors(domain))
    found, page = run(tmp_path / "model", images, tmp_path / "map")
    for name in ("features", "colours"):
        assert found[name]["distance"] == pytest.approx(0, abs=2e-3)
    assert found["off_nadir"] == {"trained_on": [10.0, 25.0]}
    assert str(found["said"]) in page
    without = run(tmp_path / "model", images, tmp_path / "without", "--no-features")[0]
    assert without["features"] is None and without["colours"] == found["colours"]


def test_of_a_model_that_tells_nothing_nothing_is_known(
    network: DualHRNet, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(network, tmp_path / "model")
    found, page = run(tmp_path / "model", images, tmp_path / "map")
    assert found == {"said": UNKNOWN} and UNKNOWN in page
    assert f"the imagery: {UNKNOWN}" in capsys.readouterr().out

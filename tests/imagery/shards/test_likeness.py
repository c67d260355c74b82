"""How like the imagery is to the training data is said of a map in shards as of one machine's, or of what is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagery.predict.blending import reaching
from imagery.predict.domain import UNKNOWN
from imagery.predict.windows import plan as windows_of
from imagery.read.raster import ImagePair
from imagery.settings import Sources, Windows
from imagery.shards.plan import LeftOut, Plan
from tests.imagery.shards.making import (
    DOMAIN,
    READING,
    Event,
    changed_plan,
    merge,
    on_one_machine,
    plan_of,
    predict,
    small_blocks,
)

__all__ = ["small_blocks"]
WINDOWS = Windows(tile=64, overlap=32, workers=1)
MISSING = [LeftOut(what="shard-00001", why="it failed.")]


@pytest.fixture(scope="module")
def plan(event: Event) -> Plan:
    return plan_of(event, 3, windows=WINDOWS, align="off")


@pytest.fixture(scope="module")
def folders(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("shards")
    return [predict(plan, number, out) for number in range(3)]


def scene_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))["scene"]
    return found


def test_the_statement_is_that_of_one_machine(
    event: Event, plan: Plan, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_one_machine(event, tmp_path / "whole", windows=WINDOWS, align="off")
    said = [line for line in capsys.readouterr().err.splitlines() if "the imagery" in line]
    merge(plan, folders, tmp_path / "out")
    expected, found = scene_of(tmp_path / "whole"), scene_of(tmp_path / "out")
    assert found["domain"] == expected["domain"] and found["doubts"] == expected["doubts"]
    assert expected["domain"]["features"]["distance"] > 0 and expected["domain"]["colours"]["distance"] > 0
    assert said == [f"warning: the imagery: {expected['domain']['said']}"]
    assert capsys.readouterr().err.splitlines() == said


def test_of_a_partial_map_the_windows_that_are_there_are_compared(
    event: Event, plan: Plan, folders: list[Path], tmp_path: Path
) -> None:
    """Their distances by plain sums."""
    merge(plan, [folders[2], folders[0]], tmp_path / "out", missing=MISSING)
    grid = plan.grid.grid
    tiles, size = windows_of(grid.width, grid.height, WINDOWS.tile, WINDOWS.overlap), (grid.height, grid.width)
    there = {number for part in (0, 2) for number in reaching(plan.shards[part].window, size, tiles)}
    spread = {int(number) for number in np.linspace(0, len(tiles) - 1, 16).round()}
    assert there & spread < spread
    colours = []
    with ImagePair(Sources(tuple(event.pre), tuple(event.post), **vars(READING))) as pair:
        for number in there & spread:
            tile = pair.read(tiles[number])
            own = np.concatenate([tile.pre[:, tile.valid], tile.post[:, tile.valid]]).astype(np.float64)
            colours.append([*own.mean(1), *own.std(1)])
    mean, spread_of = DOMAIN.colours.mean(0), DOMAIN.colours.std(0)
    scenes, own = (DOMAIN.colours - mean) / spread_of, (np.array(colours) - mean) / spread_of
    nearest = np.sqrt(((own[:, None] - scenes) ** 2).mean(2)).min(1)
    found = scene_of(tmp_path / "out")["domain"]["colours"]
    assert found["distance"] == pytest.approx(np.median(nearest), rel=1e-4)


def test_without_features_colours_are_compared_and_of_a_model_that_tells_nothing_nothing(
    event: Event, tmp_path: Path
) -> None:
    plan = plan_of(event, 2, align="off", features=False)
    merge(plan, [predict(plan, number, tmp_path / "shards") for number in range(2)], tmp_path / "out")
    found = scene_of(tmp_path / "out")["domain"]
    assert found["features"] is None and found["colours"]["distance"] > 0
    plan = changed_plan(plan, domain=None)
    merge(plan, [predict(plan, number, tmp_path / "others") for number in range(2)], tmp_path / "unknown")
    assert scene_of(tmp_path / "unknown")["domain"] == {"said": UNKNOWN}

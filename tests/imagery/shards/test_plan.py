"""The plan as a file: read as it was written, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS

from imagery.read.alignment import Alignment
from imagery.read.bands import Bands
from imagery.read.grid import Grid
from imagery.settings import Reading
from imagery.shards.plan import (
    LeftOut,
    Plan,
    PlanError,
    PlannedAlignment,
    PlannedDomain,
    PlannedFile,
    PlannedGrid,
    PlannedImage,
    Shard,
    read_plan,
)
from tests.imagery.geotiff import ORIGIN, UTM
from tests.imagery.shards.making import DOMAIN, changed_plan

PLACES = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def plan() -> Plan:
    grid = PlannedGrid.of(Grid(CRS.from_string(UTM), ORIGIN, 1500, 900))
    file = PlannedFile(location="s3://b/a.tif", sha256="0", crs="EPSG:32616", gsd_m=0.5, extent="", box=(0, -5, 9, 9))
    image = PlannedImage(name="a", files=(file,), bands=Bands((3, 2, 1), "by their names", doubt="odd"), vrt=None)
    aligned = Alignment("local", 0.1, -2.3, 9.7, True, PLACES, (1.5, 2.5, 3.5), (1.0, 2.0, 3.0, 1 / 3), True)
    return Plan(
        model="models:/m/1", network="models:/e/2", identity="f00", domain=PlannedDomain.of(DOMAIN), event=None,
        views=4, reading=Reading(nodata=(float("nan"),), bands=((1, 2, 3), None)),
        tile=128, overlap=32, features=True, footprints=None, pre=image, post=image, grid=grid,
        ranges=(((0.1, 0.2, 0.3), (1.0, 2.0, 1e9)), None), alignment=PlannedAlignment.of(aligned), facts={"doubts": []},
        shards=(Shard(column=0, row=0, width=1024, height=900), Shard(column=1024, row=0, width=476, height=900)),
        left_out=(LeftOut(what="b.tif", why="is no raster"),),
    )  # fmt: skip


def test_a_plan_is_read_as_it_was_written(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path / "plan.json")
    found = read_plan(tmp_path / "plan.json")
    assert found.as_json() == plan.as_json() and found.digest == plan.digest
    assert found.grid.grid == Grid(CRS.from_string(UTM), ORIGIN, 1500, 900)
    assert found.ranges == plan.ranges and found.pre == plan.pre
    assert found.domain is not None
    for name, own in vars(DOMAIN).items():
        np.testing.assert_array_equal(getattr(found.domain.domain, name), own)
    assert np.isnan(found.reading.nodata[0] or 0) and tuple(found.reading.bands) == ((1, 2, 3), None)
    places = found.alignment.alignment.places
    assert places is not None and places.dtype == np.float32
    np.testing.assert_array_equal(places, PLACES)
    assert found.alignment.alignment._replace(places=None) == plan.alignment.alignment._replace(places=None)
    assert changed_plan(plan, features=False).digest != plan.digest


def changed(**more: Any) -> Any:
    return lambda content: json.dumps({**json.loads(content), **more})


WRONG = {
    "cut": (lambda content: content[:100], "expected a plan"),
    "empty": (lambda content: "", "expected a plan"),
    "version": (changed(version=2), "version: input should be 1"),
    "more": (changed(extra=1), "extra: extra inputs are not permitted"),
    "domain": (
        changed(domain={"features": "AAAA", "colours": "AAAA", "gsd": "AAAAAA==", "off_nadir": "AAAAAA=="}),
        "domain: value error, buffer size must be a multiple of element size",
    ),
    "no bytes": (changed(domain={"features": "A", "colours": "", "gsd": "", "off_nadir": ""}), "domain.features: "),
    "colours": (
        changed(domain={"features": "AAAAAA==", "colours": "AAAAAA==", "gsd": "AAAAAA==", "off_nadir": "AAAAAA=="}),
        "domain: value error, cannot reshape array of size 1 into shape (1,12)",
    ),
    "tile": (changed(tile=100), "--tile, --overlap: found 100 and 32"),
    "crs": (changed(grid={"crs": "no", "transform": [1, 0, 0, 0, 1, 0], "width": 9, "height": 9}), "grid.crs: "),
    "gap": (changed(shards=[{"column": 0, "row": 0, "width": 1024, "height": 900}]), "do not cover each block once"),
    "odd": (changed(shards=[{"column": 7, "row": 0, "width": 1493, "height": 900}]), "does not fit the grid"),
    "far": (changed(shards=[{"column": 0, "row": 0, "width": 2048, "height": 900}]), "does not fit the grid"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_plan_is_refused_in_one_line(case: str, plan: Plan, tmp_path: Path) -> None:
    change, said = WRONG[case]
    path = tmp_path / "plan.json"
    path.write_text(change(plan.as_json()))
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and said in line and line.endswith("Make the plan again with components.plan.")
    assert "\n" not in line


def test_a_missing_plan_and_a_missing_shard_are_said(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"plan\.json: .* Make the plan again"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(PlanError, match="--shard: found 2, expected 0 to 1"):
        plan.shard(2)

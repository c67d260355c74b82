"""What goes wrong in one of many files or shards: the rest becomes a map, which says what it is made without."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagery.errors import RasterError
from imagery.give.writing import OutputError
from imagery.shards import predicting, stored
from imagery.shards.plan import LeftOut, Plan, PlanError
from model.inference import Predictor
from tests.imagery.geotiff import moved, noise, values, write_tif
from tests.imagery.shards.making import Event, changed_plan, load, merge, plan_of, predict, small_blocks

__all__ = ["small_blocks"]


@pytest.fixture(scope="module")
def plan(event: Event) -> Plan:
    return plan_of(event, 3, align="off", features=False)


@pytest.fixture(scope="module")
def folders(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("shards")
    return [predict(plan, number, out) for number in range(3)]


def test_a_map_without_a_shard_is_partial_and_says_so(plan: Plan, folders: list[Path], tmp_path: Path) -> None:
    merge(plan, folders, tmp_path / "whole")
    missing = [LeftOut(what="shard-00001", why="it <failed> three times.")]
    summary, state = merge(plan, [folders[2], folders[0]], tmp_path / "out", missing=missing)
    whole, part = (values(tmp_path / name / "damage.tif")[0] for name in ("whole", "out"))
    rows, columns = plan.shards[1].window.toslices()
    assert (part[rows, columns] == 255).all()
    whole[rows, columns] = 255
    np.testing.assert_array_equal(part, whole)
    assert state == "partial"
    scene = json.loads((tmp_path / "out" / "summary.json").read_text())["scene"]
    assert scene["state"] == "partial"
    assert scene["left_out"] == [{"what": "shard-00001", "why": "it <failed> three times."}]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The map is made without shard-00001: it &lt;failed&gt; three times." in page
    assert 0 < len(summary) < len(json.loads((tmp_path / "whole" / "buildings.geojson").read_text())["features"])


def test_nothing_is_made_of_no_shard(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no shard is there: it is gone\. Predict the shards first"):
        merge(plan, [], tmp_path / "out", missing=[LeftOut(what="shard-00000", why="it is gone.")])
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used_are_left_out_and_named(event: Event, tmp_path: Path) -> None:
    whole = event.pre[0].read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.tif").write_bytes(b"no raster")
    write_tif(tmp_path / "other.tif", noise(20, 20).astype(np.uint16), "EPSG:32632")
    write_tif(tmp_path / "between.tif", noise(20, 20).astype(np.uint16), transform=moved(0.5, 0))
    odd = [tmp_path / name for name in ("none.tif", "other.tif", "cut.tif", "between.tif", "gone.tif")]
    plan = plan_of(Event([*odd[:2], *event.pre, *odd[2:]], event.post), 2, align="off")
    assert [Path(file.location) for file in plan.pre.files] == event.pre
    why = {Path(left.what).name: left.why for left in plan.left_out}
    assert set(why) == {path.name for path in odd}
    for name, said in {
        "none.tif": "is no raster that can be read",
        "other.tif": "has coordinate system EPSG:32632",
        "cut.tif": "breaks off or is damaged",
        "between.tif": "lies between the pixels of",
        "gone.tif": "Correct the path",
    }.items():
        assert why[name].startswith(str(tmp_path / name)) and said in why[name]


def test_a_plan_of_no_usable_file_is_refused(event: Event, tmp_path: Path) -> None:
    gone = [tmp_path / "a.tif", tmp_path / "b.tif"]
    with pytest.raises(PlanError, match=r"--post: has no image that can be used\. .*a\.tif: .* 1 more cannot be used"):
        plan_of(Event(event.pre, gone), 2)


def test_another_model_than_that_of_the_plan_is_refused(plan: Plan, tmp_path: Path) -> None:
    def other() -> tuple[Predictor, str]:
        return load().predictor, "another"

    with pytest.raises(PlanError, match="its place: is another model than the plan was made with: found another"):
        predicting.predict_shard(plan, 0, other, Path, tmp_path / "out", tmp_path / "work", batch=1, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_goes_on_with_its_windows(
    plan: Plan, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a disk that was full, with one window lost, and the images read anew, which have other times by then."""

    def fail(*given: Any, **more: Any) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(stored, "write_buildings", fail)
        with pytest.raises(OutputError, match="the disk is full"):
            predict(plan, 1, tmp_path)
    assert not (tmp_path / "1").exists()
    tiles = sorted((tmp_path / ".1").glob("tile_*.npz"))
    assert len(tiles) > 1
    tiles[-1].unlink()
    for file in plan.pre.files:
        Path(file.location).touch()
    computed, with_features = [], Predictor.with_features

    def count(self: Predictor, *pair: Any) -> Any:
        computed.append(len(pair[0]))
        return with_features(self, *pair)

    monkeypatch.setattr(Predictor, "with_features", count)
    made = predict(plan, 1, tmp_path)
    assert computed == [1]
    assert (made / "classes.tif").read_bytes() == (folders[1] / "classes.tif").read_bytes()


def test_a_shard_of_another_plan_or_damaged_is_told(plan: Plan, folders: list[Path], tmp_path: Path) -> None:
    other = changed_plan(plan, overlap=64)
    with pytest.raises(PlanError, match=r"shard\.json: is shard 0 of plan .*, expected shard 0 of .*Predict the shard"):
        stored.read_shard(folders[0], other, 0)
    with pytest.raises(PlanError, match="expected shard 1 of"):
        stored.read_shard(folders[0], plan, 1)
    for name in stored.FILES:
        broken = tmp_path / name
        broken.mkdir()
        for path in folders[0].iterdir():
            (broken / path.name).write_bytes(path.read_bytes()[:20] if path.name == name else path.read_bytes())
        with pytest.raises(PlanError, match=rf"{name}/{name}: .*Predict the shard again"):
            stored.read_shard(broken, plan, 0)
        (broken / name).unlink()
        with pytest.raises(PlanError, match=rf"{name}/{name}: "):
            stored.read_shard(broken, plan, 0)


@pytest.mark.parametrize("name", [stored.BUILDINGS, stored.MEANS, stored.SUMS, "before.png", "classes.tif"])
def test_a_file_of_a_shard_that_is_none_is_one_line(name: str, plan: Plan, folders: list[Path], tmp_path: Path) -> None:
    """Of the right size."""
    broken = shutil.copytree(folders[0], tmp_path / "0")
    (broken / name).write_bytes(b"x" * (broken / name).stat().st_size)
    shard = stored.read_shard(broken, plan, 0)
    with pytest.raises((PlanError, RasterError), match=rf"0/{name}: "):
        shard.features()
        merge(plan, [broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_without_data_is_a_shard_and_a_map_without_any_is_refused(event: Event, tmp_path: Path) -> None:
    """Post shows nothing below row 80."""
    nothing = write_tif(
        tmp_path / "nothing.tif", np.zeros((3, 80, 224), np.uint16), transform=moved(0.3, 80.6), nodata=0
    )
    shown = write_tif(tmp_path / "shown.tif", values(event.post[0]), transform=moved(0.3, 0.6), nodata=0)
    plan = plan_of(Event(event.pre, [shown, nothing]), 5, align="off")
    empty = [n for n, shard in enumerate(plan.shards) if shard.row >= 128]
    assert empty
    made = [predict(plan, number, tmp_path / "shards") for number in (0, empty[0])]
    assert not stored.read_shard(made[1], plan, empty[0]).has_data
    with pytest.raises(RasterError, match="has no data where"):
        merge(plan, made[1:], tmp_path / "out")
    summary, _ = merge(plan, made, tmp_path / "out", missing=[LeftOut(what="others", why="left.")])
    assert len(summary) > 0

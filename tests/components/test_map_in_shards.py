"""plan, predict --shard and merge, as their users call them: the map of one machine, from paths and from S3."""

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from base.patience import Patience
from components import merge, plan, predict
from components.tracking import registry
from imagery.give.outputs import FILES
from imagery.predict.domain import UNKNOWN
from imagery.shards.stored import FILES as OF_A_SHARD
from tests.components.storage.s3_objects import put, remote_tree, use_server
from tests.conftest import exit_line, tree
from tests.imagery.geotiff import UTM, moved, noise, write_tif
from tests.imagery.shards.making import small_blocks
from tests.servers.s3_server import S3Server

__all__ = ["small_blocks"]
READ = ["--tile", "128", "--overlap", "32", "--align", "off"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders pre and post with two halves of an image each, and what lies beside images."""
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(("pre", "post"), start=1):
        image = noise(20, 28, seed).repeat(8, axis=1).repeat(8, axis=2)
        (folder / name).mkdir()
        for left in (0, 112):
            part = np.ascontiguousarray(image[:, :, left : left + 112])
            write_tif(folder / name / f"{left:03}.tif", part, transform=moved(left, 0))
        (folder / name / "notes.txt").write_text("by hand")
    return folder


@pytest.fixture(scope="module")
def whole(network: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of one machine."""
    out = tmp_path_factory.mktemp("whole") / "map"
    words = ["--model", str(network), "--out", str(out), *READ, "--workers", "0", "--pre"]
    words += [*map(str, sorted((images / "pre").glob("*.tif"))), "--post"]
    predict.main([*words, *map(str, sorted((images / "post").glob("*.tif")))])
    return out


def make_plan(network: Path, images: Path | str, out: Path | str, shards: int, *more: str) -> None:
    words = ["--model", str(network), "--pre", f"{images}/pre", "--post", f"{images}/post", "--out", str(out)]
    plan.main([*words, "--shards", str(shards), *READ, *more])


def predict_one(run: Path | str, number: int) -> None:
    words = ["--plan", f"{run}/plan.json", "--shard", str(number), "--out", f"{run}/shards", "--workers", "0"]
    predict.main(words)


def merge_all(run: Path | str) -> None:
    merge.main(["--plan", f"{run}/plan.json", "--shards", f"{run}/shards", "--out", f"{run}/map"])


def same(made: dict[str, bytes], whole: Path) -> set[str]:
    """Names of the files that are those of the map of one machine."""
    expected = tree(whole)
    assert set(made) == set(expected) == set(FILES)
    return {name for name in FILES if made[name] == expected[name]}


def test_a_map_from_folders_in_shards_is_that_of_one_machine(
    network: Path, images: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_plan(network, images, tmp_path, 3)
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0] == "files that lie in what both images show: 2 of 2 and 2 of 2; shards: 3"
    assert said[1] == f"wrote plan.json of 3 shards to {tmp_path}"
    for number in range(3):
        predict_one(tmp_path, number)
        assert set(tree(tmp_path / "shards" / f"shard-{number:05}")) == set(OF_A_SHARD)
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {f"shard-{n:05}" for n in range(3)}
    capsys.readouterr()
    merge_all(tmp_path)
    ended = capsys.readouterr()
    compared, *_, last = ended.out.splitlines()
    assert compared == f"the imagery: {UNKNOWN}" and last.startswith("complete: ") and ended.err == ""
    # The others name the files, or the folders, that they were made of.
    assert same(tree(tmp_path / "map"), whole) >= {
        "damage.tif", "confidence.tif", "buildings.geojson", "features.parquet", "judge.json", "summary.csv"
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "shards", "map"}


@pytest.mark.endurance
def test_a_map_from_s3_without_a_shard_is_partial_and_whole_when_it_is_there(
    network: Path, images: Path, whole: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    use_server(s3, tmp_path / "cache", monkeypatch)
    for path in images.rglob("*.tif"):
        put(s3, f"s3://data/event/{path.relative_to(images).as_posix()}", path.read_bytes())
    put(s3, "s3://data/event/post/zz.tif", b"no raster")
    run = "s3://data/shards/run"
    make_plan(network, "s3://data/event", run, 2)
    assert "warning: left out: s3://data/event/post/zz.tif: is no raster that can be read" in capsys.readouterr().err
    predict_one(run, 1)
    with pytest.raises(SystemExit) as ended:
        merge_all(run)
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("partial: ")
    assert f"shard-00000 is missing: {run}/shards/shard-00000: is not there" in said.err
    scene = json.loads(remote_tree(s3, f"{run}/map")["summary.json"])["scene"]
    assert [left["what"] for left in scene["left_out"]] == ["s3://data/event/post/zz.tif", "shard-00000"]
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    predict_one(run, 0)
    with pytest.raises(SystemExit) as ended:
        merge_all(run)
    assert ended.value.code == 3  # without the file that is none
    assert same(remote_tree(s3, f"{run}/map"), whole) >= {"damage.tif", "buildings.geojson", "features.parquet"}
    assert not list((tmp_path / "cache").glob("*tiles*")) and not list((tmp_path / "cache").glob("*merge*"))


@pytest.fixture(scope="module")
def footprints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Buildings, some of which lie over borders of shards, and a feature that is none."""
    path = tmp_path_factory.mktemp("footprints") / "osm.geojson"
    shapes = [shapely.box(x, y, x + 15, y + 11) for x in range(3, 224, 17) for y in range(4, 160, 13)]
    placed = [shapely.transform(s, lambda points: points * (0.5, -0.5) + (500_000, 4_000_000)) for s in shapes]
    columns = {"osm_id": [f"way/{number}" for number in range(len(shapes) + 1)]}
    frame = geopandas.GeoDataFrame(columns, geometry=[*placed, placed[0].centroid], crs=UTM)
    frame.to_crs("EPSG:4326").to_file(path)
    return path


def test_known_buildings_are_graded_in_shards_as_on_one_machine(
    network: Path, images: Path, footprints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--footprints", str(footprints)]
    words = ["--model", str(network), "--out", str(tmp_path / "whole"), *READ, *more, "--workers", "0", "--pre"]
    words += [*map(str, sorted((images / "pre").glob("*.tif"))), "--post"]
    predict.main([*words, *map(str, sorted((images / "post").glob("*.tif")))])
    make_plan(network, images, tmp_path, 2, *more)
    for number in range(2):
        predict_one(tmp_path, number)
    capsys.readouterr()
    merge_all(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"warning: {footprints}: 1 of 157 features are no polygons and were left out"]
    assert same(tree(tmp_path / "map"), tmp_path / "whole") >= {
        "damage.tif", "confidence.tif", "buildings.geojson", "features.parquet", "judge.json", "summary.csv"
    }  # fmt: skip
    notes = [json.loads((tmp_path / name / "summary.json").read_text())["notes"] for name in ("map", "whole")]
    assert notes[0] == notes[1] == [said[0].removeprefix("warning: ")]


@pytest.mark.endurance
def test_known_buildings_on_s3_are_those_of_the_plan(
    network: Path, images: Path, footprints: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(s3, tmp_path / "cache", monkeypatch)
    location = "s3://data/known/osm.geojson"
    put(s3, location, footprints.read_bytes())
    make_plan(network, images, tmp_path, 1, "--footprints", location)
    predict_one(tmp_path, 0)
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    merge_all(tmp_path)
    assert json.loads((tmp_path / "map" / "summary.json").read_text())["notes"][0].startswith(f"{location}: 1 of 157")
    put(s3, location, footprints.read_bytes().replace(b"way/1", b"way/2", 1))
    words: list[str | Path] = ["--plan", tmp_path / "plan.json", "--shards", tmp_path / "shards", "--out"]
    line = exit_line(merge.main, *words, tmp_path / "more")
    assert line.startswith(f"PlanError: {location}: has changed since the plan was made")


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"{}", "cannot be read"), (b'{"type": "FeatureCollection"', "")]
)
def test_footprints_that_cannot_be_used_are_one_line(
    content: bytes | None, said: str, network: Path, images: Path, tmp_path: Path
) -> None:
    path = tmp_path / "osm.geojson"
    if content is not None:
        path.write_bytes(content)
    pair = ["--pre", f"{images}/pre", "--post", f"{images}/post"]
    words = ["--model", str(network), *pair, "--out", str(tmp_path / "run"), "--shards", "1", *READ]
    line = exit_line(plan.main, *words, "--footprints", path)
    assert line.startswith(f"VectorError: {path}: {said}")
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_the_plan_is_one_line(network: Path, images: Path, tmp_path: Path) -> None:
    pair = shutil.copytree(images, tmp_path / "images")
    make_plan(network, pair, tmp_path, 2)
    words: list[str | Path] = ["--plan", tmp_path / "plan.json", "--out", tmp_path / "shards", "--shard"]
    assert exit_line(predict.main, *words, "2").startswith("PlanError: --shard: found 2, expected 0 to 1")
    with (pair / "post" / "000.tif").open("ab") as file:
        file.write(b"more")
    line = exit_line(predict.main, *words, "0")
    assert line.startswith(f"PlanError: {pair}/post/000.tif: has changed since the plan was made")
    assert not (tmp_path / "shards").exists()
    assert exit_line(
        plan.main,
        "--model",
        network,
        "--pre",
        pair / "pre",
        "--post",
        pair / "post",
        "--out",
        tmp_path / "many",
        "--shards",
        "99",
    ).startswith("PlanError: --shards: found 99, expected at most")
    (tmp_path / "shards").mkdir()
    line = exit_line(
        merge.main, "--plan", tmp_path / "plan.json", "--shards", tmp_path / "shards", "--out", tmp_path / "map"
    )
    assert line.startswith("PlanError: no shard is there: ")
    assert not (tmp_path / "map").exists()


@pytest.mark.endurance
def test_a_store_that_is_away_is_no_missing_shard(
    network: Path, images: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.storage.s3.PATIENCE", Patience(away=1))
    monkeypatch.setattr("components.storage.s3.ATTEMPTS", 1)
    use_server(s3, tmp_path / "cache", monkeypatch)
    make_plan(network, images, tmp_path, 1)
    predict_one(tmp_path, 0)
    for path in (tmp_path / "shards").rglob("*.*"):
        put(s3, f"s3://data/away-shards/{path.parent.name}/{path.name}", path.read_bytes())
    words: list[str | Path] = ["--plan", tmp_path / "plan.json", "--out", tmp_path / "map"]
    words += ["--shards", "s3://data/away-shards"]
    s3.stop()
    try:
        assert exit_line(merge.main, *words).startswith("StorageError: s3://data/away-shards")
    finally:
        s3.start()
    assert not (tmp_path / "map").exists()


def test_a_plan_holds_the_version_that_an_alias_names(
    network: Path, images: Path, mlflow_store: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        version = registry.register_files("planned", network, [], {registry.CONTENT_HASH: f"planned {number}"}, {})
    registry.set_alias(version, "production")
    pair = [images / "pre" / "000.tif"], [images / "post" / "000.tif"]
    assert plan.plan("models:/planned@production", *pair, tmp_path, 1, align="off").model == "models:/planned/2"


@pytest.mark.parametrize("words", [["--plan", "p"], ["--plan", "p", "--shard", "0", "--cell", "9"], ["--shard", "0"]])
def test_a_shard_takes_no_other_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict.main([*words, "--out", "out"])
    assert "give --plan and --shard, and besides only --out, --batch and --workers" in capsys.readouterr().err


def test_a_plan_of_a_collection_takes_the_images_of_its_items(network: Path, images: Path, tmp_path: Path) -> None:
    times = {"pre": "2018-08-17T02:50:00Z", "post": "2018-10-02T03:00:00Z"}
    made = plan.plan(network, [images / "pre"], [images / "post"], tmp_path / "folders", 1, align="off")
    features = []
    for file, moment in [
        (file, moment) for moment, image in (("pre", made.pre), ("post", made.post)) for file in image.files
    ]:
        west, south, east, north = map(float, file.extent.split())
        asset = {"href": f"../images/{moment}/{Path(file.location).name}", "type": "image/tiff"}
        features.append({
            "type": "Feature", "id": f"{moment} {Path(file.location).stem}", "bbox": [west, south, east, north],
            "properties": {"datetime": times[moment]}, "assets": {"image": asset},
        })  # fmt: skip
    (tmp_path / "images").symlink_to(images)
    (tmp_path / "catalog").mkdir()
    items = tmp_path / "catalog" / "items.json"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    words = [
        "--model",
        str(network),
        "--pre",
        str(items),
        "--post",
        str(items),
        "--out",
        str(tmp_path),
        "--align",
        "off",
    ]
    plan.main([*words, "--shards", "1", "--event", "2018-09-28T10:02:00Z"])
    found = json.loads((tmp_path / "plan.json").read_text())
    for moment, image in (("pre", made.pre), ("post", made.post)):
        assert [file["sha256"] for file in found[moment]["files"]] == [file.sha256 for file in image.files]
    assert found["grid"] == json.loads(made.as_json())["grid"]
    assert found["facts"]["taken"] == {"before": [times["pre"]] * 2, "after": [times["post"]] * 2}
    assert exit_line(plan.main, *words, "--shards", "1", "--event", "soon").startswith(
        "InputError: --event: found 'soon'"
    )

"""predict on GeoTIFFs, as its users call it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import torch
from affine import Affine

from base.patience import Patience
from components import predict
from imagery import mapping
from imagery.give.outputs import FILES, write_outputs
from model.dual_hrnet import DualHRNet
from model.inference import Origin, Predictor, save_model
from model.networks.pair_network import GradeOffsets
from tests.components.storage.s3_objects import put, remote_tree, use_server, write
from tests.conftest import SMALL, assert_one_line, environment, exit_line, run_step, tree
from tests.imagery.geotiff import ORIGIN, UTM, moved, noise, values, write_tif
from tests.servers.s3_server import S3Server

CASES = Path(__file__).parents[1] / "imagery" / "cases"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    blobs = [noise(20, 28, seed).repeat(8, axis=1).repeat(8, axis=2) for seed in (1, 2)]
    return [write_tif(folder / f"{name}.tif", image) for name, image in zip(("pre", "post"), blobs, strict=True)]


def run(network: Path, pre: Any, post: Any, out: Path, *options: str) -> None:
    paths = [[str(path) for path in (one if isinstance(one, list) else [one])] for one in (pre, post)]
    words = ["--model", str(network), "--pre", *paths[0], "--post", *paths[1], "--out", str(out)]
    predict.main([*words, "--workers", "0", *options])


def test_a_pair_of_geotiffs_becomes_maps(
    network: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(network, images[0], images[1], tmp_path / "out", "--tile", "128", "--overlap", "32")
    said = capsys.readouterr()
    assert said.out.startswith("imagery of 224 x 160 pixels of 0.50 m\n")
    assert "warning" not in said.err
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # what was only needed on the way is gone
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)
    found = geopandas.read_file(tmp_path / "out" / "buildings.gpkg")
    assert f"\n{len(found)} building{'s' * (len(found) != 1)}; wrote damage.tif" in said.out
    west, south, east, north = (
        geopandas.GeoSeries.from_xy([500_000, 500_112], [3_999_920, 4_000_000], crs=UTM).to_crs(4326).total_bounds
    )
    assert len(found) > 0
    bounds = found.total_bounds
    slack = 1e-5  # a metre: straight outlines may reach a little beyond
    assert bounds[0] > west - slack and bounds[1] > south - slack
    assert bounds[2] < east + slack and bounds[3] < north + slack


def test_tiles_of_an_image_give_what_the_image_gives(network: Path, images: list[Path], tmp_path: Path) -> None:
    whole = values(images[0])
    tiles = [
        write_tif(tmp_path / f"tile{left}.tif", whole[:, :, left : left + 112], transform=moved(left, 0))
        for left in (0, 112)
    ]
    for name, pre in (("one", images[0]), ("two", tiles)):
        run(network, pre, images[1], tmp_path / name)
    assert tree(tmp_path / "one")["damage.tif"] == tree(tmp_path / "two")["damage.tif"]


def test_a_run_again_takes_the_place_of_the_first_and_of_nothing_else(
    network: Path, images: list[Path], tmp_path: Path
) -> None:
    run(network, images[0], images[1], tmp_path / "out")
    first = tree(tmp_path / "out")["damage.tif"]
    run(network, images[0], images[1], tmp_path / "out", "--resume")
    assert tree(tmp_path / "out")["damage.tif"] == first
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "notes.txt" in exit_line(
        predict.main, "--model", network, "--pre", images[0], "--post", images[1], "--out", tmp_path / "out"
    )
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("pixel", "warned"), [(0.25, True), (0.3, False), (0.8, False), (1.2, True)])
def test_pixels_that_the_model_has_not_seen_are_warned_of(
    pixel: float, warned: bool, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transform = ORIGIN @ Affine.scale(pixel / 0.5)
    path = write_tif(tmp_path / "image.tif", noise(64, 64), transform=transform)
    run(network, path, path, tmp_path / "out")
    error = capsys.readouterr().err
    assert ("--resample-to 0.5" in error) == warned


def test_resampling_is_to_the_asked_size(
    network: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(network, images[0], images[1], tmp_path / "out", "--resample-to", "0.8")
    assert capsys.readouterr().out.startswith("imagery of 140 x 100 pixels of 0.80 m")


def test_errors_are_one_line_and_leave_nothing(
    network: Path, images: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    far = write_tif(tmp_path / "far.tif", noise(64, 64), transform=moved(10_000, 0))
    grey = write_tif(tmp_path / "grey.tif", noise(64, 64, bands=1))
    cut = write_tif(tmp_path / "cut.tif", values(images[1]))
    cut.write_bytes(cut.read_bytes()[:60_000])
    for post, named in ((far, "shows nothing of what"), (grey, "expected red, green and blue")):
        line = exit_line(
            predict.main, "--model", network, "--pre", images[0], "--post", post, "--out", tmp_path / "out"
        )
        assert str(post) in line and named in line
    # In a process of its own: GDAL, too, would print something about this one.
    words: list[str | Path] = ["--model", network, "--pre", images[0], "--post", cut, "--out", "out"]
    assert_one_line(run_step("predict", *words, cwd=tmp_path), str(cut), "breaks off or is damaged")
    line = exit_line(
        predict.main, "--model", network, "--pre", *images, "--post", images[1], "--out", tmp_path / "out",
        "--tile", "30",
    )  # fmt: skip
    assert "--tile, --overlap: found 30 and" in line and "a tile of 64 pixels or more" in line
    assert capfd.readouterr().err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"far.tif", "grey.tif", "cut.tif"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cell", "0"], "--cell: found 0, expected metres"),
        (["--range", "0", "9"], "--range: is for images of more than 8 bits, found 8 bits in "),
        (["--percentiles", "2", "98"], "--percentiles: is for images of more than 8 bits, found 8 bits in "),
        (["--areas", "none.gpkg"], "none.gpkg: cannot be read"),
        (["--footprints", "far.gpkg"], "far.gpkg: lies outside the imagery"),
        (["--out", "mine"], "mine/notes.txt: would be deleted"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_cannot_be_given_out_is_said_before_the_work(
    options: list[str], said: str, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even before the model is looked at, which is not there."""
    monkeypatch.chdir(tmp_path)
    geopandas.GeoDataFrame(geometry=[shapely.box(509_000, 0, 509_010, 10)], crs=UTM).to_file("far.gpkg")
    write(Path("mine"), {"notes.txt": b"mine"})
    with pytest.raises(SystemExit) as caught:
        run(Path("no model"), images[0], images[1], Path("out"), *options)
    assert said in str(caught.value.code)
    assert {path.name for path in tmp_path.iterdir()} == {"far.gpkg", "mine"}


def test_a_killed_run_on_s3_goes_on(
    network: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the finished windows is replaced by one without data, which then shows in the result."""
    use_server(s3, tmp_path / "cache", monkeypatch)
    image = write_tif(tmp_path / "image.tif", noise(64, 96).repeat(8, axis=1).repeat(8, axis=2))
    put(s3, "s3://data/scene/image.tif", image.read_bytes())
    where = "s3://data/scene/"
    words = ["--model", str(network), "--pre", f"{where}image.tif", "--post", f"{where}image.tif"]
    words += ["--out", f"{where}out", "--tile", "64", "--overlap", "0", "--workers", "1"]
    command = [sys.executable, "-m", "components.predict", *words]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (done := sorted((tmp_path / "cache").glob("*tiles/tile_*.npz"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    np.savez(done[0])
    predict.main([*words, "--resume"])
    written = remote_tree(s3, f"{where}out")
    assert set(written) == set(FILES)
    (tmp_path / "damage.tif").write_bytes(written["damage.tif"])
    nothing = values(tmp_path / "damage.tif")[0] == 255
    assert nothing[:64, :64].all() and nothing.sum() == 64 * 64
    assert not list((tmp_path / "cache").glob("*tiles*"))


def test_a_result_that_s3_did_not_take_is_there_for_the_next_run(
    network: Path, images: list[Path], s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes away while the images are predicted: not a window is predicted again when it is back."""
    monkeypatch.setattr("components.storage.s3.PATIENCE", Patience(away=1))
    monkeypatch.setattr("components.storage.s3.ATTEMPTS", 1)
    use_server(s3, tmp_path / "cache", monkeypatch)
    where = "s3://data/away/out"
    predicted = 0
    with_features = Predictor.with_features

    def count(self: Predictor, *pair: torch.Tensor) -> Any:
        nonlocal predicted
        predicted += 1
        return with_features(self, *pair)

    def then_stop(*given: Any, **more: Any) -> Any:
        summary = write_outputs(*given, **more)
        s3.stop()
        return summary

    monkeypatch.setattr(Predictor, "with_features", count)
    words: list[str | Path] = ["--model", network, "--pre", images[0], "--post", images[1], "--out", where]
    words += ["--tile", "64", "--overlap", "0", "--workers", "1"]
    monkeypatch.setattr(mapping, "write_outputs", then_stop)
    try:
        assert exit_line(predict.main, *words).startswith("StorageError: ")
    finally:
        s3.start()
    monkeypatch.setattr(mapping, "write_outputs", write_outputs)
    assert predicted > 1
    predicted = 0
    predict.main([str(word) for word in words] + ["--resume"])
    assert predicted == 0
    assert set(remote_tree(s3, where)) == set(FILES)
    assert not list((tmp_path / "cache").glob("*tiles*"))


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (None, "the model: nobody recorded which scenes it was trained on."),
        (Origin("synthetic", ("sample-flooding", "sample-wildfire")),
         "the model: trained on synthetic scenes of sample-flooding, sample-wildfire alone."),
        (Origin("real", ("palu-tsunami",)), None),
        (Origin("synthetic and real", ("palu-tsunami", "sample-wildfire")), None),
    ],
)  # fmt: skip
def test_a_map_tells_what_its_model_was_trained_on(
    origin: Origin | None, said: str | None, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(DualHRNet(**SMALL), tmp_path / "model", origin)
    run(tmp_path / "model", images[0], images[1], tmp_path / "out")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the model")]
    scene = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["scene"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert scene["model"]["said"] == str(origin or Origin())
    assert str(origin or Origin()) in page
    if said is None:
        assert warnings == [] and scene["doubts"] == []
    else:
        (line,) = warnings
        assert line.startswith(f"warning: {said}")
        (doubt,) = scene["doubts"]
        assert line == f"warning: {doubt}" and doubt in page


@pytest.mark.parametrize("raised", [0.0, 2.0])
def test_a_map_tells_that_rare_grades_may_be_given_too_often(raised: float, images: list[Path], tmp_path: Path) -> None:
    model = DualHRNet(**SMALL)
    if raised:
        model.grade_offsets = GradeOffsets(no_damage=0.0, minor_damage=raised, major_damage=0.0, destroyed=0.0)
    save_model(model, tmp_path / "model")
    run(tmp_path / "model", images[0], images[1], tmp_path / "out")
    scene = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["scene"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (
        scene["model"]["adjusted"]
        == ("may be given far too often: the counts here are no estimates" in page)
        == (raised > 0)
    )


def test_what_was_guessed_of_an_image_stands_in_the_results(
    network: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = noise(20, 28, 3, bands=4).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint16) * 12
    image[:, :, :60] = 0
    path = write_tif(tmp_path / "image.tif", image)
    run(network, images[0], path, tmp_path / "out")
    said = capsys.readouterr()
    assert f"\n{path}: bands 1, 2, 3 as red, green, blue: the first three" in said.out
    scene = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["scene"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(scene["doubts"]) == 2
    for doubt in scene["doubts"]:
        assert f"warning: {doubt}" in said.err and doubt in page
    run(network, images[0], path, tmp_path / "named", "--bands", "auto", "4,3,2", "--nodata", "auto", "0")
    scene = json.loads((tmp_path / "named" / "summary.json").read_text(encoding="utf-8"))["scene"]
    assert scene["bands"]["after"] == "4, 3, 2 as red, green, blue: as --bands says" and scene["doubts"] == []
    assert (values(tmp_path / "named" / "damage.tif")[0][:, :60] == 255).all()


def test_a_scene_need_not_be_a_geotiff(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "scene.jp2"
    run(network, path, path, tmp_path / "out")
    assert "imagery of 192 x 192 pixels of 0.50 m" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)


def test_16_bits_and_nodata_come_through(network: Path, tmp_path: Path) -> None:
    image = noise(16, 16, 3).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint16) * 12
    image[:, :, 100:] = 0
    path = write_tif(tmp_path / "image.tif", image, nodata=0)
    run(network, path, path, tmp_path / "out")
    damage = values(tmp_path / "out" / "damage.tif")[0]
    assert (damage[:, 100:] == 255).all()
    assert set(np.unique(damage[:, :100])) <= {0, 1, 2, 3, 4}


def test_given_footprints_are_graded_and_keep_what_they_say(
    network: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [shapely.box(x, 3_999_940, x + 12, 3_999_952) for x in (500_010, 500_050, 500_090, 509_000)]
    frame = geopandas.GeoDataFrame({"id": list("abcd"), "use": ["school"] * 4}, geometry=boxes, crs=UTM)
    frame.to_file(tmp_path / "osm.gpkg")
    run(network, images[0], images[1], tmp_path / "out", "--footprints", str(tmp_path / "osm.gpkg"))
    found = geopandas.read_file(tmp_path / "out" / "buildings.gpkg")
    assert list(found["id"]) == list("abcd")
    assert set(found["use"]) == {"school"}
    assert found["grade"][:3].between(1, 4).all()
    assert found["grade"].isna()[3]  # outside of the imagery

"""label after predict, as its users call both: it reads the images as predict did, and refuses what does not fit."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pytest
from affine import Affine
from rasterio.windows import Window

from base.images import read_image
from components.label import main
from imagery.read.registration import register
from tests.commands import exit_line, succeed_here
from tests.imagery.geotiff import ORIGIN, UTM, landscape, pair, write_tif
from tests.imagery.labelling.judged_maps import houses

SIZE = 300
OPTIONS = ["--range", "200", "3000", "--resample-to", "0.6", "--bands", "3,2,1", "--align", "local"]


class Event(NamedTuple):
    map: Path
    pre: Path
    post: Path

    def arguments(self, out: Path, judgements: Path, **other: Path) -> list[str]:
        files = {"map": self.map, "judgements": judgements, "pre": self.pre, "post": self.post, "out": out, **other}
        return [*(str(word) for key, value in files.items() for word in (f"--{key}", value)), "--event", "quake"]

    def judge(self, path: Path, count: int = 5, **changes: Any) -> Path:
        """The first of the order, all of them destroyed."""
        draw = json.loads((self.map / "judge.json").read_text(encoding="utf-8"))
        rows = zip(draw["order"], draw["strata"], strict=True)
        properties = [
            {"id": row + 1, "row": row, "judgement": 4, "rank": rank, "stratum": stratum, "map": draw["map"]} | changes
            for rank, (row, stratum) in zip(range(count), rows, strict=False)
        ]
        features = [{"type": "Feature", "geometry": None, "properties": one} for one in properties]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
        return path


@pytest.fixture
def event(model: Path, tmp_path: Path) -> Event:
    """Of images of 16 bits with more bands than three, after which lies 4 pixels beside before."""
    images = []
    for name, shift in (("pre", 0), ("post", 4)):
        transform = ORIGIN @ Affine.translation(shift, 0)
        colours = landscape(UTM, transform, SIZE, SIZE).astype(np.uint16) * 12
        bands = np.concatenate([colours, colours[:1] // 2])
        images.append(write_tif(tmp_path / f"{name}.tif", bands, transform=ORIGIN))
    frame = geopandas.GeoDataFrame({"name": ["a"] * 12}, geometry=houses(12, (SIZE, SIZE)), crs=UTM)
    frame.to_file(tmp_path / "houses.gpkg")
    places = {"model": model, "pre": images[0], "post": images[1], "footprints": tmp_path / "houses.gpkg"}
    files = [word for key, place in places.items() for word in (f"--{key}", str(place))]
    succeed_here("predict", *files, "--out", tmp_path / "map", *OPTIONS)
    return Event(tmp_path / "map", *images)


def test_a_scene_shows_what_the_network_saw(event: Event, tmp_path: Path) -> None:
    """Bands, range, resolution and shift are those of the map, of which label is told nothing."""
    said = succeed_here("label", *event.arguments(tmp_path / "out", event.judge(tmp_path / "judged.geojson")))
    assert said.startswith(f"1 scenes in {tmp_path / 'out'}; buildings in them: ")
    settings: dict[str, Any] = {"value_range": (200, 3000), "resample_to": 0.6, "bands": ((3, 2, 1),)}
    with pair(event.pre, event.post, **settings) as images:
        images.align(register(images, "local"))
        side = images.grid.width
        tile = images.read(Window(0, 0, side, side))
        assert images.alignment.found
    for moment, expected in (("pre", tile.pre), ("post", tile.post)):
        (path,) = (tmp_path / "out" / "train" / "images").glob(f"quake_*_{moment}_disaster.png")
        np.testing.assert_array_equal(read_image(path)[:side, :side], expected.transpose(1, 2, 0))
    (label,) = (tmp_path / "out" / "train" / "labels").glob("*_post_disaster.json")
    metadata = json.loads(label.read_text(encoding="utf-8"))["metadata"]
    assert metadata["pan_resolution"] == pytest.approx(0.6, rel=0.01) and "disaster_type" not in metadata


def test_files_that_do_not_fit_are_one_line_and_leave_nothing(event: Event, tmp_path: Path) -> None:
    judged, out = event.judge(tmp_path / "judged.geojson"), tmp_path / "out"
    torn = tmp_path / "torn.geojson"
    torn.write_bytes(judged.read_bytes()[:200])
    other = event.judge(tmp_path / "other.geojson", map="0" * 64)
    unsure = event.judge(tmp_path / "unsure.geojson", judgement=255)
    cases: list[tuple[Path, dict[str, Path], str]] = [
        (torn, {}, f"JudgementError: {torn}: is no JSON"),
        (other, {}, "found judgements of the map '000000000000'"),
        (unsure, {}, f"{unsure}: found no building that somebody graded"),
        (tmp_path / "no.geojson", {}, f"{tmp_path / 'no.geojson'}: "),
        (judged, {"map": tmp_path / "no"}, f"{tmp_path / 'no'}: does not exist, expected the folder of a map"),
        (judged, {"pre": event.post, "post": event.pre}, "the shift between them has x_px"),
        (judged, {"post": tmp_path / "torn.tif"}, "torn.tif: "),
    ]
    (tmp_path / "torn.tif").write_bytes(event.post.read_bytes()[:5000])
    for file, files, finding in cases:
        line = exit_line(main, *event.arguments(out, file, **files))
        assert finding in line, line
    for name, spoil, finding in (
        ("summary.json", b"{}", "summary.json: scene: field required, expected what predict says of the map"),
        ("damage.tif", b"", "damage.tif: cannot be read"),
        ("features.parquet", None, "features.parquet: is missing"),
    ):
        folder = Path(shutil.copytree(event.map, tmp_path / f"map-without-{name}"))
        (folder / name).unlink()
        if spoil is not None:
            (folder / name).write_bytes(spoil)
        line = exit_line(main, *event.arguments(out, judged, map=folder))
        assert finding in line, line
    with pytest.raises(SystemExit) as caught:
        main([*event.arguments(out, judged), "--trust", "90"])
    assert caught.value.code == 2
    assert not out.exists()

"""Scenes cut out of a map's images: every pixel of images and masks, by GDAL and by plain slices, after prepare."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer

from components.label import main
from components.prepare import prepare
from tests.commands import exit_line, succeed_here
from tests.comparing import tree
from tests.imagery.geotiff import ORIGIN, UTM, moved, values, write_tif
from tests.imagery.labelling.judged_maps import Made, edit, houses, make, tell
from tests.imagery.predicted import draw
from tests.tiny import prepare_params
from xbd.labels import read_label
from xbd.scenes import SceneRecord, open_scene

SIZE = (1100, 2300)  # six squares, five of which go beyond the images
EVENT = "flood-of-2030"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Many houses: some overlap, some lie across two squares; the last one is smaller than a pixel."""
    centre = ORIGIN @ (300.3, 700.4)
    ground = np.array([*houses(250, SIZE), shapely.Point(centre).buffer(0.1)], dtype=object)
    made = make(tmp_path_factory.mktemp("made"), ground, np.arange(len(ground)) % 4 + 1, SIZE)
    with rasterio.open(made.post, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2030-01-02 10:11:12", SATELLITEID="WV03")
    return made


@pytest.fixture(scope="module")
def truth(made: Made) -> dict[int, int]:
    """What a person says of some rows: all grades, no buildings and cannot tell; none in the last two squares."""
    left = [row for row, one in enumerate(made.ground) if one.bounds[2] < (ORIGIN @ (2040, 0))[0]]
    return {row: (0, 1, 2, 3, 4, 255)[row % 6] for row in left[::2]} | {len(made.ground) - 1: 4}


@pytest.fixture(scope="module")
def edited(made: Made, truth: dict[int, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("edited") / "buildings.gpkg"
    edit(made, path, judged={row: str(grade) for row, grade in truth.items()})
    return path


def arguments(made: Made, judgements: Path, out: Path, event: str = EVENT) -> list[str]:
    files = {"map": made.folder, "judgements": judgements, "pre": made.pre, "post": made.post, "out": out}
    return [*(str(word) for key, value in files.items() for word in (f"--{key}", value)), "--event", event]


class Out(NamedTuple):
    folder: Path
    said: str


@pytest.fixture(scope="module")
def out(made: Made, edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    folder = tmp_path_factory.mktemp("labelled") / "out"
    return Out(folder, succeed_here("label", *arguments(made, edited, folder), "--disaster-type", "flooding"))


@pytest.fixture(scope="module")
def scenes(out: Out, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[SceneRecord, Any]]:
    """Each with its array, as prepare makes them."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    records = prepare(out.folder, folder, prepare_params(validation_share=0.0))
    return [(record, open_scene(folder, record)) for record in records]


def corner(record: SceneRecord) -> tuple[int, int]:
    """Row and column where the square begins, by the number that its name ends with; three are beside each other."""
    number = int(record.scene[-4:])
    return number // 3 * 1024, number % 3 * 1024


def expected_mask(made: Made, truth: dict[int, int]) -> Any:
    """By GDAL, on the ground: who nobody judged, then who was judged; the tiny one as a pixel that it touches."""
    rest = [(one, 255) for row, one in enumerate(made.ground[:-1]) if truth.get(row, 255) == 255]
    told = [(one, truth[row]) for row, one in enumerate(made.ground[:-1]) if truth.get(row, 255) not in (0, 255)]
    return draw(rest + told, SIZE)


def test_masks_of_prepare_are_the_maps_outlines_pixel_for_pixel(
    made: Made, truth: dict[int, int], scenes: list[tuple[SceneRecord, Any]]
) -> None:
    expected, found = expected_mask(made, truth), np.zeros((2048, 3072), np.uint8)
    for record, array in scenes:
        row, column = corner(record)
        found[row : row + 1024, column : column + 1024] = array[..., 6]
        assert (record.unsound_polygons, record.undrawn_buildings, record.source) == (0, 0, "train")
        assert (record.disaster, record.disaster_type) == (EVENT, "flooding")
        assert record.pixel_metres == pytest.approx(0.5, rel=1e-3)
    assert {corner(record) for record, _ in scenes} == {(0, 0), (0, 1024), (1024, 0), (1024, 1024)}
    np.testing.assert_array_equal(found[:1100, :2048], expected[:, :2048])
    assert not found[1100:].any()


def test_images_are_those_of_the_pair_and_black_beyond_it(made: Made, scenes: list[tuple[SceneRecord, Any]]) -> None:
    pre, post = values(made.pre), values(made.post)
    for record, array in scenes:
        row, column = corner(record)
        for channels, image in ((slice(0, 3), pre), (slice(3, 6), post)):
            part = image[:, row : row + 1024, column : column + 1024].transpose(1, 2, 0)
            np.testing.assert_array_equal(array[: part.shape[0], : part.shape[1], channels], part)
            assert not array[part.shape[0] :, :, channels].any() and not array[:, part.shape[1] :, channels].any()


def test_labels_have_both_coordinates_and_say_what_is_known_of_the_images(made: Made, out: Out) -> None:
    zone = Transformer.from_crs(4326, UTM, always_xy=True)
    for post in (out.folder / "train" / "labels").glob("*_post_disaster.json"):
        pre = post.with_name(post.name.replace("_post_", "_pre_"))
        assert {building.grade for building in read_label(pre).buildings} == {None}
        metadata = read_label(pre).metadata, read_label(post).metadata
        assert "capture_date" not in metadata[0]
        assert (metadata[1]["capture_date"], metadata[1]["sensor"]) == ("2030-01-02T10:11:12Z", "WV03")
        features = json.loads(post.read_text(encoding="utf-8"))["features"]
        top, left = divmod(int(post.name.split("_")[1][-4:]), 3)
        for degrees, pixels in zip(features["lng_lat"], features["xy"], strict=True):
            assert degrees["properties"] == pixels["properties"]
            x, y = zone.transform(*shapely.get_coordinates(shapely.from_wkt(degrees["wkt"])).T)
            columns, rows = ~ORIGIN @ (x, y)
            here = shapely.get_coordinates(shapely.from_wkt(pixels["wkt"]))
            # A label's whole numbers are the centres of pixels.
            np.testing.assert_allclose(np.c_[columns, rows] - (left * 1024, top * 1024), here + 0.5, atol=0.02)


def test_the_background_that_nobody_looked_at_is_counted_and_said(made: Made, truth: dict[int, int], out: Out) -> None:
    share = 1 - draw([(one, 1) for one in made.ground[:-1]], SIZE)[:, :2048].mean()
    facts = json.loads((out.folder / "labels.json").read_text(encoding="utf-8"))
    assert facts["background_by_the_map"] == pytest.approx(share, abs=1e-4)
    assert f"{100 * share:.0f} % of the scenes is background by the map alone: nobody looked there" in out.said
    assert facts["buildings"]["judged"] == len(truth)


def test_the_same_again_is_the_same_and_replaces_what_was_there(made: Made, edited: Path, out: Out) -> None:
    before = {str(path): (out.folder / path).read_bytes() for path in tree(out.folder)}
    succeed_here("label", *arguments(made, edited, out.folder), "--disaster-type", "flooding")
    assert {str(path): (out.folder / path).read_bytes() for path in tree(out.folder)} == before


def test_scenes_of_other_events_are_never_replaced(made: Made, edited: Path, tmp_path: Path) -> None:
    other = tmp_path / "out" / "train" / "images" / "other-event_00000001_pre_disaster.png"
    other.parent.mkdir(parents=True)
    other.touch()
    line = exit_line(main, *arguments(made, edited, tmp_path / "out"))
    assert line.startswith(f"InputError: {other}: would be deleted")


def test_images_that_are_not_the_maps_are_one_line_and_nothing_is_written(
    made: Made, edited: Path, tmp_path: Path
) -> None:
    shifted = write_tif(tmp_path / "shifted.tif", values(made.pre), transform=moved(3, 0))
    smaller = write_tif(tmp_path / "smaller.tif", values(made.post)[:, :1000])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"pre": shifted}, f"{shifted} and {made.post}: cover 2297 x 1100 pixels from"),
        ({"post": smaller}, "expected 2300 x 1100 from"),
        ({"pre": tmp_path / "no.tif"}, "no.tif: is no raster"),
        ({"folder": tmp_path}, f"{tmp_path / 'buildings.geojson'}: cannot be read"),
    ]
    for images, finding in cases:
        line = exit_line(main, *arguments(made._replace(**images), edited, tmp_path / "out"))
        assert finding in line, line
    assert not (tmp_path / "out").exists()


def test_other_pictures_of_the_place_are_told_by_the_shift_between_them(
    made: Made, edited: Path, tmp_path: Path
) -> None:
    """The map says that post lay 3 pixels aside; these images have nothing in common."""
    before = (made.folder / "summary.json").read_bytes()
    aligned = {"mode": "global", "said": "", "compared": True, "x_px": 3.0, "y_px": 0.0, "certainty": 12.0}
    tell(made.folder, made.pre, made.post, alignment=aligned)
    try:
        line = exit_line(main, *arguments(made, edited, tmp_path / "out"))
        assert "the shift between them has x_px 0.0, expected 3.0" in line
    finally:
        (made.folder / "summary.json").write_bytes(before)


@pytest.mark.parametrize("event", ["sample-flood", "a/b", ".hidden"])
def test_an_event_that_scenes_cannot_be_called_after_is_one_line(
    event: str, made: Made, edited: Path, tmp_path: Path
) -> None:
    line = exit_line(main, *arguments(made, edited, tmp_path / "out", event))
    assert line.startswith(f"EventError: --event: found {event!r}, expected the name of a disaster")

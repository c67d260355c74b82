"""The synthetic data set: xBD's layout, determinism, and damage that can be seen."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import shapely.wkt

import xbd.sample.synthetic
from base.errors import InputError
from base.grades import SUBTYPES
from base.images import read_image
from xbd.labels import read_label
from xbd.masks import rasterize
from xbd.sample.synthetic import write_sample
from xbd.scenes import find_raw_scenes

SIZE = 160
TRAIN, TEST = 12, 4
METADATA = (
    "sensor provider_asset_type gsd capture_date off_nadir_angle pan_resolution sun_azimuth sun_elevation "
    "target_azimuth disaster disaster_type catalog_id original_width original_height width height id img_name"
).split()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "sample"
    write_sample(out, train=TRAIN, test=TEST, size=SIZE, seed=1)
    return out


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def labels(root: Path, moment: str) -> list[tuple[Path, dict[str, Any]]]:
    paths = sorted(root.glob(f"*/labels/*_{moment}_disaster.json"))
    return [(path, json.loads(path.read_text())) for path in paths]


def test_the_layout_is_that_of_xbd(sample: Path) -> None:
    scenes = find_raw_scenes(sample)
    assert Counter(scene.source for scene in scenes) == {"train": TRAIN, "test": TEST}
    expected = {
        f"{scene.source}/{kind}/{scene.scene}_{moment}_disaster.{ending}"
        for scene in scenes
        for moment in ("pre", "post")
        for kind, ending in (("images", "png"), ("labels", "json"))
    }
    assert set(contents(sample)) == expected
    for scene in scenes:
        disaster, number = scene.scene.rsplit("_", 1)
        assert disaster.startswith("sample-") and len(number) == 8 and number.isdigit()
        assert read_image(scene.image("pre")).shape == read_image(scene.image("post")).shape == (SIZE, SIZE, 3)


def test_no_scene_stands_in_both_splits_and_the_events_take_turns(sample: Path) -> None:
    scenes = find_raw_scenes(sample)
    assert len({scene.scene for scene in scenes}) == TRAIN + TEST
    events = Counter(scene.scene.rsplit("_", 1)[0] for scene in scenes)
    assert set(events.values()) == {(TRAIN + TEST) // 4}


def test_metadata_has_the_keys_of_xbd_and_fits_the_file(sample: Path) -> None:
    for moment in ("pre", "post"):
        for path, label in labels(sample, moment):
            assert list(label["metadata"]) == METADATA
            assert label["metadata"]["img_name"] == path.with_suffix(".png").name
            assert label["metadata"]["disaster"] == path.name.rsplit("_", 3)[0]
            assert label["metadata"]["width"] == label["metadata"]["height"] == SIZE


def test_only_post_labels_have_grades_and_both_have_the_same_buildings(sample: Path) -> None:
    for (_, pre), (_, post) in zip(labels(sample, "pre"), labels(sample, "post"), strict=True):
        for system in ("xy", "lng_lat"):
            before, after = pre["features"][system], post["features"][system]
            assert [b["properties"]["uid"] for b in before] == [b["properties"]["uid"] for b in after]
            assert [b["wkt"] for b in before] == [b["wkt"] for b in after]
            assert all(set(b["properties"]) == {"feature_type", "uid"} for b in before)
            assert all(b["properties"]["subtype"] in SUBTYPES for b in after)


def test_polygons_are_sound_and_lie_in_the_image(sample: Path) -> None:
    image = shapely.box(0, 0, SIZE, SIZE)
    for path, _ in labels(sample, "post"):
        for building in read_label(path).buildings:
            assert building.is_sound
            assert image.covers(building.polygon)


def test_degrees_are_the_pixels_north_up_at_half_a_metre(sample: Path) -> None:
    for _, label in labels(sample, "post"):
        pairs = zip(label["features"]["xy"], label["features"]["lng_lat"], strict=True)
        for pixels, degrees in ((shapely.wkt.loads(xy["wkt"]), shapely.wkt.loads(ll["wkt"])) for xy, ll in pairs):
            x, y = shapely.get_coordinates(pixels).T
            longitude, latitude = shapely.get_coordinates(degrees).T
            metres = np.ptp(latitude) * 111_320, np.ptp(longitude) * 111_320 * np.cos(np.radians(latitude[0]))
            np.testing.assert_allclose(metres, (np.ptp(y) / 2, np.ptp(x) / 2), rtol=1e-4)
            assert latitude[np.argmin(y)] == latitude.max() and longitude[np.argmin(x)] == longitude.min()


def test_every_grade_occurs_and_buildings_cover_a_sensible_share(sample: Path) -> None:
    buildings = [read_label(path).buildings for path, _ in labels(sample, "post")]
    assert {1, 2, 3, 4} <= {building.grade for scene in buildings for building in scene}
    covered = np.mean([(rasterize(scene, (SIZE, SIZE)) > 0).mean() for scene in buildings])
    assert 0.05 < covered < 0.25


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_sample(tmp_path / name, train=2, test=1, size=96, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)


def test_more_scenes_leave_the_earlier_ones_as_they_are(tmp_path: Path) -> None:
    write_sample(tmp_path / "few", train=2, test=1, size=96, seed=3)
    write_sample(tmp_path / "many", train=6, test=5, size=96, seed=3)
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert few.items() <= many.items()


def test_damage_changes_a_building_more_the_worse_its_grade(sample: Path) -> None:
    changes: dict[int, list[float]] = {1: [], 2: [], 3: [], 4: []}
    for raw in find_raw_scenes(sample):
        pre, post = normalised(read_image(raw.image("pre"))), normalised(read_image(raw.image("post")))
        for building in read_label(raw.label).buildings:
            inside = rasterize([building], (SIZE, SIZE)) > 0
            if building.grade in changes and inside.sum() > 150:
                changes[building.grade].append(float(np.abs(pre - post)[inside].mean()))
    none, minor, major, destroyed = (float(np.mean(changes[grade])) for grade in (1, 2, 3, 4))
    assert min(len(values) for values in changes.values()) >= 3
    assert none < min(minor, major)
    assert minor < destroyed
    assert (major + destroyed) / 2 > 1.4 * none


def normalised(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    pixels = image.astype(np.float64)
    return np.asarray((pixels - pixels.mean(axis=(0, 1))) / pixels.std(axis=(0, 1)))


def test_buildings_stand_out_from_what_surrounds_them_in_no_single_brightness(sample: Path) -> None:
    """Localization must not be a threshold: neither dark nor bright pixels are building in most cases."""
    for raw in find_raw_scenes(sample):
        grey = read_image(raw.image("pre")).mean(axis=2)
        building = rasterize(read_label(raw.label).buildings, (SIZE, SIZE)) > 0
        for threshold in np.percentile(grey, (10, 50)):
            assert (building & (grey > threshold)).sum() <= 0.6 * (grey > threshold).sum()
            assert (building & (grey < threshold)).sum() <= 0.6 * (grey < threshold).sum()


def test_an_interrupted_write_leaves_nothing_and_spares_the_earlier_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], xbd.sample.synthetic.draw_scene

    def fail_at_the_third(*arguments: Any) -> xbd.sample.synthetic.SyntheticScene:
        drawn.append(1)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(*arguments)

    write_sample(tmp_path / "earlier", train=1, test=1, size=64, seed=1)
    earlier = contents(tmp_path / "earlier")
    monkeypatch.setattr(xbd.sample.synthetic, "draw_scene", fail_at_the_third)
    for name in ("fresh", "earlier"):
        drawn.clear()
        with pytest.raises(KeyboardInterrupt):
            write_sample(tmp_path / name, train=4, test=1, size=64, seed=2)
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]
    assert contents(tmp_path / "earlier") == earlier


def test_an_earlier_sample_and_the_leftovers_of_a_killed_write_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "sample"
    write_sample(out, train=3, test=1, size=64, seed=1)
    (tmp_path / ".sample.partial" / "train").mkdir(parents=True)
    (tmp_path / ".sample.partial" / "train" / "half.png").touch()
    write_sample(out, train=1, test=1, size=64, seed=2)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    assert len(find_raw_scenes(out)) == 2


def test_files_that_are_no_sample_are_never_deleted(tmp_path: Path) -> None:
    real = tmp_path / "xbd" / "train" / "images" / "hurricane-michael_00000000_pre_disaster.png"
    real.parent.mkdir(parents=True)
    real.touch()
    with pytest.raises(InputError, match=r"hurricane-michael_00000000.*Choose another output folder"):
        write_sample(tmp_path / "xbd", train=1, test=1, size=64, seed=1)
    assert real.exists()

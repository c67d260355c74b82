"""The shift between two images: found to half a pixel, corrected as the image after is read, and not made up."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from base.images import read_image
from imagery.read.alignment import Alignment
from imagery.read.raster import ImagePair, Tile
from imagery.read.registration import register
from imagery.settings import Sources
from tests.imagery.geotiff import moved, noise, write_tif


def town(height: int, width: int, seed: int = 0) -> Any:
    """Ground with a texture and some hundred roofs, float32 [H, W]."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.normal(0, 60, (height, width)).astype(np.float32), (0, 0), 1.5) + 110
    for _ in range(height * width // 3000):
        corner = rng.integers(0, (width, height))
        box = cv2.boxPoints(((*corner.tolist(),), (*rng.uniform(8, 26, 2).tolist(),), float(rng.uniform(0, 90))))
        cv2.fillPoly(ground, [box.astype(np.int32)], float(rng.uniform(20, 240)))
    return cv2.GaussianBlur(ground, (0, 0), 0.7)


def colours(image: Any, seed: int) -> Any:
    """Three bands with a noise of their own, uint8 [3, H, W]."""
    rng = np.random.default_rng(seed)
    return np.clip(image[None] + rng.normal(0, 6, (3, *image.shape)), 1, 255).astype(np.uint8)


def lying(image: Any, across: Any, down: Any) -> Any:
    """The image with what it shows further right and down by so many pixels."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return cv2.remap(
        image, columns - np.float32(across), rows - np.float32(down), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def files(folder: Path, pre: Any, post: Any, **more: Any) -> Sources:
    return Sources((write_tif(folder / "pre.tif", pre),), (write_tif(folder / "post.tif", post, **more),))


def whole(pair: ImagePair) -> Tile:
    return pair.read(Window(0, 0, pair.grid.width, pair.grid.height))


def difference(tile: Tile, margin: int = 40) -> float:
    """Mean difference of the colours, away from the borders."""
    inside = np.s_[:, margin:-margin, margin:-margin]
    return float(np.abs(tile.pre.astype(int) - tile.post)[inside].mean())


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.3, -2.6), (-9.75, 4.5), (31.2, -22.4)])
def test_a_shift_of_the_whole_scene_is_found_and_corrected(shift: tuple[float, float], tmp_path: Path) -> None:
    ground = town(700, 900)
    after = lying(ground, *shift)
    after[:, 450:] = 255 - after[:, 450:]  # another season: dark is bright in half of it
    after[100:300, 100:300] = town(200, 200, 9)  # and a part of it is destroyed
    with ImagePair(files(tmp_path, colours(ground, 1), colours(after, 2))) as pair:
        found = register(pair, "global")
        assert found.found
        assert np.hypot(found.x - shift[0], found.y - shift[1]) <= 0.25  # half a pixel is what users are promised
        before = whole(pair)
        pair.align(found)
        tile = whole(pair)
    assert difference(Tile(tile.pre[:, :, :450], tile.post[:, :, :450], tile.valid), 60) < 20
    if shift == (0.0, 0.0):
        np.testing.assert_array_equal(tile.post, before.post)  # not a pixel is touched


def test_an_image_that_lies_wrong_on_the_ground_is_brought_back(tmp_path: Path) -> None:
    """Its geotransform is wrong by three metres and its pixels are of another size."""
    ground = town(600, 600)
    wrong = moved(6.0, -4.0) @ Affine.scale(0.8)
    small = cv2.resize(ground, (750, 750), interpolation=cv2.INTER_CUBIC)
    sources = files(tmp_path, colours(ground, 1), colours(small, 2), transform=wrong)
    with ImagePair(sources) as pair:
        found = register(pair, "global")
        pair.align(found)
        # The scene begins where post does: pre's pixel 6 in x; in y post begins above it.
        assert found.x == pytest.approx(6.0, abs=0.3) and found.y == pytest.approx(-4.0, abs=0.3)
        assert difference(whole(pair)) < 15


def test_a_shift_from_place_to_place_is_found_and_corrected(tmp_path: Path) -> None:
    ground = town(1400, 1600)
    rows, columns = np.mgrid[:1400, :1600].astype(np.float32)
    across, down = 4 + 3 * (columns / 1600 - 0.5), -2 + 2.5 * (rows / 1400 - 0.5)
    with ImagePair(files(tmp_path, colours(ground, 1), colours(lying(ground, across, down), 2))) as pair:
        found = register(pair, "local")
        further = found.at(Window(0, 0, 1600, 1400))
        errors = np.hypot(found.x + further[0] - across, found.y + further[1] - down)
        assert errors[256:-256, 256:-256].mean() <= 0.25
        assert errors.max() <= 1.2  # towards the borders, beyond the last places, the shift stays that of the last
        pair.align(register(pair, "global"))
        as_one = difference(whole(pair))
        pair.align(found)
        tile = whole(pair)
        noisy = difference(Tile(colours(ground, 1), colours(ground, 2), tile.valid))  # what no alignment can mend
        assert difference(tile) - noisy < 0.3 * (as_one - noisy)
        # Windows are parts of the whole.
        window = Window(700, 300, 256, 200)
        part = pair.read(window)
        np.testing.assert_array_equal(part.post, tile.post[:, 300:500, 700:956])
        np.testing.assert_array_equal(part.valid, tile.valid[300:500, 700:956])


def test_another_reader_of_the_same_pair_sees_the_same(tmp_path: Path) -> None:
    ground = town(600, 700)
    with ImagePair(files(tmp_path, colours(ground, 1), colours(lying(ground, 5.4, 1.2), 2))) as pair:
        pair.align(register(pair, "local"))
        with ImagePair(pair.sources, pair.known) as other:
            np.testing.assert_array_equal(whole(other).post, whole(pair).post)


@pytest.mark.parametrize("mode", ["global", "local"])
def test_images_that_have_nothing_in_common_are_taken_as_they_lie(mode: str, tmp_path: Path) -> None:
    with ImagePair(files(tmp_path, colours(town(600, 600, 1), 1), colours(town(600, 600, 2), 2))) as pair:
        before = whole(pair)
        found = register(pair, mode)
        assert not found.found
        assert (found.x, found.y, found.places) == (0, 0, None)
        assert found.facts(0.5)["said"].startswith("none: no shift between the images stood out")
        pair.align(found)
        np.testing.assert_array_equal(whole(pair).post, before.post)


@pytest.mark.parametrize("side", [20, 63])
def test_scenes_too_small_to_tell_are_taken_as_they_lie(side: int, tmp_path: Path) -> None:
    with ImagePair(files(tmp_path, noise(side, side, 1), noise(side, side, 1))) as pair:
        assert register(pair, "local") == Alignment("local")


def test_places_without_data_neither_disturb_nor_are_seen(tmp_path: Path) -> None:
    ground = town(900, 900)
    pre, post = colours(ground, 1), colours(lying(ground, -7.3, 2.2), 2)
    pre[:, :, :300], post[:, 600:] = 0, 0
    paths = [write_tif(tmp_path / f"{name}.tif", one, nodata=0) for name, one in (("a", pre), ("b", post))]
    with ImagePair(Sources((paths[0],), (paths[1],))) as pair:
        found = register(pair, "local")
        assert found.x == pytest.approx(-7.3, abs=0.3) and found.y == pytest.approx(2.2, abs=0.3)
        pair.align(found)
        tile = whole(pair)
    assert not tile.valid[:, :300].any()
    rows = np.flatnonzero(tile.valid[:, 600])
    assert rows[-1] == pytest.approx(600 - 2.2, abs=2.5)  # where post ends, moved to where it belongs
    assert difference(Tile(tile.pre[:, :560, 300:880], tile.post[:, :560, 300:880], tile.valid), 20) < 25


CASES = Path(__file__).parents[1] / "cases"


def area(ground: Any, shift: tuple[float, float], where: Any, folder: Path) -> Sources:
    """A pair of which only the places in `where` have data, post shifted."""
    pre, post = colours(ground, 1), colours(lying(ground, *shift), 2)
    outside = np.ones(ground.shape, bool)
    for place in where:
        outside[place] = False
    pre[:, outside] = post[:, outside] = 0
    paths = [write_tif(folder / f"{name}.tif", one, nodata=0) for name, one in (("a", pre), ("b", post))]
    return Sources((paths[0],), (paths[1],))


def test_a_shift_is_looked_for_where_the_data_are() -> None:
    """A small area in a large frame; with no frame around it, a shift of 1.8 and -0.2 pixels is found."""
    with ImagePair(Sources((CASES / "small_area_pre.tif",), (CASES / "small_area_post.tif",))) as pair:
        found = register(pair, "global")
    assert found.found and found.compared
    assert found.x == pytest.approx(1.8, abs=0.1) and found.y == pytest.approx(-0.2, abs=0.1)


@pytest.mark.parametrize("mode", ["global", "local"])
@pytest.mark.parametrize(
    "where",
    [
        [np.s_[158:542, 158:542]],  # 30 % of the frame
        [np.s_[:200, :200], np.s_[500:, 500:]],  # two corners: no part of 512 pixels has enough data
        [np.s_[0:40, 0:40], np.s_[400:, 100:400]],
    ],
    ids=["middle", "corners", "edge"],
)
def test_a_shift_of_a_small_part_of_the_frame_is_found(where: Any, mode: str, tmp_path: Path) -> None:
    with ImagePair(area(town(700, 700), (7.2, -4.8), where, tmp_path)) as pair:
        found = register(pair, mode)
    assert found.found
    assert np.hypot(found.x - 7.2, found.y + 4.8) <= 0.3


def test_an_untagged_collar_is_no_part_of_what_is_compared(tmp_path: Path) -> None:
    """Its edge lies at the same place in both images, and would say that there is no shift."""
    sources = area(town(700, 700), (7.2, -4.8), [np.s_[158:542, 158:542]], tmp_path)
    for (path,) in (sources.pre, sources.post):
        with rasterio.open(path, "r+") as dataset:
            dataset.nodata = None
    with ImagePair(sources) as pair:
        found = register(pair, "global")
    assert np.hypot(found.x - 7.2, found.y + 4.8) <= 0.5


@pytest.mark.parametrize("where", [[np.s_[300:350, 300:350]], [np.s_[::3]], []], ids=["small", "striped", "none"])
def test_where_nothing_can_be_compared_that_is_said(where: Any, tmp_path: Path) -> None:
    with ImagePair(area(town(700, 700), (7.2, -4.8), where, tmp_path)) as pair:
        found = register(pair, "local")
    assert found == Alignment("local")
    said = found.facts(0.5)
    assert "nothing was compared" in said["said"] and said["compared"] is False


def test_shifts_are_found_in_real_pairs(xbd_sample: Path, tmp_path: Path) -> None:
    """How a real pair lies is not known; but moved by so much more, it must be found to lie by so much more."""
    for image in sorted(xbd_sample.glob("test/images/*_pre_disaster.png")):
        pre = read_image(image).transpose(2, 0, 1)
        post = read_image(Path(str(image).replace("_pre_", "_post_"))).transpose(2, 0, 1)
        further = np.stack([lying(band, 3.3, -2.6) for band in post])
        found = []
        for name, after in (("as it is", post), ("further", further)):
            (tmp_path / name).mkdir(exist_ok=True)
            with ImagePair(files(tmp_path / name, pre, after)) as pair:
                found.append(register(pair, "global"))
        assert all(one.found for one in found), image.name
        error = np.hypot(found[1].x - found[0].x - 3.3, found[1].y - found[0].y + 2.6)
        assert error <= 0.5, (image.name, found)


def test_what_is_said_tells_the_direction() -> None:
    said = Alignment("global", 3.26, -1.0, 20.0, True).facts(0.5)
    assert said["x_px"] == 3.26 and said["y_px"] == -1.0
    assert "3.3 pixels further right and 1.0 further up" in said["said"] and "(1.7 m)" in said["said"]
    places = np.zeros((2, 2, 2), np.float32)
    places[0, 1, 1] = 2.0
    said = Alignment("local", -3.0, 1.0, 20.0, True, places, (0, 9), (0, 9)).facts(0.5)
    assert "left" in said["said"] and "down" in said["said"] and "2.0 pixels more" in said["said"]
    assert Alignment().facts(0.5) == {"mode": "off", "said": "off: the images were taken as they lie"}

"""The images of a plan: the same pixels as the pair has, from the files that are needed, none of which changed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window

from imagery.read.raster import ImagePair
from imagery.settings import Reading, Sources
from imagery.shards.indexing import checksum
from imagery.shards.plan import Plan, PlanError
from imagery.shards.reading import PlannedImages
from tests.imagery.geotiff import moved, noise, write_tif
from tests.imagery.shards.making import Event, plan_of

HEIGHT, CUTS = 3000, (0, 700, 1500, 3000)


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> Event:
    """A column of 3000 rows; post lies on another grid."""
    folder, files = tmp_path_factory.mktemp("event"), list[list[Path]]()
    for seed, (name, beside) in enumerate((("pre", 0.0), ("post", 0.4))):
        image = noise(HEIGHT // 4, 32, seed).repeat(4, axis=1).repeat(4, axis=2)
        files.append(
            [
                write_tif(folder / f"{name}_{top}.tif", image[:, top:bottom], transform=moved(beside, top + beside))
                for top, bottom in pairwise(CUTS)
            ]
        )
    return Event(*files)


@pytest.fixture(scope="module")
def plan(event: Event) -> Plan:
    return plan_of(event, 3, align="off", reading=Reading())


def test_a_window_is_read_from_the_files_around_it_as_from_all(event: Event, plan: Plan) -> None:
    with ImagePair(Sources(tuple(event.pre), tuple(event.post))) as pair:
        for top, needed in ((0, {0, 700}), (2999 - 60, {1500}), (1000, {0, 700, 1500})):
            fetched = list[str]()

            def fetch(location: str, fetched: list[str] = fetched) -> Path:
                fetched.append(location)
                return Path(location)

            window = Window(3, top, 90, 60)
            with PlannedImages(plan, fetch) as images:
                found, expected = images.read(window), pair.read(window)
            assert sorted(fetched) == sorted(str(path) for path in event.pre + event.post if top_of(path) in needed)
            assert expected.pre.any() and expected.post.any() and expected.valid.any()
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def top_of(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def test_a_file_that_changed_since_the_plan_is_refused(event: Event, plan: Plan, tmp_path: Path) -> None:
    other = tmp_path / "other.tif"
    content = bytearray(event.pre[0].read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)

    def fetch(location: str) -> Path:
        return other if location == str(event.pre[0]) else Path(location)

    with PlannedImages(plan, fetch) as images:
        images.read(Window(0, 2900, 9, 9))  # which needs other files
        with pytest.raises(PlanError, match=rf"{event.pre[0]}: has changed since the plan was made: found SHA-256"):
            images.read(Window(0, 0, 9, 9))


def test_a_file_beside_the_raster_belongs_to_it(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", noise(8, 8))
    before = checksum(path)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI key='a'>b</MDI></Metadata></PAMDataset>")
    assert checksum(path) != before


def test_windows_far_from_each_other_are_read_one_after_the_other(event: Event, plan: Plan) -> None:
    windows = [Window(0, top, 40, 40) for top in (0, 2950, 10, 1200, 2950)]
    with ImagePair(Sources(tuple(event.pre), tuple(event.post))) as pair, PlannedImages(plan, Path) as images:
        for window in windows:
            for one, other in zip(images.read(window), pair.read(window), strict=True):
                np.testing.assert_array_equal(one, other)

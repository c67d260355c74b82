"""The pictures of the README and of docs/assess.md, from the synthetic sample and the model of the demo, by Chromium.

python -m benchmarks.pictures [--chromium PATH]

Needs what `dvc repro` leaves: data/sample, output/train/model and output/evaluate/report.html. Two test scenes of one
disaster lie side by side as a pair of GeoTIFFs, in an invented place on the equator, and predict makes the map of them.
Writes docs/map.png and docs/report.png; and docs/judge.png, docs/missed.png and docs/assessment.png from the loop that
`benchmarks.demo_assess` runs over all test scenes.
"""

import argparse
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from affine import Affine
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from base.files import write_file
from base.images import read_image
from benchmarks.demo_assess import demonstrate
from benchmarks.demonstration import write_tile
from components import predict

SCENES_OF = Path("data/sample/test")
IMAGES = SCENES_OF / "images"
MODEL, REPORT = Path("output/train/model"), Path("output/evaluate/report.html")
SCENES = ("sample-wildfire_00000001", "sample-wildfire_00000003")
PLACE = "EPSG:32631", Affine(0.5, 0, 500_000, 0, -0.5, 1_000)
WIDTH = 1200  # pixels of a picture
MARGIN = 8  # pixels below the last element of a picture
COLOURS, OF_PHOTOS = 224, 128  # of its palette, for a small file; photographs fill it, and are seen no better with more


def write_pair(folder: Path) -> tuple[Path, Path]:
    """The scenes side by side, before and after."""
    pair = []
    for moment in ("pre", "post"):
        images = [read_image(IMAGES / f"{scene}_{moment}_disaster.png") for scene in SCENES]
        pair.append(write_tile(folder / f"{moment}.tif", np.concatenate(images, axis=1).transpose(2, 0, 1), *PLACE))
    return pair[0], pair[1]


def shoot(page: Page, last: str, out: Path) -> None:
    """The open page down to the first element that matches `last`, as a PNG with a palette."""
    end = page.locator(last).first.evaluate("(element) => element.getBoundingClientRect().bottom + window.scrollY")
    height = round(end) + MARGIN
    page.evaluate("() => Promise.all([...document.images].slice(0, 2).map((image) => image.decode()))")
    keep(page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height}), out)


def keep(shot: bytes, out: Path, count: int = COLOURS) -> None:
    """A screenshot as a small PNG of so many colours."""
    picture = io.BytesIO()
    # Coverage keeps rare colours, which the lines of the grades are; k-means brings the common ones back to themselves.
    colours = Image.open(io.BytesIO(shot)).convert("RGB").quantize(count, Image.Quantize.MAXCOVERAGE, kmeans=2)
    colours.save(picture, "PNG", optimize=True)
    write_file(out, picture.getvalue())
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def shoot_window(page: Page, out: Path) -> None:
    """What the window shows."""
    keep(page.screenshot(), out, OF_PHOTOS)


def shoot_afternoon(page: Page, folder: Path) -> None:
    """What a responder sees who judges the map in the folder and assesses it."""
    page.set_viewport_size({"width": WIDTH, "height": 760})
    page.goto((folder / "map" / "report.html").as_uri())
    page.locator("#judge-open").click()
    for key in "4" * 2 + "1" * 10 + "2" * 4 + "3" * 2:
        page.keyboard.press(key)
    shoot_window(page, Path("docs/judge.png"))
    page.get_by_role("button", name="missed buildings", exact=True).click()
    for key in ("1", "ArrowRight", "ArrowRight", "2", "d", "1"):
        page.keyboard.press(key)
    shoot_window(page, Path("docs/missed.png"))
    page.goto((folder / "map-assessed" / "assessment.html").as_uri())
    shoot(page, "#estimates", Path("docs/assessment.png"))


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="PATH")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        pre, post = write_pair(Path(work))
        out = Path(work) / "map"
        predict.main(["--model", str(MODEL), "--pre", str(pre), "--post", str(post), "--out", str(out)])
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        # The map is as high as its viewer is, which has four fifths of the window.
        page = browser.new_page(viewport={"width": WIDTH, "height": 712})
        page.goto((out / "report.html").as_uri())
        page.locator(".overlay path.grade4").first.click()
        page.locator(".viewer > input").fill("40")
        shoot(page, ".filter", Path("docs/map.png"))
        page.goto(REPORT.absolute().as_uri())
        shoot(page, ".cards .card", Path("docs/report.png"))
        demonstrate(str(MODEL), SCENES_OF, Path(work) / "demo")
        shoot_afternoon(page, Path(work) / "demo")
        browser.close()


if __name__ == "__main__":
    main()

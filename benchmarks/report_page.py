"""How long reports take to open in a headless Chromium: of a whole test split, and of a scene with 5,000 buildings.

python -m benchmarks.report_page [--raw XBD] [--maps DIR ...] [--chromium PATH]

All images are noise, which compresses worse than any other; with --raw the scene has real ones, too. The split is of
933 scenes with a few buildings each. The scene is of 8,192 x 8,192 pixels, its buildings have six corners and lie at
any angle. With --maps the pages of these are opened instead of noise.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import rasterio
import torch
from affine import Affine
from playwright.sync_api import Browser, sync_playwright

from base.images import read_image
from imagery.give.look import LARGEST, Look
from imagery.give.outputs import write_outputs
from imagery.give.page.report import REPORT
from imagery.predict.blending import BANDS
from model.inference import Prediction, Probabilities
from model.judge.evaluation import Evaluation, vote
from model.judge.page import photo
from model.judge.report import choose, show, thumbnail, write_report
from xbd.overview import Image
from xbd.scenes import SceneRecord

SCENES, SIDE, SHOWN, TURNS = 933, 1024, 4, 5
LARGE, BUILDINGS = 8192, 71  # pixels, and buildings, of a side of the scene


def write_split(folder: Path) -> Path:
    """The report of SCENES scenes."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    target = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    for top in range(20, SIDE - 40, 100):
        for left in range(20, SIDE - 40, 100):
            target[:, top : top + 30, left : left + 40] = 1 + (top + left) // 40 % 4
    localization = (target > 0).to(torch.uint8)
    prediction = Prediction(localization, target)
    probabilities = Probabilities(localization.float(), torch.full((1, 4, SIDE, SIDE), 0.25))
    evaluation, small = Evaluation(False, 1), []
    for number in range(SCENES):
        scene = f"noise_{number:08}"
        counts, hashes = (25, 25, 25, 25, 0, 0), ("pre", "post", "label", "array")
        record = SceneRecord(scene, "test", "test", "noise", "noise", SIDE, SIDE, *counts, 0.5, 10.0, *hashes)
        evaluation.add(record, prediction, probabilities, target)
        small.append(thumbnail(image, prediction))
    grading = vote(prediction, probabilities)
    shown = [
        show(why, evaluation.scenes[number], image, image, target[0].numpy(), prediction, grading)
        for why, number in choose(evaluation.scenes, SHOWN)
    ]
    write_report(folder / "split.html", "Noise", evaluation, small, shown, [])
    return folder / "split.html"


def noise() -> Image:
    """An image as large as a page shows it."""
    return np.random.default_rng(0).integers(0, 256, (LARGEST, LARGEST, 3), dtype=np.uint8)


def real(raw: Path, time: str) -> Image:
    """The same of tiles of xBD."""
    count = LARGEST // SIDE
    tiles = [read_image(path) for path in sorted(raw.glob(f"*/images/*_{time}_disaster.png"))[: count**2]]
    return np.concatenate([np.concatenate(tiles[row * count :][:count], axis=1) for row in range(count)])


def write_scene(folder: Path, pre: Image, post: Image) -> Path:
    """The report of a scene with BUILDINGS² buildings."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    damage = np.zeros((LARGE, LARGE), np.uint8)
    house = np.array([(-20, -15), (20, -15), (20, 5), (5, 5), (5, 15), (-20, 15)])
    space = LARGE / BUILDINGS
    for row, column in np.ndindex(BUILDINGS, BUILDINGS):
        turn = rng.uniform(0, 2 * np.pi)
        corners = house @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        corners += space * np.array([column + 0.5, row + 0.5])
        cv2.fillPoly(damage, [corners.round().astype(np.int32)], int(rng.integers(1, 5)))
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": len(BANDS), "width": LARGE, "height": LARGE, "crs": "EPSG:32633",
        "transform": Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000), "tiled": True, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(folder / "classes.tif", "w", **profile) as out:
        for number, band in enumerate([damage, damage, *(200 * (damage == grade) for grade in range(1, 5))], start=1):
            out.write(band.astype(np.uint8), number)
    known: dict[str, object] = {
        "before": ["pre.tif"],
        "after": ["post.tif"],
        "alignment": {"said": "off"},
        "doubts": [],
    }
    known["bands"] = {"before": "1, 2, 3", "after": "1, 2, 3"}
    known["model"] = {"said": "trained on real scenes", "calibrated": True}
    facts = known | {"width": LARGE, "height": LARGE, "gsd_m": 0.5}
    uris = [photo(image, LARGEST, quality=75) for image in (pre, post)]
    write_outputs(folder / "classes.tif", folder / "out", Look(uris[0], uris[1], facts))
    return folder / "out" / REPORT


def time_page(browser: Browser, page: Path, last: str) -> tuple[float, float]:
    """Median seconds until the page is loaded and drawn, and until the last image of the selector `last` can be
    seen, too.
    """
    opened, there = [], []
    for _ in range(TURNS):
        tab = browser.new_page(viewport={"width": 1240, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="load")
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        opened.append(time.perf_counter() - start)
        image = tab.locator(last).last
        image.scroll_into_view_if_needed()
        image.evaluate("(image) => image.decode()")
        there.append(time.perf_counter() - start)
        tab.close()
    return median(opened), median(there)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the size of each page, and how long it takes to open."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__)
    parser.add_argument("--raw", type=Path, metavar="DIR", help="raw scenes in the xBD layout")
    parser.add_argument("--maps", type=Path, nargs="+", metavar="DIR", help="folders of maps that are there")
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="PATH")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        buildings = f"{BUILDINGS**2:,} buildings"
        pages = [(str(path), path / REPORT, ".layers img") for path in arguments.maps or ()]
        if not pages:
            pages.append((f"{buildings} over noise", write_scene(folder / "noise", noise(), noise()), ".layers img"))
            pages.append((f"{SCENES} scenes", write_split(folder), ".thumbs img"))
        if arguments.raw:
            images = real(arguments.raw, "pre"), real(arguments.raw, "post")
            pages.append((f"{buildings} over real images", write_scene(folder / "real", *images), ".layers img"))
        for what, page, last in pages:
            opened, there = time_page(browser, page, last)
            size = page.stat().st_size / 1e6
            print(f"{what}, {size:.1f} MB: drawn after {opened:.2f} s, the last image is there after {there:.2f} s")
        browser.close()


if __name__ == "__main__":
    main()

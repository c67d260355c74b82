"""How long the report of a whole test split takes to open: 933 scenes in a headless Chromium.

python -m benchmarks.report_page [--chromium PATH]

The scenes are noise, which compresses worse than any image, with a few buildings each.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from playwright.sync_api import sync_playwright

from model.evaluation import Evaluation, vote
from model.inference import Prediction, Probabilities
from model.report import choose, show, thumbnail, write_report
from xbd.scenes import SceneRecord

SCENES, SIDE, SHOWN, TURNS = 933, 1024, 4, 5


def write(path: Path) -> None:
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
    write_report(path, "Noise", evaluation, small, shown, None)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the size of the page, and the median seconds until it is drawn and until its last thumbnail is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="PATH")
    chromium = parser.parse_args(argv).chromium
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder, "report.html")
        write(page)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened, last = [], []
        for _ in range(TURNS):
            tab = browser.new_page(viewport={"width": 1240, "height": 900})
            start = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="load")
            opened.append(time.perf_counter() - start)
            thumbnail_image = tab.locator(".thumbs img").last
            thumbnail_image.scroll_into_view_if_needed()
            thumbnail_image.evaluate("(image) => image.decode()")
            last.append(time.perf_counter() - start)
            tab.close()
        browser.close()
        print(f"{SCENES} scenes, {page.stat().st_size / 1e6:.1f} MB: open in {median(opened):.2f} s, "
              f"the last scene is there after {median(last):.2f} s")  # fmt: skip


if __name__ == "__main__":
    main()

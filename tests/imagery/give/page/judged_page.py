"""A made map whose page people judge, and what they do there."""

from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from imagery.give.features import Kept
from imagery.predict.tile_features import TileFeatures
from imagery.sampling.judgements_file import JUDGEMENTS_FILE
from imagery.settings import Windows
from tests.imagery.predict.test_tile_features import write_tiles
from tests.imagery.predicted import black, give_out, write_classes

STEP = 20  # pixels from one building to the next


def give_map(work: Path, rows: int, columns: int, step: int = STEP) -> Path:
    """A map of rows x columns buildings, a quarter of them damaged, with all that judging needs."""
    size = rows * step, columns * step
    generator = np.random.default_rng(2)
    damage, grades = np.zeros(size, np.uint8), np.zeros((4, *size), np.uint8)
    for row, column in np.ndindex(rows, columns):
        part = np.s_[row * step + 4 : row * step + 16, column * step + 4 : column * step + 14]
        shares = generator.dirichlet([1, 1, 1, 1] if generator.random() < 0.25 else [20, 1, 1, 1])
        damage[part] = shares.argmax() + 1
        grades[(slice(None), *part)] = np.rint(255 * shares).astype(np.uint8)[:, None, None]
    windows = Windows(tile=512, overlap=32)
    write_tiles(work / "tiles", size, windows, channels=())
    kept = Kept(TileFeatures(work / "tiles", size[1], size[0], windows), "a hash", "a folder", black)
    give_out(write_classes(work / "classes.tif", damage, grades=grades), work / "map", kept=kept)
    return work / "map"


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def text(page: Page, name: str) -> str:
    return page.locator(f"#judge-{name}").inner_text()


def come_back(page: Page, button: str, name: str, said: str) -> None:
    """Opens the page and its dialog anew, which then says this.

    Not always at once: what one process of Chromium kept may reach that of the new page a moment later.
    """
    page.reload()
    page.locator(button).click()
    expect(page.locator(f"#judge-{name}")).to_have_text(said)


def download(page: Page, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="download").click()
    assert waiting.value.suggested_filename == JUDGEMENTS_FILE
    waiting.value.save_as(folder / JUDGEMENTS_FILE)
    return folder / JUDGEMENTS_FILE

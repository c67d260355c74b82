"""A real headless Chromium for the tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Without these Chromium asks its maker's servers, which a closed network refuses, many at a time.
QUIET = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Opened:
    """A page, and all that went wrong or out of it since it was opened."""

    def __init__(self, page: Page) -> None:
        self.page, self.errors, self.requests = page, list[str](), list[str]()
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def unloaded(self) -> list[str]:
        """Images that are not there when a reader has gone through the whole page, by what they show."""
        missing: list[str] = self.page.evaluate(
            """async () => {
                const images = [...document.images];
                for (const image of images) {
                    image.scrollIntoView();
                    await image.decode().catch(() => {});
                }
                return images.filter((image) => !image.naturalWidth).map((image) => image.alt);
            }"""
        )
        return missing

    def outside(self) -> list[str]:
        """What the page asked for that is neither the file itself nor in it."""
        return [url for url in self.requests[1:] if not url.startswith("data:")]


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium; skips the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *QUIET])
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, file: Path) -> Iterator[Opened]:
    """The file in a window of its own, which shares nothing with others."""
    opened = Opened(browser.new_page(viewport={"width": 1240, "height": 900}))
    opened.page.goto(file.as_uri())
    yield opened
    opened.page.close()

"""What tests of a map's page share. Each has a fixture `folder`, the map's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from imagery.sampling.draw import Draw
from imagery.sampling.judgements_file import JUDGE, read_draw
from tests.servers.browser import Opened, open_page


@pytest.fixture(scope="module")
def draw(folder: Path) -> Draw:
    return read_draw(folder / JUDGE)


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Opened]:
    with open_page(browser, folder / "report.html") as opened:
        yield opened
        assert opened.errors == []
        assert [url for url in opened.outside() if not url.startswith(("blob:", "file:"))] == []

"""What register shows in the UI of Kubeflow: links into MLflow, as MLflow's own pages are called."""

from pathlib import Path
from typing import Any

import pytest

from components.kubeflow.links import show_version

VERSION = {"uri": "models:/dual hrnet/3", "run_id": "abc", "score": 0.71234, "prepared_version": "f00"}


class Page:
    """What is used of an artifact."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = str(path), dict[str, Any]()


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path / "a" / "links")


def test_the_version_and_its_run_are_links(page: Page) -> None:
    show_version(VERSION, "https://mlflow.example.org/", page)
    version, run = (
        "https://mlflow.example.org/#/models/dual%20hrnet/versions/3",
        "https://mlflow.example.org/#/runs/abc",
    )
    text = Path(page.path).read_text(encoding="utf-8")
    assert f"| version | [dual hrnet version 3]({version}) |" in text
    assert f"| run | [abc]({run}) |" in text
    assert "| score | 0.7123 |" in text
    assert page.metadata == {"version": version, "run": run, "uri": "models:/dual hrnet/3"}


def test_a_store_without_pages_has_no_links(page: Page) -> None:
    show_version(VERSION, "sqlite:///mlflow.db", page)
    text = Path(page.path).read_text(encoding="utf-8")
    assert "](" not in text
    assert "| version | dual hrnet version 3 |" in text and "| mlflow | sqlite:///mlflow.db |" in text
    assert page.metadata == {"version": "dual hrnet version 3", "run": "abc", "uri": "models:/dual hrnet/3"}

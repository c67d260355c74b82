"""What a task shows in the UI of Kubeflow as links into MLflow: a registered version, a map, and their runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote


def show_version(version: Mapping[str, Any], mlflow: str, page: Any) -> None:
    """Writes the page of a version, see `_show`. version: content of version.json. mlflow: address of MLflow."""
    name, number = version["uri"].removeprefix("models:/").rsplit("/", 1)
    base = mlflow.rstrip("/")
    rows = {
        "version": (f"{name} version {number}", f"{base}/#/models/{quote(name)}/versions/{number}"),
        "run": (version["run_id"], f"{base}/#/runs/{version['run_id']}"),
    }
    facts = {"score": f"{version['score']:.4f}", "prepared_version": version["prepared_version"], "mlflow": mlflow}
    _show("registered in MLflow", rows, facts, page)
    page.metadata["uri"] = version["uri"]


def show_map(state: str, place: str, run: str, mlflow: str, page: Any) -> None:
    """Writes the page of a map, see `_show`. state: complete or partial. run: of MLflow, at the address `mlflow`."""
    rows = {"run": (run, f"{mlflow.rstrip('/')}/#/runs/{run}")}
    _show("map", rows, {"state": state, "location": place, "mlflow": mlflow}, page)
    page.metadata.update(state=state, location=place)


def _show(title: str, rows: Mapping[str, tuple[str, str]], facts: Mapping[str, str], page: Any) -> None:
    """Writes a page in Markdown, because the UI shows HTML in a frame that opens no links; and the links as metadata.

    rows: a text and its link each; where MLflow, the last of the facts, is no server, as SQLite, nothing is a link.
    page: artifact of Kubeflow.
    """
    if not facts["mlflow"].startswith(("http://", "https://")):
        rows = {key: (text, "") for key, (text, _) in rows.items()}
    shown = {key: f"[{text}]({link})" if link else text for key, (text, link) in rows.items()} | dict(facts)
    lines = [f"| {title} | |", "|---|---|", *(f"| {key} | {text} |" for key, text in shown.items())]
    Path(page.path).parent.mkdir(parents=True, exist_ok=True)
    Path(page.path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    page.metadata.update({key: link or text for key, (text, link) in rows.items()})

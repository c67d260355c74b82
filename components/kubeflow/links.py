"""What the task register shows in the UI of Kubeflow: the registered version and its run as links into MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote


def show_version(version: Mapping[str, Any], mlflow: str, page: Any) -> None:
    """Writes the page, in Markdown, and the links as metadata of it.

    version: content of version.json. mlflow: address of MLflow; where it is no server, as SQLite, nothing is a link.
    page: artifact of Kubeflow. Markdown, because the UI shows HTML in a frame that opens no links.
    """
    name, number = version["uri"].removeprefix("models:/").rsplit("/", 1)
    base = mlflow.rstrip("/")
    rows = {
        "version": (f"{name} version {number}", f"{base}/#/models/{quote(name)}/versions/{number}"),
        "run": (version["run_id"], f"{base}/#/runs/{version['run_id']}"),
    }
    facts = {"score": f"{version['score']:.4f}", "prepared_version": version["prepared_version"], "mlflow": mlflow}
    if not base.startswith(("http://", "https://")):
        rows = {key: (text, "") for key, (text, _) in rows.items()}
    shown = {key: f"[{text}]({link})" if link else text for key, (text, link) in rows.items()} | facts
    lines = ["| registered in MLflow | |", "|---|---|", *(f"| {key} | {text} |" for key, text in shown.items())]
    Path(page.path).parent.mkdir(parents=True, exist_ok=True)
    Path(page.path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    page.metadata.update({key: link or text for key, (text, link) in rows.items()} | {"uri": version["uri"]})

"""A registered model for tests whose versions are scores without a model, beside what stands in the registry of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient


class Registry:
    """A registered model of its own in the store of `uri`; the runs of its versions keep their files in `folder`."""

    def __init__(self, uri: str, name: str, folder: Path | None = None) -> None:
        self.client, self.name, self.folder = MlflowClient(uri), name, folder
        self.client.create_registered_model(name)
        location = None if folder is None else folder.as_uri()
        self.experiment = self.client.create_experiment(name, location)

    def add(self, score: object = None, prepared_version: str = "d1", **scores: float) -> int:
        """A version with that score, as older ones carry it, or with rows of the gate; the new challenger."""
        tags: dict[str, Any] = {"prepared_version": prepared_version}
        if scores:
            rows = {name.replace("disaster_", "disaster "): value for name, value in scores.items()}
            tags["gate_scores"] = json.dumps({"score": score, **rows})
        elif score is not None:
            tags["score"] = str(score)
        run = self.client.create_run(self.experiment)
        version = self.client.create_model_version(self.name, "s3://nowhere/model", run_id=run.info.run_id, tags=tags)
        self.client.set_registered_model_alias(self.name, "challenger", version.version)
        return int(version.version)

    def production(self) -> int | None:
        aliases = self.client.get_registered_model(self.name).aliases
        return int(aliases["production"]) if "production" in aliases else None

    def tags(self, version: int) -> Mapping[str, str]:
        return dict(self.client.get_model_version(self.name, str(version)).tags)

    def promotion(self, version: int) -> str | None:
        return self.tags(version).get("promotion")

    def model_tags(self) -> Mapping[str, str]:
        return dict(self.client.get_registered_model(self.name).tags)

    def decisions(self, version: int) -> list[dict[str, Any]]:
        return decisions(self.client, self.name, version)


def decisions(client: MlflowClient, name: str, version: int) -> list[dict[str, Any]]:
    """Content of every promotion.json in the run of the version, oldest first."""
    run = str(client.get_model_version(name, str(version)).run_id)
    folders = sorted(entry.path for entry in client.list_artifacts(run, "promotion"))
    files = [client.download_artifacts(run, f"{folder}/promotion.json") for folder in folders]
    return [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]

"""The registered model of a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.tracking.model_registry import Registry
from tests.servers.mlflow_server import using


@pytest.fixture
def registry(mlflow_store: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Registry]:
    with using(mlflow_store):
        yield Registry(mlflow_store, request.node.name, tmp_path / "files")

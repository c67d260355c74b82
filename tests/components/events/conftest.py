"""An afternoon that the tests share, and its event's model in the registry."""

from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow.tracking import MlflowClient

from components import promote
from components.events.names import EVENTS
from tests.components.events.afternoon import NETWORK, Afternoon, assess_map, spend
from tests.conftest import write_params


class Registered(NamedTuple):
    """out: the assessed map; number: of the version; params: a params.yaml."""

    out: Path
    number: int
    params: Path


@pytest.fixture(scope="session")
def afternoon(mlflow_store: str, tmp_path_factory: pytest.TempPathFactory) -> Afternoon:
    folder = tmp_path_factory.mktemp("afternoon")
    for name in (EVENTS, NETWORK):  # whose runs would keep their files in the working directory
        MlflowClient(mlflow_store).create_experiment(name, (folder / name).as_uri())
    return spend(folder)


@pytest.fixture(scope="session")
def registered(afternoon: Afternoon, mlflow_store: str, tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """The model of the event palu, which stands for it."""
    folder = tmp_path_factory.mktemp("registered")
    assess_map(afternoon, folder / "out", "--event", "palu")
    (version,) = MlflowClient(mlflow_store).search_model_versions(f"name = '{EVENTS}' and tags.event = 'palu'")
    params = write_params(folder / "params.yaml")
    assert version.aliases == []
    promote.main(["--params", str(params), "--model", EVENTS, "--version", str(version.version)])
    return Registered(folder / "out", int(version.version), params)

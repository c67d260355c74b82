"""Kubeflow Pipelines as a test plays it."""

from collections.abc import Iterator

import pytest

from tests.servers.kubeflow_server import KubeflowServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    """A running server; no token of this machine is used."""
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    played = KubeflowServer()
    played.start()
    yield played
    played.stop()

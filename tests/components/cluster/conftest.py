"""A Kubernetes API server for each file of tests, and the operator that a test plays on it."""

from collections.abc import Iterator

import pytest

from tests.servers.kube_api import KubeApi, running
from tests.servers.kube_proxy import KubeProxy
from tests.servers.training_operator import Operator


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    with running(tmp_path_factory.mktemp("kube")) as server:
        yield server


@pytest.fixture
def operator(kube: KubeApi) -> Operator:
    return Operator(kube)


@pytest.fixture
def proxy(kube: KubeApi) -> Iterator[KubeProxy]:
    proxy = KubeProxy(kube)
    yield proxy
    proxy.stop()

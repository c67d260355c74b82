"""A Kubernetes API server, and the operators that a test plays on it."""

from collections.abc import Iterator

import pytest

from tests.servers.kube_api import PYTORCHJOBS, KubeApi, definition
from tests.servers.kube_proxy import KubeProxy
from tests.servers.s3_server import S3Server
from tests.servers.trainer_operator import TrainerOperator
from tests.servers.training_operator import Operator


@pytest.fixture(scope="module")
def kube(kube_server: KubeApi) -> KubeApi:
    """Which has PyTorchJobs, and the others that a test asks for."""
    kube_server.only(definition(PYTORCHJOBS))
    return kube_server


@pytest.fixture
def operator(kube: KubeApi) -> Operator:
    return Operator(kube)


@pytest.fixture
def proxy(kube: KubeApi) -> Iterator[KubeProxy]:
    proxy = KubeProxy(kube)
    yield proxy
    proxy.stop()


@pytest.fixture
def trainer(kube: KubeApi) -> TrainerOperator:
    return TrainerOperator(kube)


@pytest.fixture(scope="module")
def reachable(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 server, for this process too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (s3.environment | {"DUAL_HRNET_CACHE": str(tmp_path_factory.mktemp("cache"))}).items():
            patch.setenv(name, value)
        yield s3

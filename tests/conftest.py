"""Fixtures that all tests share: a tiny data set, its prepared form, parameters, a model, and stores."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser

from model.dual_hrnet import DualHRNet
from model.inference import save_model
from tests.commands import assert_one_line, environment, exit_line, run_step, succeed
from tests.comparing import LOGITS, assert_close, read_csv, read_png, tree
from tests.paths import GOLDEN, ROOT
from tests.repository import commit, copy_repository, dvc, run_dvc, source_files, stages_run
from tests.scenes import (
    GRADE_NAMES,
    SIZE,
    TEST_SCENES,
    TRAIN_SCENES,
    Rectangle,
    feature,
    pair,
    tiny_buildings,
    write_label,
    write_raw,
    write_scene,
)
from tests.servers.browser import running_browser
from tests.servers.kube_api import KubeApi, running
from tests.servers.s3_server import S3Server
from tests.stores import ready_store
from tests.temporary_folder import pytest_configure
from tests.tiny import ALONE, SMALL, TINY, prepare_params, write_params
from tests.workers.fork_server import fork_python

__all__ = [
    "ALONE",
    "GOLDEN",
    "GRADE_NAMES",
    "LOGITS",
    "ROOT",
    "SIZE",
    "SMALL",
    "TEST_SCENES",
    "TINY",
    "TRAIN_SCENES",
    "Rectangle",
    "assert_close",
    "assert_one_line",
    "commit",
    "copy_repository",
    "dvc",
    "environment",
    "exit_line",
    "feature",
    "pair",
    "prepare_params",
    "pytest_configure",
    "read_csv",
    "read_png",
    "run_dvc",
    "run_step",
    "source_files",
    "stages_run",
    "succeed",
    "tiny_buildings",
    "tree",
    "write_label",
    "write_params",
    "write_raw",
    "write_scene",
]

# One process, one core: sums in a fixed order, and workers of xdist that do not fight. `make test-kernels` takes two.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
# No database: tests write nothing into the repository. Derandomized: a failure comes back on every machine.
settings.register_profile("reproducible", deadline=None, database=None, derandomize=True)
settings.load_profile("reproducible")
# A command under test takes seconds of imports less; what a fresh interpreter shows is tested by `--help`, and where a
# test asks for one.
fork_python(environment())


@pytest.fixture(scope="session")
def xbd_sample() -> Path:
    """Real xBD scenes, which the licence keeps out of the repository."""
    return _outside("xbd_sample")


@pytest.fixture(scope="session")
def golden_targets() -> Path:
    """Official target masks with their labels, which the licence keeps out of the repository."""
    return _outside("golden/targets")


def _outside(name: str) -> Path:
    path = ROOT.parent / "shared" / name
    if not path.is_dir():
        pytest.skip(f"the xBD sample is not here: {path}")
    return path


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny raw data set; read-only by agreement."""
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set, prepared: 6 scenes in train, 2 in validation, 3 in test; read-only by agreement."""
    from components.prepare import prepare

    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(raw, out, prepare_params())
    return out


@pytest.fixture(scope="session")
def params_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """params.yaml with tiny settings."""
    return write_params(tmp_path_factory.mktemp("params") / "params.yaml")


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow store of this test process: a tracking URI, also set as MLFLOW_TRACKING_URI. Tests share it and use
    model names of their own.
    """
    uri = ready_store(tmp_path_factory.mktemp("mlflow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield uri


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory with random weights."""
    torch.manual_seed(0)
    save_model(DualHRNet(**SMALL), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server of this test process, empty at first; tests keep to prefixes of their own."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "objects")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running Chromium. Not of the whole session: asyncio takes it for an event loop that runs in this thread."""
    with running_browser() as running:
        yield running


@pytest.fixture(scope="session")
def one_kube_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """The Kubernetes API server of this test process."""
    with running(tmp_path_factory.mktemp("kube")) as server:
        yield server


@pytest.fixture(scope="module")
def kube_server(one_kube_server: KubeApi) -> Iterator[KubeApi]:
    """A running Kubernetes API server; tests keep to namespaces of their own, and see to the kinds of objects that they
    need. It stands still between the files that use it.
    """
    one_kube_server.go_on()
    yield one_kube_server
    one_kube_server.pause()


@pytest.fixture(scope="session")
def aws(s3: S3Server) -> dict[str, str]:
    """The environment in which DVC reaches the S3 server: it refuses a settings file that is there but is a device."""
    return s3.environment | {"AWS_CONFIG_FILE": str(s3.folder / "none")}

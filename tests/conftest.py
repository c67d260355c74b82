"""What tests share: a tiny data set in xBD's layout, its prepared form, tiny parameters, and command lines."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from hypothesis import settings
from PIL import Image
from torch import Tensor

from components.params import PrepareParams
from model.dual_hrnet import DualHRNet
from model.inference import save_model
from model.train.distributed import World
from tests.servers.s3_server import S3Server

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
ALONE = World(0, 1, 0, torch.device("cpu"))  # one process

# One process, one core: sums in a fixed order, and workers of xdist that do not fight. `make test-kernels` takes two.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
# No database: tests write nothing into the repository. Derandomized: a failure comes back on every machine.
settings.register_profile("reproducible", deadline=None, database=None, derandomize=True)
settings.load_profile("reproducible")

SIZE = 64  # pixels of a tiny scene
# How far two ways to the same logits may be apart, as a share of the largest: the network is some 60 layers deep, and
# each rounds to float32 once, by up to 2**-24.
LOGITS = 64 * 2**-24
GRADE_NAMES = ("no-damage", "minor-damage", "major-damage", "destroyed", "un-classified")
# By the hash of their names, with validation_share 0.25, the flood scenes are in train and the fire scenes are not.
TRAIN_SCENES = (*(f"tiny-flood_{number:08}" for number in range(6)), "tiny-fire_00000003", "tiny-fire_00000006")
TEST_SCENES = ("tiny-fire_00000000", "tiny-fire_00000005", "tiny-flood_00000010")
# Everything that a test relies on, so that the recipe of params.yaml can change without them.
SMALL: dict[str, Any] = {
    "width": 4,
    "stem_width": 8,
    "stage1_width": 4,
    "stage1_blocks": 1,
    "modules": (1, 1, 1),
    "blocks": 1,
}
TINY: dict[str, Any] = {
    "sample": {"train": 4, "test": 2, "size": 96},
    "prepare": {"validation_share": 0.25, "exclude": []},
    "train": {
        "network": {
            "width": 4,
            "stem_width": 8,
            "stage1_width": 4,
            "stage1_blocks": 1,
            "modules": [1, 1, 1],
            "blocks": 1,
            "batch_norm_momentum": 0.1,
        },
        "seed": 1,
        "epochs": 2,
        "global_batch_size": 4,
        "device_batch_size": 4,
        "crop_size": 64,
        "crops_per_scene": 2,
        "scale": [0.8, 1.2],
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "poly_power": 0.9,
        "damage_weight": 1.0,
        "damage_cross_entropy": 0.0,
        "class_weights": None,
        "validate_every": 2,
        "workers": 0,
    },
    "evaluate": {"splits": ["test"], "unclassified_as": 1, "per_building": "off", "pictures": 2},
    "register": {"name": "tiny"},
    "promote": {"minimum_score": 0.0, "tolerance": 0.0},
    "tracking": {"experiment": "tiny"},
}


class Rectangle(NamedTuple):
    """A building of a hand-made scene; pixels, borders included."""

    subtype: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def wkt(self) -> str:
        left, top, right, bottom = self[1:]
        return f"POLYGON (({left} {top}, {right} {top}, {right} {bottom}, {left} {bottom}, {left} {top}))"


def feature(wkt: Any, subtype: Any = "no-damage", uid: str = "b-1") -> dict[str, Any]:
    """One entry of features.xy; subtype None leaves the key out, as in pre labels."""
    properties = {"feature_type": "building", "uid": uid} | ({} if subtype is None else {"subtype": subtype})
    return {"properties": properties, "wkt": wkt}


def write_label(path: Path, features: Sequence[Mapping[str, Any]], **metadata: Any) -> Path:
    """A label file as xBD publishes it."""
    known = {"disaster": "tiny-flood", "disaster_type": "flooding", "gsd": 1.5, "off_nadir_angle": 12.25}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"features": {"lng_lat": [], "xy": list(features)}, "metadata": known | metadata}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_scene(
    root: Path, source: str, scene: str, buildings: Sequence[Rectangle], size: tuple[int, int] = (SIZE, SIZE)
) -> None:
    """The four files of a scene; the images are noise with the buildings in colours that tell their grade."""
    rng = np.random.default_rng(list(scene.encode()))
    images = rng.integers(40, 90, (2, *size, 3), dtype=np.uint8)
    for building in buildings:
        area = (slice(building.top, building.bottom + 1), slice(building.left, building.right + 1))
        images[0][area] = (210, 200, 190)
        images[1][area] = (210 - 40 * GRADE_NAMES.index(building.subtype), 150, 190)
    for image, moment in zip(images, ("pre", "post"), strict=True):
        path = root / source / "images" / f"{scene}_{moment}_disaster.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        write_label(
            root / source / "labels" / f"{scene}_{moment}_disaster.json",
            [
                feature(building.wkt, building.subtype if moment == "post" else None, f"{scene}-{number}")
                for number, building in enumerate(buildings)
            ],
            disaster=scene.rsplit("_", 1)[0],
        )


def tiny_buildings(scene: str) -> list[Rectangle]:
    """Five buildings that do not touch, one of each grade, at places that depend on the scene."""
    rng = np.random.default_rng([7, *scene.encode()])
    order = rng.permutation(len(GRADE_NAMES))
    buildings = []
    for number, grade in enumerate(order):
        left, top = (int(corner) for corner in rng.integers(1, 6, 2) + np.array([number % 3, number // 3]) * 20)
        buildings.append(Rectangle(GRADE_NAMES[grade], left, top, left + 12, top + 11))
    return buildings


def write_raw(root: Path) -> Path:
    """The tiny raw data set: 8 scenes in train, 3 in test."""
    for source, scenes in (("train", TRAIN_SCENES), ("test", TEST_SCENES)):
        for scene in scenes:
            write_scene(root, source, scene, tiny_buildings(scene))
    return root


def write_params(path: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """The repository's params.yaml with the tiny settings and then `overrides` laid over it."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for layer in (TINY, overrides or {}):
        _lay_over(content, layer)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def prepare_params(**overrides: Any) -> PrepareParams:
    """The section prepare, a quarter of the scenes held back, in one process."""
    usual: dict[str, Any] = {
        "validation_share": 0.25,
        "holdout_disasters": [],
        "exclude": [],
        "on_error": "fail",
        "workers": 1,
    }
    return PrepareParams(**usual | overrides)


def _lay_over(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def environment(**extra: str) -> dict[str, str]:
    """Environment of command lines under test: ours on the path, no MLflow of the machine, one thread or as many
    as these tests have.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "true"}
    return {"OMP_NUM_THREADS": "1"} | kept | quiet | {"PYTHONPATH": str(ROOT), "PATH": path} | extra


def run_step(name: str, *arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m components.NAME` in a process of its own, with `cwd` as working directory."""
    command = [sys.executable, "-m", f"components.{name}", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=300)


def succeed(name: str, *arguments: str | Path, cwd: Path, **extra: str) -> str:
    """Runs a step that must succeed; returns its stdout."""
    result = run_step(name, *arguments, cwd=cwd, **extra)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_one_line(result: subprocess.CompletedProcess[str], *named: str) -> None:
    """The command failed, and said so in a single line that names each of `named`."""
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in named:
        assert part in result.stderr


def source_files() -> list[str]:
    """Files of the repository, those that are not committed yet included, without the tests."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and not name.startswith("tests/")]


def copy_repository(folder: Path) -> Path:
    """Copies the files of the repository, without its history and its data."""
    for name in source_files():
        if (ROOT / name).is_file():  # a deleted file is listed until it is staged
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def commit(repository: Path) -> None:
    """Commits everything that git does not ignore."""
    author = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
    subprocess.run(["git", *author, "commit", "--quiet", "--message", "test"], cwd=repository, check=True)


def run_dvc(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs a DVC command in a process of its own."""
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**extra), capture_output=True, text=True, timeout=300)


def dvc(folder: Path, *arguments: str, **extra: str) -> str:
    """Output of a DVC command that must succeed."""
    result = run_dvc(folder, *arguments, **extra)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def stages_run(log: str) -> list[str]:
    """Stages that `dvc repro` ran, by its output."""
    return re.findall(r"Running stage '(\w+)'", log)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal but for rounding, whose size is that of the largest number: the share of it that may be wrong.

    CPUs sum in different orders, so that a bound in absolute numbers holds on one of them only.
    """
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes an image as it is, by Pillow."""
    with Image.open(path) as image:
        return np.asarray(image)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file by column name."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder: relative path to content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}


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
    """An MLflow store of this test process: a tracking URI, also set as MLFLOW_TRACKING_URI. Setting one up takes
    seconds, so tests share it and use model names of their own.
    """
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield uri


def pair(raw: Path, scene: str = TEST_SCENES[0]) -> list[str]:
    folder = raw / "test" / "images"
    return ["--pre", str(folder / f"{scene}_pre_disaster.png"), "--post", str(folder / f"{scene}_post_disaster.png")]


def exit_line(main: Callable[[Sequence[str]], None], *arguments: str | Path) -> str:
    """The one line with which a command ends; Python prints it to stderr and exits with 1."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str)
    assert "\n" not in caught.value.code
    return caught.value.code


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


@pytest.fixture(scope="session")
def aws(s3: S3Server) -> dict[str, str]:
    """The environment in which DVC reaches the S3 server: it refuses a settings file that is there but is a device."""
    return s3.environment | {"AWS_CONFIG_FILE": str(s3.folder / "none")}

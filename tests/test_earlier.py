"""What an earlier version of this project made still works: prepared scenes, a checkpoint, a model, a registry."""

import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from base.images import read_image
from model.inference import Origin, Predictor, load_model, read_origin
from tests.commands import step_here, succeed_here
from tests.conftest import GOLDEN, LOGITS, assert_close, read_csv, read_png
from tests.servers.mlflow_server import using
from xbd.scenes import open_scene, read_index

EARLIER = GOLDEN / "earlier"
PARAMS = EARLIER / "params.yaml"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The MLflow store of then, unpacked, which the steps use."""
    folder = tmp_path_factory.mktemp("store")
    with tarfile.open(EARLIER / "registry.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    dump = (folder / "store.sql").read_text(encoding="utf-8").replace("@STORE@", str(folder))
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript(dump)
    with using(f"sqlite:///{folder}/mlflow.db"):
        yield


def images() -> list[torch.Tensor]:
    paths = [EARLIER / "prediction" / f"{name}.png" for name in ("pre", "post")]
    return [torch.from_numpy(read_image(path).transpose(2, 0, 1).copy())[None] for path in paths]


def assert_the_prediction_of_then(folder: Path) -> None:
    """But for pixels that rounding decides."""
    for name in ("localization.png", "damage.png"):
        found, expected = read_png(folder / name), read_png(EARLIER / "prediction" / name)
        assert len(np.unique(expected)) > 1
        assert (found != expected).mean() < 0.001


def test_a_model_directory_gives_the_logits_of_then() -> None:
    found = Predictor(load_model(EARLIER / "model")).logits(*images())
    expected = np.load(EARLIER / "prediction" / "logits.npz")
    for name, logits in found._asdict().items():
        assert_close(logits, torch.from_numpy(expected[name]), LOGITS)


def test_nobody_knows_what_a_model_of_then_was_trained_on() -> None:
    assert read_origin(EARLIER / "model") == Origin()


def test_prepared_scenes_are_read() -> None:
    records = read_index(EARLIER / "prepared")
    assert sorted(record.split for record in records) == ["test", *4 * ["train"]]
    for record in records:
        assert open_scene(EARLIER / "prepared", record).shape == (64, 64, 7)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_killed_training_goes_on_from_its_checkpoint_in_the_run_that_it_had(tmp_path: Path) -> None:
    out = tmp_path / "training"
    shutil.copytree(EARLIER / "training", out)
    given = ("--params", PARAMS, "--data", EARLIER / "prepared", "--out", out)
    said = succeed_here("train", *given)
    assert "resumed after epoch 29 of 30" in said
    then, now = (read_csv(folder / "history.csv") for folder in (EARLIER / "training", out))
    assert [row["loss"] for row in now[:29]] == [row["loss"] for row in then]
    assert (out / "run.json").read_text()[:60] == (EARLIER / "training" / "run.json").read_text()[:60]  # its run_id
    found, expected = (load_model(folder / "model").state_dict() for folder in (out, EARLIER))
    for name, tensor in expected.items():
        # One epoch of float32 apart; a step at another learning rate, or without the momentum, would be further off.
        assert_close(found[name].float(), tensor.float(), 1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_registered_version_predicts_what_it_did(tmp_path: Path) -> None:
    pair = [part for name in ("pre", "post") for part in (f"--{name}", str(EARLIER / "prediction" / f"{name}.png"))]
    for number, uri in enumerate(("models:/earlier/1", "models:/earlier@production")):
        out = tmp_path / str(number)
        succeed_here("predict", "--model", uri, *pair, "--out", out)
        assert_the_prediction_of_then(out)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_registered_version_is_compared_with_a_new_one_on_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores that it was registered with count, because the data are the same."""
    monkeypatch.chdir(tmp_path)  # register takes the dvc.lock of the working directory
    content = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    content["train"]["epochs"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def step(name: str, *arguments: str | Path) -> str:
        return succeed_here(name, "--params", tmp_path / "params.yaml", *arguments)

    data = ("--data", EARLIER / "prepared")
    made = ("--model", tmp_path / "new" / "model", "--run", tmp_path / "new" / "run.json")
    step("train", *data, "--out", tmp_path / "new")
    step("evaluate", *data, *made, "--out", tmp_path / "evaluate")
    said = step("register", *made, "--metrics", tmp_path / "evaluate" / "metrics.json", "--out", tmp_path / "register")
    assert "models:/earlier/2" in said
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):  # by which a candidate that fails is told
        step_here("promote")(["--params", str(tmp_path / "params.yaml"), "--dry-run"])
    (line,) = [line for line in shown.getvalue().splitlines() if line.startswith("score")]
    of_then = json.loads((EARLIER / "metrics.json").read_text(encoding="utf-8"))["score"]
    assert f"{of_then:.4f}" in line.split()

"""The step train from a registered version or a folder: which one stands in every record, faults are one line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from base.errors import InputError
from components.kubeflow import tasks
from components.kubeflow.sections import defaults_of
from components.kubeflow.steps import NEEDS
from components.params import load_params
from model.dual_hrnet import DualHRNet
from model.inference import load_model, read_origin, save_model
from model.networks.by_name import build
from model.settings import network_settings
from tests.commands import exit_line, step_here, succeed_here
from tests.components.storage.s3_objects import put, use_server
from tests.paths import ROOT
from tests.servers.s3_server import S3Server
from tests.tiny import FEW_LAYERS, SMALL, write_params
from tests.workers.forked_training import trained

SHORT = {"epochs": 1, "crops_per_scene": 1, "validate_every": 0, "learning_rate": 1e-12, "weight_decay": 0.0}


class Versions:
    """A registered model of the test, whose versions are model directories packed as MLflow knows them."""

    def __init__(self, uri: str, name: str, folder: Path) -> None:
        self.client, self.name, self.folder = MlflowClient(uri), name, folder
        self.client.create_registered_model(name)

    def add(self, model: Path) -> int:
        place = Path(shutil.copytree(model, self.folder / f"{model.name}-version" / "artifacts" / "model")).parents[1]
        Model(flavors={"python_function": {"artifacts": {"model": {"path": "artifacts/model"}}}}).save(
            place / "MLmodel"
        )
        version = self.client.create_model_version(self.name, str(place))
        self.client.set_registered_model_alias(self.name, "production", version.version)
        return int(version.version)


@pytest.fixture
def versions(mlflow_store: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: Any) -> Versions:
    monkeypatch.chdir(tmp_path)
    return Versions(mlflow_store, request.node.name, tmp_path)


@pytest.fixture
def step(prepared: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The arguments of train, with these parameters."""

    def arguments(out: str = "out", **changes: Any) -> list[str]:
        params = write_params(tmp_path / "params.yaml", {"train": SHORT | changes})
        return ["--params", str(params), "--data", str(prepared), "--out", str(tmp_path / out)]

    return arguments


def model_of(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_model(DualHRNet(**SMALL), folder)
    return folder


def same(one: Path, other: Path) -> bool:
    """Whether weights are those of the other, but for the little that so low a rate changes."""
    states = [dict(load_model(folder).named_parameters()) for folder in (one, other)]
    return all(torch.allclose(tensor, states[1][name], atol=1e-6) for name, tensor in states[0].items())


def test_a_version_is_trained_on_and_its_number_stands_in_every_record(
    versions: Versions, step: Callable[..., list[str]], tmp_path: Path
) -> None:
    models = [model_of(tmp_path / f"model{seed}", seed) for seed in (1, 2)]
    versions.add(models[0])
    uri = f"models:/{versions.name}@production"
    said = succeed_here("train", *step(start_from=uri))
    assert f"starts from models:/{versions.name}/1: " in said
    out = tmp_path / "out"
    assert same(out / "model", models[0]) and not same(out / "model", models[1])
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    data = versions.client.get_run(run["run_id"]).data
    named = {run["started_from"], data.tags["started_from"], data.params["train.start_from"]}
    assert named == {read_origin(out / "model").started_from} == {f"models:/{versions.name}/1"}

    # The alias moves: another run, though the parameters say the same.
    versions.add(models[1])
    said = succeed_here("train", *step(start_from=uri))
    assert f"starts from models:/{versions.name}/2: " in said and "resumed" not in said
    assert same(out / "model", models[1])
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["run_id"] != run["run_id"]


def test_a_folder_is_named_with_the_hash_of_its_weights(
    versions: Versions, step: Callable[..., list[str]], tmp_path: Path
) -> None:
    base = model_of(tmp_path / "base", 1)
    succeed_here("train", *step(start_from=str(base)))
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert read_origin(tmp_path / "out" / "model").started_from == f"{base} (sha256 {digest[:12]})"
    assert same(tmp_path / "out" / "model", base)


def test_a_folder_on_s3_is_started_from_as_a_local_one(
    versions: Versions, step: Callable[..., list[str]], s3: S3Server, tmp_path: Path, monkeypatch: Any
) -> None:
    use_server(s3, tmp_path / "cache", monkeypatch)
    folder = model_of(tmp_path / "mine", 9)
    for path in folder.iterdir():
        put(s3, f"s3://data/models/mine/{path.name}", path.read_bytes())
    succeed_here("train", *step(start_from="s3://data/models/mine"))
    own = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert read_origin(tmp_path / "out" / "model").started_from == f"s3://data/models/mine (sha256 {own})"
    assert same(tmp_path / "out" / "model", folder)
    gone = exit_line(step_here("train"), *step("none", start_from="s3://data/models/other"))
    assert "s3://data/models/other" in gone
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_started_from_is_one_line_before_anything_is_written(
    versions: Versions, step: Callable[..., list[str]], tmp_path: Path
) -> None:
    base = model_of(tmp_path / "base", 1)
    number = versions.add(base)
    versions.client.delete_model_version(versions.name, str(number))
    torn = model_of(tmp_path / "torn", 1)
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:1000])
    for source, finding in (
        (f"models:/{versions.name}/1", f"models:/{versions.name}/1: model {versions.name}: has no version 1"),
        (f"models:/{versions.name}@production", "has no alias production, its aliases are none"),
        ("models:/nobody@production", "model nobody: is not registered"),
        ("models:/nobody", "names no registered model, expected models:/NAME@ALIAS or models:/NAME/VERSION"),
        (str(tmp_path / "no"), f"{tmp_path / 'no'}"),
        (str(torn), "model.safetensors"),
    ):
        line = exit_line(step_here("train"), *step(start_from=source))
        assert finding in line, line
    line = exit_line(step_here("train"), *step(start_from=str(base), network={"width": 8}))
    assert f"train.network: is not that of train.start_from {base}, expected width: 4." in line
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.slow
def test_two_processes_start_from_what_the_main_one_fetched(prepared: Path, tmp_path: Path) -> None:
    """The other has no model; had it begun with weights of its own, the mean of both gradients would say so."""
    torch.manual_seed(3)
    save_model(build(network_settings(FEW_LAYERS)), tmp_path / "base")
    changes = SHORT | {"network": FEW_LAYERS, "device_batch_size": 2, "start_from": "base", "freeze": ["encoder"]}
    params = write_params(tmp_path / "params.yaml", {"train": changes})
    out = tmp_path / "out"
    arguments = ("--params", params, "--data", prepared, "--out", out)
    assert trained(2, (tmp_path / "log", *arguments), cwd=tmp_path) == [[0, 0]]
    assert same(out / "model", tmp_path / "base")
    base = load_model(tmp_path / "base").state_dict()
    for name, tensor in load_model(out / "model").state_dict().items():
        if name.startswith(("stem", "levels")):
            assert torch.equal(tensor, base[name]), name


def test_a_pipeline_trains_from_the_version_that_an_alias_has_when_it_begins(
    versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check names it, whose answer is never cached; training has it in its output's name and its parameters."""
    versions.add(model_of(tmp_path / "base", 1))
    monkeypatch.setenv(tasks.PROCESSES, "1")
    shown = defaults_of(load_params(ROOT / "params.yaml"), NEEDS)
    pods = {"steps": shown["step_sizes"], "node_selector": {}, "tolerations": []}
    sections = {name: shown[name] for name in ("prepare", "train", "evaluate", "register", "promote", "tracking")}
    sections |= {"cluster": shown["cluster"] | pods}
    sections["train"] = sections["train"] | {"start_from": f"models:/{versions.name}@production"}
    *_, start = tasks.check("0" * 32, "nobody/asks", str(tmp_path / "root"), sections)
    assert start == f"models:/{versions.name}/1"

    asked: list[tuple[str | None, str]] = []
    monkeypatch.setattr(
        tasks, "train_here", lambda params, data, out, *_: asked.append((params.train.start_from, str(out)))
    )
    part = Artifact({"source": "train", "version": "1a/train", "location": "prepared/1a/train"})
    for name in (start, f"models:/{versions.name}/2", ""):
        tasks.train([part], str(tmp_path / "root"), sections, name, "", Artifact({}, str(tmp_path / "model")))
    assert [start for start, _ in asked] == [start, f"models:/{versions.name}/2", None]
    assert len({out for _, out in asked}) == 3
    sections["train"] = sections["train"] | {"start_from": f"models:/{versions.name}@gone"}
    with pytest.raises(InputError, match="has no alias gone"):
        tasks.check("0" * 32, "nobody/asks", str(tmp_path / "root"), sections)


class Artifact:
    """Of Kubeflow."""

    def __init__(self, metadata: dict[str, Any], path: str = "") -> None:
        self.metadata, self.path = metadata, path

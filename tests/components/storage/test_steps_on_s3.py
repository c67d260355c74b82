"""The steps with S3 locations: the same results as with paths, and a run that another machine goes on with."""

import json
from pathlib import Path
from typing import Any

import pytest

from components import evaluate, import_weights, predict, register, sample, train
from components.storage.s3 import Store
from tests.comparing import tree
from tests.components.storage.s3_objects import put, remote_tree
from tests.paths import GOLDEN
from tests.scenes import pair
from tests.servers.s3_server import S3Server
from tests.tiny import write_params


@pytest.fixture
def server(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server; paths are those of the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return server


def run_all(params: Path, data: str, images: str, out: str) -> None:
    """Train, evaluate, register and predict from `data` and `images` into locations below `out`."""
    usual, model = ["--params", str(params)], f"{out}/train/model"
    train.main([*usual, "--data", data, "--out", f"{out}/train"])
    found = ["--model", model, "--run", f"{out}/train/run.json"]
    results = ["--out", f"{out}/train/evaluate", "--submission", f"{out}/submission"]
    evaluate.main([*usual, "--data", data, *found, *results])
    metrics = ["--metrics", f"{out}/train/evaluate/metrics.json"]
    register.main([*usual, *found, *metrics, "--out", f"{out}/register"])
    predict.main(["--model", model, "--images", images, "--out", f"{out}/predictions"])


def comparable(files: dict[str, bytes]) -> dict[str, Any]:
    """Without what differs from run to run: ids, the version's number, and the speed, which is in checkpoints, too."""
    kept: dict[str, Any] = {name: content for name, content in files.items() if "/checkpoints/" not in name}
    for name in ("train/run.json", "register/version.json"):
        kept[name] = {key: value for key, value in json.loads(kept[name]).items() if key not in ("run_id", "uri")}
    kept["train/history.csv"] = [line.split(",")[:5] for line in kept["train/history.csv"].decode().splitlines()]
    return kept


@pytest.mark.endurance
def test_steps_give_the_same_with_s3_locations_as_with_paths(
    server: S3Server, raw: Path, prepared: Path, mlflow_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"s3://data/steps/{tmp_path.name}"
    params = write_params(tmp_path / "params.yaml", {"register": {"name": "by-storage"}})
    for name, folder in (("prepared", prepared), ("images", raw / "test" / "images")):
        for file, content in tree(folder).items():
            put(server, f"{uri}/{name}/{file}", content)
    run_all(params, str(prepared), str(raw / "test" / "images"), "local")
    local = capsys.readouterr().out
    run_all(params, f"{uri}/prepared", f"{uri}/images", f"{uri}/out")
    remote = capsys.readouterr().out
    results = remote_tree(server, f"{uri}/out")
    assert set(results) == set(tree(tmp_path / "local"))
    assert comparable(results) == comparable(tree(tmp_path / "local"))
    assert f"model: {uri}/out/train/model\n" in remote
    assert f"files to {uri}/out/predictions\n" in remote
    assert [line for line in remote.splitlines() if line.startswith("score")] == [
        line for line in local.splitlines() if line.startswith("score")
    ]


@pytest.mark.endurance
def test_a_training_goes_on_on_another_machine(
    server: S3Server,
    prepared: Path,
    mlflow_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = f"s3://data/steps/{tmp_path.name}/train"
    arguments = ["--params", str(write_params(tmp_path / "params.yaml")), "--data", str(prepared), "--out", out]
    train.main(arguments)
    model = remote_tree(server, f"{out}/model")
    Store(out).delete([one for name, one in Store(out).list_objects().items() if name.startswith("model/")])
    monkeypatch.setenv("DUAL_HRNET_CACHE", str(tmp_path / "another machine"))
    capsys.readouterr()
    train.main(arguments)
    assert "resumed after epoch 2 of 2" in capsys.readouterr().out
    assert remote_tree(server, f"{out}/model") == model


@pytest.mark.endurance
def test_sample_and_imported_weights_can_be_written_to_s3_locations(server: S3Server, tmp_path: Path) -> None:
    uri = f"s3://data/steps/{tmp_path.name}"
    published = GOLDEN / "model" / "published_format_tiny.pth"
    put(server, f"{uri}/weight.pth", published.read_bytes())
    import_weights.main(["--checkpoint", f"{uri}/weight.pth", "--out", f"{uri}/model"])
    import_weights.main(["--checkpoint", str(published), "--out", "model"])
    assert remote_tree(server, f"{uri}/model") == tree(tmp_path / "model")
    params = str(write_params(tmp_path / "params.yaml", {"sample": {"train": 1, "test": 1}}))
    sample.main(["--params", params, "--out", f"{uri}/sample"])
    sample.main(["--params", params, "--out", "sample"])
    assert remote_tree(server, f"{uri}/sample") == tree(tmp_path / "sample")


def test_a_pair_can_be_predicted_from_and_to_s3_locations(
    server: S3Server, raw: Path, model: Path, tmp_path: Path
) -> None:
    uri = f"s3://data/steps/{tmp_path.name}"
    options = pair(raw)
    predict.main(["--model", str(model), *options, "--out", "local"])
    for number, name in ((1, "pre.png"), (3, "post.png")):
        put(server, f"{uri}/{name}", Path(options[number]).read_bytes())
    images = ["--pre", f"{uri}/pre.png", "--post", f"{uri}/post.png"]
    for name in ("earlier", "localization.png"):
        put(server, f"{uri}/out/{name}", b"0")
    predict.main(["--model", str(model), *images, "--out", f"{uri}/out"])
    results = remote_tree(server, f"{uri}/out")
    assert results.pop("earlier") == b"0"
    masks = {"localization.png", "damage.png"}
    assert {name: results[name] for name in masks} == {
        name: content for name, content in tree(tmp_path / "local").items() if name in masks
    }

"""Registry and gate on a real MLflow server with PostgreSQL and S3: what a version carries, and what becomes of
a promotion that another process overtakes.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient

from base.images import read_image
from components import predict
from components.evaluate import evaluate
from components.params import EvaluateParams, Params, load_params
from components.prepare import prepare
from components.promote import describe, main, promote, rollback
from components.promotion.rescoring import Rescoring
from components.register import register
from components.tracking import runs
from components.tracking.registry import download_model
from model.dual_hrnet import DualHRNet
from model.inference import Predictor, load_model, save_model
from tests.components.tracking.model_registry import Registry, decisions
from tests.conftest import ROOT, SMALL, environment, exit_line, pair, prepare_params, read_png, tree, write_params
from tests.servers.mlflow_server import MlflowServer, using
from tests.servers.postgres_server import PostgresServer
from tests.servers.s3_server import S3Server
from xbd.scenes import prepared_version

pytestmark = pytest.mark.endurance


@dataclass(frozen=True)
class Work:
    """A server with one registered model. first, second: prepared scenes; two prepared versions."""

    server: MlflowServer
    client: MlflowClient
    folder: Path
    params_file: Path
    params: Params
    first: Path
    second: Path

    def add(self, seed: int, scenes: Path) -> str:
        """A model with random weights, scored on the scenes and registered; returns its URI."""
        folder = self.folder / f"{seed}"
        torch.manual_seed(seed)
        save_model(DualHRNet(**SMALL), folder / "model")
        run = runs.open_run(folder / "run.json", "server", prepared_version(self.first), f"settings-{seed}")
        runs.finish_run(run)
        evaluate(scenes, folder / "model", folder, self.params, run_file=folder / "run.json")
        return self.register(seed)

    def register(self, seed: int) -> str:
        folder = self.folder / f"{seed}"
        return register(folder / "model", folder / "metrics.json", folder / "run.json", folder / "version", self.params)

    def metrics(self, seed: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / f"{seed}" / "metrics.json").read_text(encoding="utf-8"))
        return content

    def version(self, number: int) -> Any:
        return self.client.get_model_version("server", str(number))


@pytest.fixture(scope="module")
def work(s3: S3Server, raw: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    folder = tmp_path_factory.mktemp("registry")
    postgres = PostgresServer()
    settings = {"MLFLOW_S3_ENDPOINT_URL": s3.endpoint, **s3.environment}
    server = MlflowServer(folder / "server", postgres.uri, "s3://data/mlflow", **settings)
    params_file = write_params(
        folder / "params.yaml",
        {
            "register": {"name": "server"},
            "promote": {"tolerance": 1.0, "grade_tolerance": None, "disaster_tolerance": None},
        },
    )
    prepare(raw, folder / "second", prepare_params(exclude=["tiny-fire_00000000"]))
    with using(server.uri, DUAL_HRNET_IMAGE="registry.example.org/damage@sha256:17"):
        try:
            postgres.start()
            server.start()
            client = MlflowClient(server.uri)
            work = Work(server, client, folder, params_file, load_params(params_file), prepared, folder / "second")
            assert work.add(1, prepared) == "models:/server/1"
            promote("server", work.params.promote, version=1)
            yield work
        finally:
            server.stop()
            postgres.stop()


def test_a_version_carries_its_lineage(work: Work, s3: S3Server) -> None:
    version = work.version(1)
    metrics, run = work.metrics(1), runs.read_run(work.folder / "1" / "run.json")
    assert version.run_id == run.run_id
    tags = version.tags
    for key in ("score", "score_per_pixel", "score_per_building", "damage_f1_destroyed"):
        assert float(tags[key]) == pytest.approx(metrics[key], rel=0, abs=5e-7)
    assert (
        json.loads(tags["gate_scores"])["disaster tiny-fire"] == metrics["per_disaster"]["tiny-fire"]["score_present"]
    )
    assert tags["prepared_version"] == tags["scored_prepared_version"] == prepared_version(work.first)
    assert tags["settings_hash"] == "settings-1"
    assert tags["image"] == "registry.example.org/damage@sha256:17"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert tags["git_commit"] == commit
    assert tags["git_dirty"] in ("true", "false")

    found = s3.client().list_objects_v2(Bucket="data", Prefix="mlflow/")["Contents"]
    names = {item["Key"].rsplit("/", 1)[1] for item in found}
    assert {"MLmodel", "model.safetensors", "requirements.txt", "constraints.txt", "pyfunc.py"} <= names


def test_the_scores_belong_to_the_model_of_the_version_and_to_its_data(work: Work) -> None:
    version, metrics = work.version(1), work.metrics(1)
    model = work.client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.source_run_id == version.run_id
    digest = prepared_version(work.first)[:36]
    measured = {point.key: point.value for point in model.metrics or [] if point.dataset_digest == digest}
    assert measured == {f"test_{key}": value for key, value in metrics.items() if isinstance(value, float)}
    found = work.client.get_run(version.run_id).inputs
    inputs = found.dataset_inputs if found else []
    assert {(used.dataset.name, used.dataset.digest) for used in inputs} == {("prepared", digest)}
    contexts = {tag.value for used in inputs for tag in used.tags if tag.key == "mlflow.data.context"}
    assert contexts == {"training"}  # one data set is one input, whatever it was used for


def test_whoever_installs_the_version_gets_the_versions_of_the_lock(work: Work, tmp_path: Path) -> None:
    folder = Path(download_artifacts("models:/server/1", dst_path=str(tmp_path)))
    lock = (ROOT / "requirements-image.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split(" ")[0] for line in lock if line and line[0].isalnum()}
    wanted = (folder / "requirements.txt").read_text(encoding="utf-8").split()
    names = {line.split("==")[0] for line in wanted if "==" in line}
    code = {
        "numpy",
        "opencv-python-headless",
        "pandas",
        "pillow",
        "pydantic",
        "rasterio",
        "safetensors",
        "shapely",
        "torchmetrics",
    }
    assert names == {"mlflow", "torch"} | code
    assert {line for line in wanted if "==" in line and not line.startswith("torch=")} <= pins
    assert wanted[-2:] == ["-c", "constraints.txt"]
    constraints = set((folder / "constraints.txt").read_text(encoding="utf-8").split())
    assert constraints == {pin.replace("[", "").replace("]", "") for pin in pins}
    content = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    assert content["signature"]["inputs"]
    assert content["saved_input_example_info"]


def test_the_registered_model_is_the_one_that_was_scored(work: Work, raw: Path, tmp_path: Path) -> None:
    directory = download_model("models:/server@production")
    for name in ("model.safetensors", "config.json"):
        assert (directory / name).read_bytes() == (work.folder / "1" / "model" / name).read_bytes()
    images = pair(raw)
    predict.main(["--model", "models:/server@production", *images, "--out", str(tmp_path)])
    batch = (torch.from_numpy(read_image(Path(path)).transpose(2, 0, 1).copy())[None] for path in images[1::2])
    expected = Predictor(load_model(work.folder / "1" / "model"))(*batch)
    assert (read_png(tmp_path / "localization.png") == expected.localization[0].numpy()).all()
    assert (read_png(tmp_path / "damage.png") == expected.damage[0].numpy()).all()


def test_predicting_with_a_registered_model_leaves_no_copy_of_it(
    work: Work, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow fetches the files of a server into the temporary folder of the process."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    predict.main(["--model", "models:/server@production", *pair(raw), "--out", str(tmp_path / "out")])
    assert len(tree(tmp_path / "out")) == 3
    assert list(temporary.iterdir()) == []


def test_the_same_model_again_stays_one_version(work: Work) -> None:
    before = work.client.search_model_versions("name = 'server'")
    assert work.register(1) == "models:/server/1"
    assert len(work.client.search_model_versions("name = 'server'")) == len(before)
    written = json.loads((work.folder / "1" / "version" / "version.json").read_text(encoding="utf-8"))
    assert written["uri"] == "models:/server/1"


def test_production_is_scored_anew_on_the_data_of_the_candidate(work: Work, tmp_path: Path) -> None:
    uri = work.add(2, work.second)
    promotion = ["--params", str(work.params_file), "--version", uri.rsplit("/", 1)[1]]
    line = exit_line(main, *promotion)
    assert "Give --data LOCATION" in line
    assert prepared_version(work.second) in line
    wrong = exit_line(main, *promotion, "--data", work.first)
    assert (
        f"{work.first}: is prepared version {prepared_version(work.first)}, expected {prepared_version(work.second)}"
        in wrong
    )
    assert int(work.client.get_model_version_by_alias("server", "production").version) == 1

    main([*promotion, "--data", str(work.second)])
    assert f"models:/server/{work.client.get_model_version_by_alias('server', 'production').version}" == uri
    expected = evaluate(work.second, work.folder / "1" / "model", tmp_path / "expected", work.params)
    (kept,) = (json.loads(value) for key, value in work.version(1).tags.items() if key.startswith("rescored."))
    assert kept["score"] == expected["score"]
    assert kept["disaster tiny-flood"] == expected["per_disaster"]["tiny-flood"]["score_present"]
    rollback("server")
    again = promote("server", work.params.promote, version=int(uri.rsplit("/", 1)[1]))  # the tag answers now
    assert "is production now" in describe(again)
    rollback("server")


def test_the_settings_of_the_candidate_go_for_production_too(work: Work) -> None:
    torch.manual_seed(3)
    folder = work.folder / "3"
    save_model(DualHRNet(**SMALL), folder / "model")
    settings = {"splits": ["validation"], "unclassified_as": "ignore", "per_building": "vote"}
    own = load_params(write_params(folder / "params.yaml", {"evaluate": settings, "register": {"name": "server"}}))
    evaluate(work.first, folder / "model", folder, own)
    (folder / "run.json").write_bytes((work.folder / "1" / "run.json").read_bytes())
    number = int(work.register(3).rsplit("/", 1)[1])
    # Nothing of today's parameters may come in, also where the candidate's scores say nothing, as of a usual setting.
    today = work.params.model_copy(update={"evaluate": work.params.evaluate.model_copy(update={"views": 8})})
    used: list[EvaluateParams] = []

    def seen(*given: Any, **named: Any) -> dict[str, Any]:
        used.append(given[-1].evaluate)
        return evaluate(*given, **named)

    promote("server", work.params.promote, version=number, rescoring=Rescoring([work.first], today, seen))
    assert used == [own.evaluate]
    expected = evaluate(work.first, work.folder / "1" / "model", folder / "expected", own)
    rows = decisions(work.client, "server", number)[-1]["rows"]
    assert {row["name"]: row["production"] for row in rows}["score"] == expected["score"]
    rollback("server")


@pytest.fixture
def race(work: Work, request: pytest.FixtureRequest) -> Registry:
    """A model with production 1 and three versions that may follow."""
    registry = Registry(work.server.uri, request.node.name)
    for _ in range(4):
        registry.add(0.5)
    promote(registry.name, work.params.promote, version=1)
    return registry


def test_a_promotion_in_another_process_between_comparison_and_approval_stands(work: Work, race: Registry) -> None:
    command = [sys.executable, "-m", "components.promote", "--params", str(work.params_file), "--model", race.name]
    waiting = ["--version", "2", "--require-approval", "--approval-interval", "0.02"]
    pipe, settings = subprocess.PIPE, environment(MLFLOW_TRACKING_URI=work.server.uri)
    with subprocess.Popen([*command, *waiting], stdout=pipe, stderr=pipe, text=True, env=settings) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "waiting" not in said:
                assert process.poll() is None
                said += process.stdout.readline()
            promote(race.name, work.params.promote, version=3)
            tag = next(word for word in said.split() if word.startswith("approved_by."))
            race.client.set_model_version_tag(race.name, "2", tag, "Ada")
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert said.splitlines()[1].split()[::5] == ["minimum", "passes"]  # shown before the approval
    assert process.returncode == 1
    assert err.startswith(f"HandoverError: model {race.name}: production is version 3, expected version 1")
    assert len(err.splitlines()) == 1
    assert race.production() == 3
    assert race.model_tags() == {"history.production": "1 3"}
    assert str(race.promotion(3)).startswith("promoted:")
    assert str(race.promotion(2)).startswith("refused:")

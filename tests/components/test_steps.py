"""The steps after prepare, through their command lines on the tiny data set: train, evaluate, register."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.inference import Predictor, load_model
from tests.commands import environment, exit_line, step_here, succeed, succeed_here
from tests.comparing import read_csv, read_png, tree
from tests.model.test_metric import KEYS, score_by_loops
from tests.scenes import TEST_SCENES, pair
from tests.servers.mlflow_server import using
from tests.tiny import write_params
from xbd.dataset import Scenes


@pytest.fixture(scope="session")
def work(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which train, evaluate and register have run."""
    folder = tmp_path_factory.mktemp("work")
    params = write_params(folder / "params.yaml", {"train": {"epochs": 3, "crops_per_scene": 8, "validate_every": 3}})
    succeed("train", "--params", params, "--data", prepared, "--out", "train", cwd=folder)
    succeed(
        "evaluate", "--params", params, "--data", prepared, "--model", "train/model", "--out", "evaluate",
        "--run", "train/run.json", "--history", "train/history.csv", "--submission", "submission", cwd=folder,
    )  # fmt: skip
    succeed(
        "register", "--params", params, "--model", "train/model", "--metrics", "evaluate/metrics.json",
        "--run", "train/run.json", "--out", "register", cwd=folder,
    )  # fmt: skip
    return folder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_metrics_start_with_the_official_keys(work: Path) -> None:
    metrics = read_json(work / "evaluate" / "metrics.json")
    assert list(metrics)[: len(KEYS)] == KEYS
    assert set(metrics["per_disaster"]) == {"tiny-fire", "tiny-flood"}
    assert set(metrics["per_split"]) == {"test"}
    assert list(metrics["per_disaster"]["tiny-fire"])[: len(KEYS)] == KEYS
    assert metrics["per_split"]["test"] == {key: metrics[key] for key in metrics["per_split"]["test"]}
    assert metrics["localization_f1"] > 0.05  # a model that predicts nothing would make the tests below empty


@pytest.mark.slow
def test_the_submission_has_the_official_names_and_plain_loops_over_it_give_the_metrics(work: Path) -> None:
    files = set(tree(work / "submission"))
    assert files == {
        f"{folder}/test_{kind}_{number:05}_{ending}.png"
        for folder, ending in (("predictions", "prediction"), ("targets", "target"))
        for kind in ("localization", "damage")
        for number in range(3)
    }
    masks = {name: read_png(work / "submission" / name) for name in files}
    assert {mask.dtype for mask in masks.values()} == {np.dtype(np.uint8)}
    assert {mask.shape for mask in masks.values()} == {(64, 64)}

    def stack(folder: str, kind: str, ending: str) -> Any:
        return np.stack([masks[f"{folder}/test_{kind}_{number:05}_{ending}.png"] for number in range(3)])

    target = stack("targets", "damage", "target")
    np.testing.assert_array_equal(stack("targets", "localization", "target"), target > 0)
    expected = score_by_loops(
        stack("predictions", "localization", "prediction"), stack("predictions", "damage", "prediction"), target
    )
    metrics = read_json(work / "evaluate" / "metrics.json")
    assert {key: metrics[key] for key in KEYS} == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.slow
def test_un_classified_buildings_are_no_damage_in_the_submission(work: Path, prepared: Path) -> None:
    names = [line["scene"] for line in read_csv(prepared / "index.csv") if line["split"] == "test"]
    for number, name in enumerate(names):
        mask = np.load(prepared / "scenes" / f"{name}.npy")[..., 6]
        assert (mask == 255).any()
        target = read_png(work / "submission" / "targets" / f"test_damage_{number:05}_target.png")
        np.testing.assert_array_equal(target, np.where(mask == 255, 1, mask))


@pytest.mark.slow
def test_the_confusion_matrix_counts_every_pixel_once(work: Path) -> None:
    rows = read_csv(work / "evaluate" / "confusion.csv")
    assert len(rows) == 25
    assert sum(int(row["pixels"]) for row in rows) == 3 * 64 * 64
    targets = [read_png(path) for path in sorted((work / "submission" / "targets").glob("*_damage_*"))]
    names = ["background", "no damage", "minor damage", "major damage", "destroyed"]
    for grade, name in enumerate(names):
        mine = [row for row in rows if row["actual"] == name]
        assert [row["predicted"] for row in mine] == names
        assert sum(int(row["pixels"]) for row in mine) == sum(int((target == grade).sum()) for target in targets)
        assert sum(float(row["share"]) for row in mine) == pytest.approx(1, abs=5e-4)


@pytest.mark.slow
def test_evaluation_predicts_as_inference_does(work: Path, prepared: Path) -> None:
    predictor = Predictor(load_model(work / "train" / "model"))
    for number, sample in enumerate(Scenes(prepared, ["test"])[i] for i in range(3)):
        localization, damage = predictor(sample.pre[None], sample.post[None])
        for name, mask in (("localization", localization), ("damage", damage)):
            path = work / "submission" / "predictions" / f"test_{name}_{number:05}_prediction.png"
            np.testing.assert_array_equal(read_png(path), mask[0])


@pytest.mark.slow
def test_the_report_tells_the_metrics_and_the_curves_of_the_run(work: Path) -> None:
    page = (work / "evaluate" / "report.html").read_text(encoding="utf-8")
    metrics = read_json(work / "evaluate" / "metrics.json")
    for key in ("score", "localization_f1", "damage_f1"):
        assert f"<td>{metrics[key]:.4f}</td>" in page
    assert page.count('class="curve"') == 2


def mlflow_client(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.mark.slow
def test_the_run_holds_parameters_metrics_and_files_of_all_steps(work: Path) -> None:
    run_file = read_json(work / "train" / "run.json")
    run = mlflow_client(work).get_run(run_file["run_id"])
    metrics = read_json(work / "evaluate" / "metrics.json")
    assert run.info.status == "FINISHED"
    assert run.data.params["train.network.width"] == "4"
    assert run.data.params["prepare.validation_share"] == "0.25"
    assert run.data.metrics["epoch"] == 3
    assert {key: run.data.metrics[f"test_{key}"] for key in KEYS} == {key: metrics[key] for key in KEYS}
    assert run.data.tags["prepared_version"] == run.data.tags["test_prepared_version"] == run_file["prepared_version"]
    assert run.data.tags["test_absent_grades"] == "none"
    files = {entry.path for entry in mlflow_client(work).list_artifacts(run.info.run_id)}
    assert {"params.yaml", "history.csv", "test"} <= files
    files = {entry.path for entry in mlflow_client(work).list_artifacts(run.info.run_id, "test")}
    assert files == {f"test/{name}" for name in ("metrics.json", "confusion.csv", "scenes.csv", "report.html")}


@pytest.mark.slow
def test_an_evaluation_leaves_what_the_run_says_of_other_splits(prepared: Path, work: Path, tmp_path: Path) -> None:
    given = ("--data", prepared, "--model", work / "train" / "model", "--run", work / "train" / "run.json")
    client, run_id = mlflow_client(work), read_json(work / "train" / "run.json")["run_id"]
    before = client.get_run(run_id).data
    found: dict[str, Any] = {}
    with using(f"sqlite:///{work / 'mlflow.db'}"):
        both = ("validation_and_test", ["test", "validation"])
        for name, splits in (("evaluated_validation", ["validation"]), both):
            params = write_params(tmp_path / f"{name}.yaml", {"evaluate": {"splits": splits}})
            succeed_here("evaluate", "--params", params, *given, "--out", tmp_path / name)
            found[name] = read_json(tmp_path / name / "metrics.json")
    after = client.get_run(run_id).data
    assert {key: after.metrics[key] for key in before.metrics} == before.metrics
    assert [point.step for point in client.get_metric_history(run_id, "validation_score")] == [3]  # the training's own
    assert {key: after.tags[key] for key in before.tags} == before.tags
    for name, metrics in found.items():
        for key in (*KEYS, "damage_f1_present", "building_f1"):
            assert after.metrics[f"{name}_{key}"] == metrics[key]
        assert json.loads(after.tags[f"{name}_evaluate_settings"]) == metrics["evaluate_settings"]
        assert {f"{name}/report.html"} <= {entry.path for entry in client.list_artifacts(run_id, name)}
    assert len({after.metrics[f"{name}_score"] for name in ("test", *found)}) == 3


@pytest.mark.slow
def test_the_registered_version_knows_its_score_data_and_run(work: Path) -> None:
    written = read_json(work / "register" / "version.json")
    run_file, metrics = read_json(work / "train" / "run.json"), read_json(work / "evaluate" / "metrics.json")
    assert written == {
        "uri": "models:/tiny/1",
        "run_id": run_file["run_id"],
        "score": metrics["score"],
        "prepared_version": run_file["prepared_version"],
    }
    version = mlflow_client(work).get_model_version_by_alias("tiny", "challenger")
    assert str(version.version) == "1"
    assert version.run_id == run_file["run_id"]
    assert {key: float(version.tags[key]) for key in KEYS} == pytest.approx(
        {key: metrics[key] for key in KEYS}, rel=0, abs=5e-7
    )
    assert version.tags["prepared_version"] == run_file["prepared_version"]
    assert version.tags["settings_hash"] == run_file["settings_hash"]
    assert version.tags["recipe"] == "none"
    run = mlflow_client(work).get_run(run_file["run_id"])
    assert version.tags["params_hash"] == run.data.tags["params_hash"]
    assert "git_commit" not in version.tags  # the working directory is no repository


LOAD = """
import json, pathlib, sys
import mlflow, pandas as pd
uri, pre, post, out = sys.argv[1:]
loaded = mlflow.pyfunc.load_model(uri)
images = [pathlib.Path(path).read_bytes() for path in (pre, post)]
rows = loaded.predict(pd.DataFrame({"pre": images[:1], "post": images[1:]}))
for name in ("localization", "damage"):
    (pathlib.Path(out) / f"{name}.png").write_bytes(rows[name][0])
signature = loaded.metadata.signature.to_dict()
print(json.dumps({
    "inputs": json.loads(signature["inputs"]), "outputs": json.loads(signature["outputs"]),
    "example": loaded.metadata.saved_input_example_info is not None,
}))
"""


@pytest.mark.slow
def test_the_registered_model_works_without_the_repository_and_predicts_as_predict_does(
    work: Path, raw: Path, tmp_path: Path
) -> None:
    images = [str(raw / "test" / "images" / f"{TEST_SCENES[0]}_{moment}_disaster.png") for moment in ("pre", "post")]
    alone = environment(MLFLOW_TRACKING_URI=f"sqlite:///{work / 'mlflow.db'}")
    del alone["PYTHONPATH"]
    command = [sys.executable, "-c", LOAD, "models:/tiny/1", *images, str(tmp_path)]
    loaded = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    description = json.loads(loaded.stdout.splitlines()[-1])
    assert [(column["name"], column["type"]) for column in description["inputs"]] == [
        ("pre", "binary"),
        ("post", "binary"),
    ]
    assert [(column["name"], column["type"]) for column in description["outputs"]] == [
        ("localization", "binary"),
        ("damage", "binary"),
        ("buildings", "array"),
    ]
    assert description["example"]

    succeed("predict", "--model", "models:/tiny@challenger", "--pre", images[0], "--post", images[1],
            "--out", tmp_path / "predict", cwd=work)  # fmt: skip
    for name in ("localization.png", "damage.png"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "predict" / name).read_bytes()
    damage, localization = read_png(tmp_path / "damage.png"), read_png(tmp_path / "localization.png")
    assert damage.shape == (64, 64)
    np.testing.assert_array_equal(damage > 0, localization > 0)


@pytest.mark.slow
def test_a_damaged_model_directory_does_not_become_a_version(
    work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(work / "train" / "model", tmp_path / "model")
    (broken / "model.safetensors").write_bytes(b"")
    with using(f"sqlite:///{work / 'mlflow.db'}"):
        line = exit_line(
            step_here("register"), "--params", work / "params.yaml", "--model", broken,
            "--metrics", work / "evaluate" / "metrics.json", "--run", work / "train" / "run.json",
            "--out", tmp_path / "register",
        )  # fmt: skip
    assert str(broken / "model.safetensors") in line
    assert capfd.readouterr().err == ""
    assert len(mlflow_client(work).search_model_versions("name = 'tiny'")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["models:/tiny@production", "models:/tiny/99", "models:/unknown@production"])
def test_an_unknown_registered_model_is_one_line(
    work: Path, raw: Path, tmp_path: Path, uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with using(f"sqlite:///{work / 'mlflow.db'}"):
        line = exit_line(step_here("predict"), "--model", uri, *pair(raw), "--out", tmp_path / "out")
    assert uri in line
    assert capfd.readouterr().err == ""

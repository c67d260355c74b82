"""Evaluate and register on their own: what they count, and what they refuse before anything is written."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluate import EvaluateError, evaluate
from components.params import ParamsError, load_params
from model.inference import Predictor, load_model
from tests.commands import assert_one_line, run_step
from tests.model.test_metric import KEYS, score_by_loops
from tests.stores import ready_store
from tests.tiny import write_params
from xbd.dataset import Scenes


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"score": "high"}', '{"score": null}'])
def test_a_file_that_is_no_metrics_file_is_refused(tmp_path: Path, content: str) -> None:
    from components.register import RegisterError, read_metrics

    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RegisterError, match=r"is not the metrics\.json of evaluate") as caught:
        read_metrics(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"run_id": "x"}', "[1]"])
def test_a_file_that_is_no_run_file_is_refused(tmp_path: Path, content: str) -> None:
    from components.tracking.connection import TrackingError
    from components.tracking.runs import read_run

    path = tmp_path / "run.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TrackingError, match=r"is not the run\.json of train"):
        read_run(path)


def test_source_tags_name_the_commit_and_whether_it_has_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.tracking.lineage import source_tags

    monkeypatch.chdir(tmp_path)
    assert source_tags() == {}
    for revision, dirty in (("0123456789ab", "false"), ("0123456789ab-dirty", "true")):  # as `make image` names it
        monkeypatch.setenv("DUAL_HRNET_REVISION", revision)
        assert source_tags() == {"git_commit": "0123456789ab", "git_dirty": dirty}

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("1", encoding="utf-8")
    git("add", "file")
    git("commit", "-m", "one")
    assert source_tags() == {"git_commit": git("rev-parse", "HEAD"), "git_dirty": "false"}
    (tmp_path / "dvc.lock").write_text("hashes", encoding="utf-8")  # of the stages that have run, written by DVC
    assert source_tags()["git_dirty"] == "false"
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert source_tags()["git_dirty"] == "false"
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert source_tags()["git_dirty"] == "true"


def test_the_official_files_cannot_say_ignore(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"unclassified_as": "ignore"}}))
    with pytest.raises(ParamsError, match=r"evaluate\.unclassified_as: found 'ignore' with --submission"):
        evaluate(prepared, model, tmp_path / "out", params, submission=tmp_path / "submission")
    assert not (tmp_path / "submission").exists()
    assert not (tmp_path / "out").exists()


def test_ignored_pixels_are_left_out_of_the_score(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"unclassified_as": "ignore"}}))
    metrics = evaluate(prepared, model, tmp_path / "out", params)
    masks: list[list[Any]] = [[], [], []]
    predictor, scenes = Predictor(load_model(model)), Scenes(prepared, ["test"])
    for sample in (scenes[i] for i in range(len(scenes))):
        kept = sample.mask != 255
        assert not kept.all()
        prediction = predictor(sample.pre[None], sample.post[None])
        for found, mask in zip(masks, (*prediction, sample.mask), strict=True):
            found.append(mask.reshape(64, 64)[kept].numpy())
    expected = score_by_loops(*(np.concatenate(part) for part in masks))
    assert {key: metrics[key] for key in KEYS} == pytest.approx(expected, rel=0, abs=1e-9)


def test_scores_of_the_parts_are_those_of_their_scenes(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"splits": ["test", "validation"]}}))
    both = evaluate(prepared, model, tmp_path / "both", params)
    for split in ("test", "validation"):
        alone = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"splits": [split]}}))
        metrics = evaluate(prepared, model, tmp_path / split, alone)
        assert both["per_split"][split] == {key: metrics[key] for key in KEYS}


def test_a_missing_split_is_an_error_that_names_it(prepared: Path, model: Path, tmp_path: Path) -> None:
    from xbd.scenes import SceneError

    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"splits": ["hold"]}}))
    with pytest.raises(SceneError, match="no scene in hold; it has test, train, validation"):
        evaluate(prepared, model, tmp_path / "out", params)


def test_evaluate_refuses_a_wrong_run_file_before_it_writes_anything(
    prepared: Path, model: Path, tmp_path: Path
) -> None:
    params = load_params(write_params(tmp_path / "params.yaml"))
    with pytest.raises(ValueError, match=r"no-run\.json: cannot be read"):
        evaluate(prepared, model, tmp_path / "out", params, run_file=tmp_path / "no-run.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"a,b\n1,2\n", b"\xff\xfe"])
def test_evaluate_refuses_a_wrong_history_before_it_writes_anything(
    prepared: Path, model: Path, tmp_path: Path, content: bytes | None
) -> None:
    params = load_params(write_params(tmp_path / "params.yaml"))
    history = tmp_path / "history"
    if content is None:
        history.mkdir()
    else:
        history.write_bytes(content)
    with pytest.raises(EvaluateError, match=r"expected history\.csv of train"):
        evaluate(prepared, model, tmp_path / "out", params, history=history)
    assert not (tmp_path / "out").exists()


def test_a_run_that_the_store_does_not_know_is_one_line_that_names_the_store(model: Path, tmp_path: Path) -> None:
    run = {"run_id": "0" * 32, "experiment": "tiny", "prepared_version": "a", "settings_hash": "b"}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (tmp_path / "metrics.json").write_text('{"score": 0.5}', encoding="utf-8")
    params = write_params(tmp_path / "params.yaml")
    ready_store(tmp_path)
    result = run_step(
        "register", "--params", params, "--model", model, "--metrics", tmp_path / "metrics.json",
        "--run", tmp_path / "run.json", "--out", tmp_path / "out", cwd=tmp_path,
    )  # fmt: skip
    assert_one_line(result, str(tmp_path / "run.json"))
    assert "sqlite:///mlflow.db" in result.stderr
    assert not (tmp_path / "out").exists()

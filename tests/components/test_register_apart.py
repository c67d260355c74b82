"""Register and the lineage on their own: what they refuse before anything is written."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.commands import assert_one_line, run_step
from tests.stores import ready_store
from tests.tiny import write_params


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


def test_a_run_that_the_store_does_not_know_is_one_line_that_names_the_store(model: Path, tmp_path: Path) -> None:
    run = {"run_id": "0" * 32, "experiment": "tiny", "prepared_version": "a", "settings_hash": "b"}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    measured = {"prepared_version": "a", "evaluate_settings": {"splits": ["test"]}, "absent_grades": []}
    (tmp_path / "metrics.json").write_text(json.dumps({"score": 0.5, **measured}), encoding="utf-8")
    params = write_params(tmp_path / "params.yaml")
    ready_store(tmp_path)
    result = run_step(
        "register", "--params", params, "--model", model, "--metrics", tmp_path / "metrics.json",
        "--run", tmp_path / "run.json", "--out", tmp_path / "out", cwd=tmp_path,
    )  # fmt: skip
    assert_one_line(result, str(tmp_path / "run.json"))
    assert "sqlite:///mlflow.db" in result.stderr
    assert not (tmp_path / "out").exists()

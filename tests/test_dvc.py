"""The local graph: what dvc.yaml declares, and what DVC makes of it."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.params import Params
from tests.conftest import ROOT, commit, copy_repository, dvc, source_files, stages_run, tree, write_params
from tests.stores import ready_store

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = DVC["stages"]
ORDER = ["sample", "prepare", "train", "evaluate", "register"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def resolve(text: str) -> str:
    """DVC's ${section.name} with the values of params.yaml."""

    def value(match: re.Match[str]) -> str:
        section, name = match[1].split(".")
        return str(PARAMS[section][name])

    return re.sub(r"\$\{([\w.]+)\}", value, text)


def paths(stage: str, *kinds: str) -> list[str]:
    """Paths under these keys of a stage; an entry with options is a mapping of one path."""
    entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]
    return [resolve(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]


def test_each_stage_depends_on_outputs_of_earlier_ones_in_the_order_of_the_pipeline() -> None:
    assert list(STAGES) == ORDER
    made_by = {path: stage for stage in ORDER for path in paths(stage, "outs", "metrics")}
    edges = {stage: {made_by[path] for path in paths(stage, "deps") if path in made_by} for stage in ORDER}
    assert edges == {
        "sample": set(),
        "prepare": {"sample"},
        "train": {"prepare"},
        "evaluate": {"prepare", "train"},
        "register": {"train", "evaluate"},
    }


def test_what_a_stage_depends_on_is_made_or_is_code() -> None:
    made = {path for stage in ORDER for path in paths(stage, "outs", "metrics")}
    for stage in ORDER:
        for path in paths(stage, "deps"):
            assert path in made or (ROOT / path).exists(), f"{stage}: {path}"
        assert f"components/{stage}.py" in paths(stage, "deps")


@pytest.mark.parametrize("stage", ORDER)
def test_the_command_is_one_that_the_step_understands(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(resolve(STAGES[stage]["cmd"]))
    assert words[:3] == ["python", "-m", f"components.{stage}"]
    assert words[words.index("--params") + 1] == "params.yaml"
    step = importlib.import_module(f"components.{stage}")

    class ParsedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise ParsedError

    # The parser is the real one; the command is stopped at what comes right behind it.
    monkeypatch.setattr(step, "read_params", stop)
    with pytest.raises(ParsedError):
        step.main(words[3:])


@pytest.mark.parametrize("stage", ORDER)
def test_paths_of_the_command_are_declared(stage: str) -> None:
    """A path that a command reads or writes and DVC does not know would make a stale result pass."""
    words = shlex.split(resolve(STAGES[stage]["cmd"]))
    options = dict(zip(words[3::2], words[4::2], strict=True))
    inputs = {value for option, value in options.items() if option not in ("--out", "--params")}
    assert inputs <= set(paths(stage, "deps"))
    for path in paths(stage, "outs", "metrics"):
        assert path == options["--out"] or path.startswith(f"{options['--out']}/")


@pytest.mark.parametrize("stage", ORDER)
def test_parameters_of_a_stage_are_sections_and_include_its_own(stage: str) -> None:
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    assert stage in STAGES[stage]["params"]
    assert set(STAGES[stage]["params"]) <= sections


def test_plots_show_columns_of_declared_outputs() -> None:
    outputs = {path for stage in ORDER for path in paths(stage, "outs", "metrics")}
    for plot in DVC["plots"]:
        for definition in plot.values():
            assert set(definition["y"]) <= outputs
            if "template" in definition:
                template = ROOT / ".dvc" / "plots" / f"{definition['template']}.json"
                json.loads(template.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with tiny parameters, in which everything has run once."""
    copy = copy_repository(tmp_path_factory.mktemp("repository"))
    write_params(copy / "params.yaml", {"prepare": {"validation_share": 0.5}})
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    ready_store(copy)
    (copy / "first.log").write_text(dvc(copy, "repro"), encoding="utf-8")
    return copy


@pytest.mark.endurance
def test_repro_runs_the_graph_once_and_then_what_a_change_reaches(repository: Path) -> None:
    assert stages_run((repository / "first.log").read_text(encoding="utf-8")) == ORDER
    assert stages_run(dvc(repository, "repro")) == []
    params = repository / "params.yaml"
    content = yaml.safe_load(params.read_text(encoding="utf-8"))
    content["train"]["learning_rate"] = 0.04
    params.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert stages_run(dvc(repository, "repro")) == ["train", "evaluate", "register"]
    assert stages_run(dvc(repository, "repro")) == []


def without_lists(content: Any) -> Any:
    """What DVC shows of a metrics file."""
    if not isinstance(content, dict):
        return content
    return {key: without_lists(value) for key, value in content.items() if not isinstance(value, list)}


@pytest.mark.endurance
def test_metrics_show_the_score(repository: Path) -> None:
    shown = json.loads(dvc(repository, "metrics", "show", "--json"))[""]["data"]
    metrics = json.loads((repository / "output" / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert shown == {"output/evaluate/metrics.json": {"data": without_lists(metrics)}}


@pytest.mark.endurance
def test_plots_show_loss_validation_and_confusion(repository: Path, tmp_path: Path) -> None:
    dvc(repository, "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    history = (repository / "output" / "train" / "history.csv").read_text(encoding="utf-8").splitlines()
    loss = dict(zip(history[0].split(","), history[1].split(","), strict=True))["loss_damage"]
    for part in ("loss_localization", "loss_damage", loss, "validation_score", "Confusion matrix", "major damage"):
        assert part in page, part


@pytest.mark.endurance
def test_another_machine_pulls_the_run_and_repeats_nothing(
    repository: Path, aws: dict[str, str], tmp_path: Path
) -> None:
    """Small outputs such as run.json are neither in git nor in the remote: --allow-missing takes dvc.lock for them."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(repository, first, symlinks=True)
    dvc(first, "remote", "add", "--default", "storage", "s3://dvc/whole-graph")
    dvc(first, "remote", "modify", "storage", "verify", "true")
    commit(first)
    dvc(first, "push", **aws)
    subprocess.run(["git", "clone", "--quiet", str(first), str(second)], check=True)
    dvc(second, "pull", **aws)
    assert tree(second / "output" / "train" / "model") == tree(repository / "output" / "train" / "model")
    assert stages_run(dvc(second, "repro", "--allow-missing")) == []


@pytest.mark.endurance
def test_the_run_leaves_the_repository_clean(repository: Path) -> None:
    """Data, models and MLflow's store are ignored by git; only what DVC writes to be committed is new."""
    command = ["git", "ls-files", "-o", "--exclude-standard"]
    files = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.split()
    assert set(files) - set(source_files()) <= {"first.log", "dvc.lock", "data/.gitignore"}

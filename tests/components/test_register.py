"""Registration on a local store: one version for one result, requirements by the lock, what is left out if unknown."""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from base.stac import ITEM
from components.cards.card import CARD
from components.params import load_params
from components.register import CODE, RegisterError, main, read_metrics, register
from components.tracking import lock, runs
from components.tracking.lock import LockError, pin, read_lock
from components.tracking.registry import DIRECTORY, download_model
from tests.conftest import ROOT, exit_line, write_params
from tests.servers.mlflow_server import using
from tests.stac_items import check_item, check_model

METRICS: dict[str, Any] = {
    "score": 0.5,
    "absent_grades": [],
    "prepared_version": "d1",
    "evaluate_settings": {"splits": ["test"], "unclassified_as": 1},
}


@dataclass(frozen=True)
class Work:
    """A trained model with its metrics, to be registered under the name of the test."""

    folder: Path
    client: MlflowClient
    name: str

    @property
    def arguments(self) -> list[str]:
        places = {"params": "params.yaml", "model": "model", "metrics": "metrics.json", "run": "run.json", "out": "out"}
        return [word for option, name in places.items() for word in (f"--{option}", str(self.folder / name))]

    def register(self, **metrics: Any) -> str:
        (self.folder / "metrics.json").write_text(json.dumps(METRICS | metrics), encoding="utf-8")
        model, metrics_file, run, out = (self.folder / name for name in ("model", "metrics.json", "run.json", "out"))
        return register(model, metrics_file, run, out, load_params(self.folder / "params.yaml"))

    def versions(self) -> int:
        return len(self.client.search_model_versions(f"name = '{self.name}'"))

    def challenger(self) -> int:
        return int(self.client.get_model_version_by_alias(self.name, "challenger").version)


@pytest.fixture
def work(
    mlflow_store: str, model: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Work]:
    monkeypatch.chdir(tmp_path)
    name = request.node.name
    write_params(tmp_path / "params.yaml", {"register": {"name": name}})
    with using(mlflow_store):
        client = MlflowClient(mlflow_store)
        client.create_experiment(name, (tmp_path / "files").as_uri())
        runs.finish_run(runs.open_run(tmp_path / "run.json", name, "d1", "s1"))
        yield Work(tmp_path, client, name)


@pytest.mark.slow
def test_one_result_is_one_version_and_other_scores_are_another(work: Work) -> None:
    assert work.register() == f"models:/{work.name}/1"
    assert work.register() == f"models:/{work.name}/1"
    assert work.register(damage_f1=0.25) == f"models:/{work.name}/2"
    assert work.challenger() == 2
    assert work.register() == f"models:/{work.name}/1"
    assert work.challenger() == 1  # what was registered last
    assert work.versions() == 2


@pytest.mark.slow
def test_scores_on_other_data_are_another_version(work: Work) -> None:
    work.register()
    run = runs.read_run(work.folder / "run.json")
    settings = {"unclassified_as": 1, "splits": ["hold"]}
    assert work.register(prepared_version="d2", evaluate_settings=settings) == f"models:/{work.name}/2"
    first, second = (work.client.get_model_version(work.name, number).tags for number in ("1", "2"))
    assert (first["prepared_version"], first["scored_prepared_version"]) == ("d1", "d1")
    assert (second["prepared_version"], second["scored_prepared_version"]) == ("d1", "d2")
    assert first["evaluate_settings"] == '{"splits": ["test"], "unclassified_as": 1}'
    assert second["evaluate_settings"] == '{"splits": ["hold"], "unclassified_as": 1}'
    assert not {"raw_version", "image", "pipeline_run", "git_commit"} & set(first)
    scores = {key: value for key, value in work.client.get_run(run.run_id).data.metrics.items() if "score" in key}
    assert scores == {"test_score": 0.5, "hold_score": 0.5}
    found = work.client.get_run(run.run_id).inputs
    uses = {(used.dataset.digest, tag.value) for used in (found.dataset_inputs if found else []) for tag in used.tags}
    assert uses == {("d1", "training"), ("d2", "evaluation")}


def test_scores_that_do_not_say_of_what_they_are_become_no_version(work: Work) -> None:
    """Of an earlier evaluate. The tags of the run are about its latest evaluation, which may be another."""
    run = runs.read_run(work.folder / "run.json")
    runs.tag_run(run, {"evaluated_prepared_version": "d2", "evaluate_settings": '{"splits": ["hold"]}'})
    for lacking in ("prepared_version", "evaluate_settings", "absent_grades"):
        older = {key: value for key, value in METRICS.items() if key != lacking}
        (work.folder / "metrics.json").write_text(json.dumps(older), encoding="utf-8")
        line = exit_line(main, *work.arguments)
        assert line.startswith(f"RegisterError: {work.folder / 'metrics.json'}: does not say on which splits")
        assert line.endswith("evaluate again.")
    assert work.versions() == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"score": float("nan")}, "score: found nan"),
        ({"score": 2.0}, "score: found 2.0"),
        ({"score": 10**400}, "OverflowError"),
        ({"damage_f1_destroyed": [1]}, "damage_f1_destroyed: found [1]"),
        ({"absent_grades": "none"}, "absent_grades: found 'none'"),
        ({"prepared_version": None}, "prepared_version: found None"),
        ({"evaluate_settings": {"splits": []}}, "evaluate_settings.splits: found []"),
        ({"evaluate_settings": {"splits": ["tests"]}}, "evaluate_settings.splits.0: found 'tests'"),
        ({"per_disaster": {"fire": {"score": 0.5}}}, "per_disaster.fire.score_present: found"),
    ],
)
def test_metrics_that_evaluate_never_writes_are_refused(tmp_path: Path, given: dict[str, Any], named: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(METRICS | given), encoding="utf-8")
    with pytest.raises(RegisterError) as caught:
        read_metrics(path)
    assert str(caught.value).startswith(f"{path}: is not the metrics.json of evaluate ({named}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [(b'{"score": 0.5, "n": "\xff"' * 50, "UnicodeDecodeError"), (b'{"score": "' + b"9" * 999 + b'x"}', "")],
)
def test_damaged_metrics_are_refused_without_repeating_them(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(RegisterError, match=f"is not the metrics.json of evaluate .{named}") as caught:
        read_metrics(path)
    assert len(str(caught.value)) < 350 + len(str(path))


@pytest.mark.slow
def test_a_version_tells_the_raw_data_behind_its_model_and_the_grades_that_its_scores_lack(work: Work) -> None:
    path = work.folder / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["trained_on"] = {"scenes": "real", "events": ["fire"], "prepared_version": "d1", "raw_version": "17.dir"}
    path.write_text(json.dumps(config), encoding="utf-8")
    work.register(absent_grades=["minor_damage", "destroyed"])
    tags = work.client.get_model_version(work.name, "1").tags
    assert (tags["raw_version"], tags["trained_on"]) == ("17.dir", "real")
    assert tags["absent_grades"] == "minor_damage, destroyed"
    # Its card says the same, and lies beside the weights.
    version = work.client.get_model_version(work.name, "1")
    folder = download_model(f"models:/{work.name}/1", work.folder / "fetched")
    card, item = (folder / name for name in (CARD, ITEM))
    assert f"{DIRECTORY}/{CARD} ([files](#/experiments/" in (version.description or "")
    assert folder == work.folder / "fetched" / DIRECTORY
    for said in (
        "| raw data, DVC's hash | `17.dir` |",
        "fire: unknown, nobody recorded it",
        "No pixel of minor damage",
    ):
        assert said in card.read_text(encoding="utf-8")
    described = json.loads(item.read_text(encoding="utf-8"))
    check_item(described)
    check_model(described)
    assert all((folder / asset["href"]).exists() for asset in described["assets"].values())


@pytest.mark.slow
def test_a_registration_that_was_interrupted_before_the_alias_is_completed(work: Work) -> None:
    work.register()
    work.client.delete_registered_model_alias(work.name, "challenger")
    assert work.register() == f"models:/{work.name}/1"
    assert work.challenger() == 1


def test_without_a_lock_nothing_is_registered(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    (work.folder / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    monkeypatch.setattr(lock, "LOCKS", (work.folder / "requirements-image.txt", work.folder / "requirements.txt"))
    line = exit_line(main, *work.arguments)
    assert line.startswith(f"LockError: {work.folder / 'requirements-image.txt'}: is missing")
    assert work.versions() == 0
    assert not (work.folder / "out").exists()


def imported_packages(script: Path) -> set[str]:
    """Packages of this project that a file reaches through imports, also those inside functions."""
    found, waiting = set[str](), [script]
    seen = set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        found.add(path.relative_to(ROOT).parts[0])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for place in (ROOT.joinpath(*name.split(".")) for name in names):
                waiting += [place.with_suffix(".py"), place / "__init__.py"]
    return found


def test_a_version_brings_every_package_that_its_script_reaches() -> None:
    reached = imported_packages(ROOT / "model" / "pyfunc.py")
    assert {"base", "model"} <= reached <= set(CODE)


def test_the_lock_of_the_image_goes_before_the_one_of_the_development(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, development = tmp_path / "requirements-image.txt", tmp_path / "requirements.txt"
    monkeypatch.setattr(lock, "LOCKS", (image, development))
    development.write_text("numpy==1.0\n", encoding="utf-8")
    assert read_lock() == {"numpy": "1.0"}
    lines = ["Pillow==12.1 \\", "    --hash=sha256:00", "    # via x==3", "psycopg[binary]==3.3.9 ; extra == 'a'", ""]
    image.write_text("\n".join(lines), encoding="utf-8")
    assert read_lock() == {"pillow": "12.1", "psycopg": "3.3.9"}
    assert pin("pillow", read_lock()) == "pillow==12.1"
    with pytest.raises(LockError, match="names no version of numpy"):
        pin("numpy", read_lock())

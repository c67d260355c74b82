"""Promotion on a local store: what moves, what is refused, and what stands in the registry and the run afterwards."""

import getpass
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from components.params import PromoteParams
from components.promote import describe, main, print_comparison, promote, rollback
from components.promotion.decision import Decision
from components.promotion.gate import GateError
from components.promotion.handover import HandoverError, hand_over
from components.tracking import registry as registry_of_models
from components.tracking.connection import TrackingError
from tests.components.tracking.model_registry import Registry
from tests.conftest import assert_one_line, exit_line, run_step, write_params

GATE = PromoteParams(minimum_score=0.3, tolerance=0.0)


def promote_challenger(registry: Registry, **options: Any) -> Decision:
    return promote(registry.name, GATE, alias="challenger", **options)


def version_of(registry: Registry, number: int) -> Any:
    return registry.client.get_model_version(registry.name, str(number))


def test_the_first_version_that_reaches_the_minimum_becomes_production(registry: Registry) -> None:
    version = registry.add(0.3)
    decision = promote_challenger(registry)
    line = f"{registry.name} version {version} is production now: {decision.reason}"
    assert describe(decision) == line
    assert (decision.verdict, decision.is_dry_run, decision.previous) == ("promoted", False, None)
    assert decision.reason.startswith("score 0.3000 reaches 0.3")
    assert [(row.name, row.candidate, row.limit) for row in decision.rows if row.words is None] == [
        ("minimum", 0.3, 0.3),
        ("score", 0.3, None),
    ]
    assert registry.production() == version
    assert registry.promotion(version) == f"promoted: {decision.reason}"


def test_a_version_worse_than_production_is_refused_and_production_stays(registry: Registry) -> None:
    first = registry.add(0.6)
    promote_challenger(registry)
    second = registry.add(0.59)
    with pytest.raises(GateError, match=r"worse than production's 0\.6000"):
        promote_challenger(registry)
    assert registry.production() == first
    assert str(registry.promotion(second)).startswith("refused: score 0.5900")


def test_a_better_version_becomes_production_and_an_equal_one_too(registry: Registry) -> None:
    for score in (0.4, 0.5, 0.5):
        version = registry.add(score)
        promote_challenger(registry)
        assert registry.production() == version


def test_promoting_production_again_changes_nothing(registry: Registry) -> None:
    version = registry.add(0.5)
    promote_challenger(registry)
    strict = PromoteParams(minimum_score=0.9, tolerance=0.0)
    line = describe(promote(registry.name, strict, alias="challenger"))
    assert line.endswith(f"version {version} is production already")
    assert registry.production() == version


def test_a_version_can_be_chosen_by_number_and_another_alias_moved(registry: Registry) -> None:
    first, _ = registry.add(0.5), registry.add(0.6)
    promote(registry.name, GATE, version=first)
    promote(registry.name, GATE, version=2, to="staging")
    assert registry.production() == first
    assert int(registry.client.get_model_version_by_alias(registry.name, "staging").version) == 2


def test_scores_of_two_data_versions_are_not_compared(registry: Registry) -> None:
    registry.add(0.5, "d1")
    promote_challenger(registry)
    second = registry.add(0.6, "d2")
    with pytest.raises(
        GateError, match=r"scored on prepared version d1, this one on prepared version d2.*Give --data LOCATION"
    ):
        promote_challenger(registry)
    assert registry.production() == 1
    assert str(registry.promotion(second)).startswith("refused:")


def test_a_decision_stands_in_the_run_of_the_version_with_its_reasons_and_who_took_it(registry: Registry) -> None:
    registry.add(0.5, damage_f1_destroyed=0.5)
    promote_challenger(registry)
    second = registry.add(0.6, damage_f1_destroyed=0.4)
    with pytest.raises(GateError):
        promote_challenger(registry)
    loose = PromoteParams(minimum_score=0.3, tolerance=0.0, grade_tolerance=0.2)
    promote(registry.name, loose, alias="challenger")

    refused, moved = registry.decisions(second)
    assert (refused["verdict"], moved["verdict"]) == ("refused", "moving")
    assert "damage_f1_destroyed 0.4000 is worse than production's 0.5000" in refused["reason"]
    assert [(row["name"], row["candidate"], row["production"], row["passes"]) for row in refused["rows"]] == [
        ("minimum", 0.6, None, True),
        ("score", 0.6, 0.5, True),
        ("damage_f1_destroyed", 0.4, 0.5, False),
    ]
    assert (moved["version"], moved["previous"], moved["alias"], moved["prepared_version"]) == (
        2,
        1,
        "production",
        "d1",
    )
    assert moved["by"].startswith(f"{getpass.getuser()}@{socket.gethostname()}")
    tags = registry.tags(second)
    assert (tags["promotion_by"], tags["promotion_at"]) == (moved["by"], moved["at"])
    assert tags["promotion"].startswith("promoted:")


def test_a_decision_names_the_pipeline_run_that_took_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_ID", "run-17")
    version = registry.add(0.5)
    promote_challenger(registry)
    assert registry.tags(version)["promotion_by"].endswith("pipeline run run-17")


def test_a_dry_run_prints_the_comparison_and_changes_nothing(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add(0.5)
    promote_challenger(registry)
    better, worse = registry.add(0.6), registry.add(0.4)
    before = registry.model_tags(), registry.tags(better), registry.tags(worse)
    capsys.readouterr()
    shown = {"dry_run": True, "on_comparison": print_comparison}
    decision = promote(registry.name, GATE, version=better, **shown)  # type: ignore[arg-type]
    assert (decision.verdict, decision.is_dry_run) == ("promoted", True)
    assert f"version {better} would become production: score 0.6000" in describe(decision)
    with pytest.raises(GateError):
        promote(registry.name, GATE, version=worse, **shown)  # type: ignore[arg-type]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["score", "0.6000", "0.5000", "+0.1000", "0.5000", "passes"] in lines
    assert ["score", "0.4000", "0.5000", "-0.1000", "0.5000", "refused"] in lines
    assert rollback_is_refused(registry)
    assert registry.production() == 1
    assert (registry.model_tags(), registry.tags(better), registry.tags(worse)) == before
    assert registry.decisions(better) == registry.decisions(worse) == []


def rollback_is_refused(registry: Registry) -> bool:
    with pytest.raises(HandoverError, match="no version before version 1 is recorded for production"):
        rollback(registry.name, dry_run=True)
    return True


def test_rollback_goes_back_step_by_step_also_to_a_version_that_was_production_twice(registry: Registry) -> None:
    for _ in range(2):
        registry.add(0.5)
    for version in (1, 2, 1):
        promote(registry.name, GATE, version=version)
    assert "version 2 would become production again" in rollback(registry.name, dry_run=True)
    assert registry.production() == 1
    line = rollback(registry.name)
    assert line == f"{registry.name} version 2 is production again, instead of version 1"
    assert registry.production() == 2
    assert str(registry.promotion(1)).startswith("rolled back: to version 2")
    assert registry.decisions(1)[-1]["verdict"] == "rolled back"
    assert registry.promotion(2) == "restored: by the rollback of version 1"
    rollback(registry.name)
    assert rollback_is_refused(registry)
    assert registry.production() == 1


def test_rollback_finds_a_production_that_was_set_by_hand_before_the_promotion(registry: Registry) -> None:
    registry.add(0.1), registry.add(0.5)
    registry.client.set_registered_model_alias(registry.name, "production", "1")
    promote_challenger(registry)
    rollback(registry.name)
    assert registry.production() == 1


def test_an_alias_that_was_moved_after_the_decision_is_not_moved_again(registry: Registry) -> None:
    for _ in range(3):
        registry.add(0.5)
    promote(registry.name, GATE, version=1)
    first, second, third = (version_of(registry, number) for number in (1, 2, 3))
    promote(registry.name, GATE, version=2)
    recorded: list[int] = []
    with pytest.raises(HandoverError, match=r"production is version 2, expected version 1: .* by \S+@"):
        hand_over(registry.name, "production", first, third, lambda: recorded.append(3))
    assert (registry.production(), recorded) == (2, [])
    assert registry.model_tags() == {"history.production": "1 2"}
    hand_over(registry.name, "production", second, third, lambda: recorded.append(3))
    assert (registry.production(), recorded) == (3, [3])


def test_a_move_that_came_while_the_decision_was_recorded_stands(registry: Registry) -> None:
    for _ in range(3):
        registry.add(0.5)
    promote(registry.name, GATE, version=1)
    first, second = (version_of(registry, number) for number in (1, 2))
    with pytest.raises(HandoverError, match="production is version 3, expected version 1"):
        hand_over(registry.name, "production", first, second, lambda: promote(registry.name, GATE, version=3))
    assert registry.production() == 3
    assert registry.model_tags() == {"history.production": "1 3"}


def test_a_move_that_overtook_this_one_is_noticed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        registry.add(0.5)
    move = registry_of_models.set_alias

    def move_and_lose(version: Any, alias: str) -> None:
        move(version, alias)
        registry.client.set_registered_model_alias(registry.name, alias, "2")

    monkeypatch.setattr(registry_of_models, "set_alias", move_and_lose)
    with pytest.raises(HandoverError, match="production is version 2, expected version 1"):
        promote(registry.name, GATE, version=1)
    assert registry.production() == 2
    assert str(registry.promotion(1)).startswith("refused: ")


@pytest.mark.parametrize("back", [False, True], ids=["promotion", "rollback"])
def test_a_process_that_dies_between_two_steps_leaves_a_way_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    for _ in range(4):
        registry.add(0.5)
    for version in (1, 2, 3):
        promote(registry.name, GATE, version=version)

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(registry_of_models, "tag_model" if back else "set_alias", die)
        rollback(registry.name) if back else promote(registry.name, GATE, version=4)
    assert registry.production() == (2 if back else 3)
    rollback(registry.name)
    assert registry.production() == (1 if back else 2)
    promote(registry.name, GATE, version=4)
    rollback(registry.name)
    assert registry.production() == (1 if back else 2)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (["--alias", "nobody"], "has no alias nobody, its aliases are challenger. Choose another"),
        (["--version", "7"], "has no version 7, its aliases are challenger. Choose another"),
        (["--model", "no-such-model"], "model no-such-model: is not registered at "),
        (["--model", "models:/x@y"], "model models:/x@y: is not registered at "),
    ],
    ids=("alias", "version", "name", "uri"),
)
def test_a_version_that_is_not_there_is_one_line_that_names_what_is(
    registry: Registry, params_file: Path, which: list[str], said: str
) -> None:
    registry.add(0.5)
    line = exit_line(main, "--params", params_file, "--model", registry.name, *which)
    assert line.startswith("TrackingError: model ")
    assert said in line


@pytest.mark.parametrize(
    "uri", ["models:/", "models:/x", "models:/x@", "models:/@y", "models:/x/latest", "models://x/1"]
)
def test_an_uri_that_names_no_version_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match="names no registered model, expected models:/NAME@ALIAS or") as caught:
        registry_of_models.download_model(uri)
    assert str(caught.value).startswith(f"{uri}: ")


def test_an_uri_of_an_unknown_alias_names_the_known_ones(registry: Registry) -> None:
    registry.add(0.5)
    uri = f"models:/{registry.name}@challenge"
    with pytest.raises(
        TrackingError, match=f"^{re.escape(uri)}: .* has no alias challenge, its aliases are challenger"
    ):
        registry_of_models.download_model(uri)


@pytest.mark.slow
def test_a_refusal_on_the_command_line_is_one_line_and_exit_code_1(
    registry: Registry, mlflow_store: str, tmp_path: Path
) -> None:
    registry.add(0.1)
    params = write_params(
        tmp_path / "params.yaml", {"promote": {"minimum_score": 0.75}, "register": {"name": registry.name}}
    )
    result = run_step("promote", "--params", params, cwd=tmp_path, MLFLOW_TRACKING_URI=mlflow_store)
    assert_one_line(result, "GateError", registry.name, "promote.minimum_score 0.75")
    assert registry.production() is None
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "files"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--rollback", "--require-approval"), "--require-approval: is not used with --rollback"),
        (("--rollback", "--data", "anywhere"), "--data: is not used with --rollback"),
        (("--require-approval", "--approval-interval", "-5"), "--approval-interval: found 3600 and -5"),
        (("--require-approval", "--approval-timeout", "nan"), "--approval-interval: found nan and 10"),
        (("--require-approval", "--approval-interval", "1e300"), "--approval-interval: found 3600 and 1e+300"),
        (("--approval-interval", "0"), "--approval-interval: found 3600 and 0"),
        (("--approve", "3f2a9c1b"), "--approve: found 3f2a9c1b, expected the code of 8 characters"),
        (("--approve", "yes", "--version", "1"), "--approve: found yes, expected the code of 8 characters"),
        (("--approve", "3f2a9c1b", "--dry-run"), "--dry-run: is not used with --approve"),
        (("--to", "v1"), "--to: found v1, expected a name of letters"),
        (("--to", "a/b"), "--to: found a/b, expected a name of letters"),
        (("--alias", "latest"), "--alias: found latest, expected a name of letters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_cannot_be_are_refused_before_any_work(
    options: tuple[str, ...], named: str, params_file: Path
) -> None:
    assert named in exit_line(main, "--params", params_file, *options)

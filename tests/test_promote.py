"""The gate in front of production: what passes, what is refused, and what stands in the registry afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_one_line, run_step, write_params
from hypothesis import given
from hypothesis import strategies as st

from components.params import PromoteParams
from components.promote import GateError, check_gate, main, promote

GATE = PromoteParams(minimum_score=0.3, tolerance=0.0)


class Registry:
    """A registered model of its own in the shared store."""

    def __init__(self, uri: str, name: str) -> None:
        from mlflow.tracking import MlflowClient

        self.client, self.name = MlflowClient(uri), name
        self.client.create_registered_model(name)

    def add(self, score: object, data_version: str = "d1") -> int:
        """A version with that score, the new challenger."""
        tags: dict[str, Any] = {"data_version": data_version} | ({} if score is None else {"score": str(score)})
        version = self.client.create_model_version(self.name, "/nowhere", tags=tags)
        self.client.set_registered_model_alias(self.name, "challenger", version.version)
        return int(version.version)

    def production(self) -> int | None:
        aliases = self.client.get_registered_model(self.name).aliases
        return int(aliases["production"]) if "production" in aliases else None

    def promotion(self, version: int) -> str | None:
        tags: dict[str, str] = self.client.get_model_version(self.name, str(version)).tags
        return tags.get("promotion")


@pytest.fixture
def registry(mlflow_store: str, request: pytest.FixtureRequest) -> Iterator[Registry]:
    from components import connection

    connection.client.cache_clear()
    yield Registry(mlflow_store, request.node.name)
    connection.client.cache_clear()


def test_the_first_version_that_reaches_the_minimum_becomes_production(registry: Registry) -> None:
    version = registry.add(0.3)
    line = promote(registry.name, GATE, alias="challenger")
    assert line.startswith(f"{registry.name} version {version} is production now: score 0.3000 reaches 0.3")
    assert registry.production() == version
    assert registry.promotion(version) == f"promoted: {line.split(': ', 1)[1]}"


def test_a_version_below_the_minimum_is_refused_and_says_why(registry: Registry) -> None:
    version = registry.add(0.2999)
    with pytest.raises(GateError, match=r"score 0\.2999 is below promote\.minimum_score 0\.3"):
        promote(registry.name, GATE, alias="challenger")
    assert registry.production() is None
    assert str(registry.promotion(version)).startswith("refused: score 0.2999")


def test_a_version_worse_than_production_is_refused_and_production_stays(registry: Registry) -> None:
    first = registry.add(0.6)
    promote(registry.name, GATE, alias="challenger")
    second = registry.add(0.59)
    with pytest.raises(GateError, match=r"worse than production's 0\.6000"):
        promote(registry.name, GATE, alias="challenger")
    assert registry.production() == first
    assert str(registry.promotion(second)).startswith("refused:")


def test_a_version_within_the_tolerance_becomes_production(registry: Registry) -> None:
    registry.add(0.6)
    promote(registry.name, GATE, alias="challenger")
    second = registry.add(0.59)
    promote(registry.name, PromoteParams(minimum_score=0.3, tolerance=0.02), alias="challenger")
    assert registry.production() == second


def test_a_better_version_becomes_production_and_an_equal_one_too(registry: Registry) -> None:
    for score in (0.4, 0.5, 0.5):
        version = registry.add(score)
        promote(registry.name, GATE, alias="challenger")
        assert registry.production() == version


def test_promoting_production_again_changes_nothing(registry: Registry) -> None:
    version = registry.add(0.5)
    promote(registry.name, GATE, alias="challenger")
    strict = PromoteParams(minimum_score=0.9, tolerance=0.0)
    assert promote(registry.name, strict, alias="challenger").endswith(f"version {version} is production already")
    assert registry.production() == version


def test_a_version_can_be_chosen_by_number(registry: Registry) -> None:
    first, _ = registry.add(0.5), registry.add(0.6)
    promote(registry.name, GATE, version=first)
    assert registry.production() == first


def test_a_comparison_across_data_versions_is_warned_about(registry: Registry) -> None:
    registry.add(0.5, "d1")
    assert "warning" not in promote(registry.name, GATE, alias="challenger")
    registry.add(0.6, "d2")
    assert "warning: production was scored on another data version" in promote(registry.name, GATE, alias="challenger")


@pytest.mark.parametrize("score", [None, "high", "nan"])
def test_a_version_without_a_usable_score_is_refused(mlflow_store: str, registry: Registry, score: object) -> None:
    registry.add(score)
    with pytest.raises(GateError, match="score"):
        promote(registry.name, PromoteParams(minimum_score=0.0, tolerance=1.0), alias="challenger")
    assert registry.production() is None


@pytest.mark.parametrize("which", [["--alias", "nobody"], ["--version", "7"], ["--model", "no-such-model"]], ids=str)
def test_a_version_that_is_not_there_is_one_line(registry: Registry, params_file: Path, which: list[str]) -> None:
    registry.add(0.5)
    arguments = ["--params", str(params_file), "--model", registry.name, *which]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, str)
    assert caught.value.code.startswith("TrackingError: model ")
    assert "\n" not in caught.value.code


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
    assert sorted(tmp_path.iterdir()) == [params]


scores = st.floats(0, 1)


@given(scores, st.none() | scores, scores, scores)
def test_the_gate_opens_exactly_for_a_score_that_is_high_enough(
    score: float, production: float | None, minimum: float, tolerance: float
) -> None:
    opens = score >= minimum and (production is None or score >= production - tolerance)
    params = PromoteParams(minimum_score=minimum, tolerance=tolerance)
    if opens:
        assert check_gate(score, production, params)
    else:
        with pytest.raises(GateError):
            check_gate(score, production, params)

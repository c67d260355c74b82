"""Promotion of an event's versions on a real store: which pass, what is recorded, and the way back."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from components.events.names import EVENTS
from components.params import PromoteParams
from components.promote import describe, main, promote
from components.promotion.gate import GateError
from tests.components.events.test_gate import tags
from tests.components.tracking.model_registry import decisions
from tests.conftest import exit_line, write_params

GATE = PromoteParams(minimum_score=0.99, tolerance=0.0)  # of the network, which is none of an event's business


def add(client: MlflowClient, experiment: str, own: dict[str, str]) -> int:
    run = client.create_run(experiment)
    made = client.create_model_version(EVENTS, "s3://nowhere/model", run_id=run.info.run_id, tags=own)
    return int(made.version)


def test_versions_of_an_event_follow_each_other_by_its_own_gate_and_go_back(
    mlflow_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(mlflow_store)
    try:
        client.create_registered_model(EVENTS)
    except MlflowException as error:
        assert error.error_code == "RESOURCE_ALREADY_EXISTS"
    experiment = client.create_experiment("lombok", tmp_path.as_uri())
    lombok = {"event": "lombok"}
    first = add(client, experiment, tags(0.5, 0.7) | lombok)
    worse = add(client, experiment, tags(0.5, 0.6) | lombok)
    later = add(client, experiment, tags(0.4, 0.6, "j2") | lombok)

    def current() -> int:
        return int(client.get_model_version_by_alias(EVENTS, "event-lombok").version)

    before = dict(client.get_registered_model(EVENTS).aliases)
    decision = promote(EVENTS, GATE, version=first, dry_run=True)
    assert f"{EVENTS} version {first} would become event-lombok: cross-validated F1" in describe(decision)
    assert client.get_registered_model(EVENTS).aliases == before
    promote(EVENTS, GATE, version=first)
    assert describe(promote(EVENTS, GATE, version=first)) == f"{EVENTS} version {first} is event-lombok already"
    with pytest.raises(GateError, match=f"{EVENTS} version {worse}: .*worse than the 0.7000 of the version before"):
        promote(EVENTS, GATE, version=worse)
    assert current() == first
    refused: dict[str, Any]
    (refused,) = decisions(client, EVENTS, worse)
    assert (refused["verdict"], refused["alias"], refused["previous"]) == ("refused", "event-lombok", first)
    assert [(row["name"], row["passes"]) for row in refused["rows"]] == [
        ("mean F1, map before", True),
        ("mean F1", False),
    ]
    promote(EVENTS, GATE, version=later)
    assert current() == later
    tag = client.get_model_version(EVENTS, str(later)).tags["promotion"]
    assert tag.endswith("was measured on other judgements and does not compare")
    words = ["--params", str(write_params(tmp_path / "params.yaml")), "--model", EVENTS]
    main([*words, "--to", "event-lombok", "--rollback"])
    assert f"version {first} is event-lombok again" in capsys.readouterr().out
    assert current() == first
    assert f"model {EVENTS}: has no alias challenger, its aliases are" in exit_line(main, *words)
    assert "production" not in client.get_registered_model(EVENTS).aliases

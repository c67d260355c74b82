"""Buildings graded by an event's model: the model's own grades, however many are looked at at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from imagery.adapting.evidence import Evidence
from imagery.adapting.learning import EventModel, Teacher
from imagery.adapting.names import MODEL_FILES
from imagery.adapting.saved import EventModelError, save_event_model
from imagery.find.votes import DAMAGE
from imagery.give import event as event_module
from imagery.give.event import Event, grade_by_event, read_event
from imagery.give.table import tabulate
from tests.imagery.adapting.events import event

MADE = event(sharp=0.5, telling=1.2, count=300)
UNSEEN = [3, 150]
ABOUT = {"map": {"network": "abc"}, "worth": {"judged": 100}}


@pytest.fixture(scope="module")
def model() -> EventModel:
    return Teacher(MADE.evidence).learn(np.arange(100), MADE.truth[:100], np.ones(100))


def test_grades_are_the_models_and_what_is_not_visible_stays_so(
    model: EventModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_module, "ROWS", 7)
    assert MADE.evidence.features is not None
    votes = np.zeros((300, 2, 4), np.int64)
    votes[:, 0] = np.rint(MADE.evidence.probabilities * 10_000)
    votes[:, 1, 0] = 40
    votes[UNSEEN] = 0
    features = MADE.evidence.features.copy()
    features[UNSEEN] = np.nan
    table = tabulate(np.array([shapely.box(n, 0, n + 1, 1) for n in range(300)], dtype=object), votes)
    own = Event(model, "palu", 100, "abc", None, None)
    found = grade_by_event(table, own, votes, lambda start, stop: features[start:stop]).frame
    sums = votes[:, 0] / np.maximum(votes[:, 0].sum(1, keepdims=True), 1)
    expected, sure = model.grade(Evidence(sums, MADE.evidence.features))
    seen = np.setdiff1d(np.arange(300), UNSEEN)
    assert found["grade"][seen].tolist() == expected[seen].tolist()
    assert found["damage"][seen].tolist() == [DAMAGE[grade - 1] for grade in expected[seen]]
    np.testing.assert_allclose(found["confidence"][seen], sure[seen], atol=5.1e-5)
    assert found["base_grade"][seen].tolist() == (votes[seen, 0].argmax(1) + 1).tolist()
    assert found.loc[UNSEEN, ["grade", "confidence", "base_grade"]].isna().all(axis=None)
    assert found["damage"][UNSEEN].tolist() == ["not-visible"] * 2


def test_an_event_says_which_it_is(model: EventModel, tmp_path: Path) -> None:
    save_event_model(model, tmp_path, ABOUT | {"event": "palu", "base": "models:/dual-hrnet/7"})
    assert str(read_event(tmp_path, "dual-hrnet-events/3")) == (
        "buildings graded by the model of the event palu, learned from 100 judgements (dual-hrnet-events/3)"
    )
    save_event_model(model, tmp_path, ABOUT)
    assert "of an event, learned from 100 judgements (not registered)" in str(read_event(tmp_path, None))


@pytest.mark.parametrize(
    ("about", "finding"),
    [
        ({}, "about.map: field required. Run assess again."),
        (ABOUT | {"worth": {"judged": "many"}}, "about.worth.judged: input should be a valid integer"),
        (ABOUT | {"event": 3}, "about.event: input should be a valid string"),
    ],
)
def test_a_model_that_does_not_say_what_it_is_about_is_one_line(
    about: dict[str, object], finding: str, model: EventModel, tmp_path: Path
) -> None:
    save_event_model(model, tmp_path, about)
    assert json.loads((tmp_path / MODEL_FILES[0]).read_text())["about"] == about
    with pytest.raises(EventModelError) as error:
        read_event(tmp_path, None)
    assert f"{MODEL_FILES[0]}: {finding}" in str(error.value)

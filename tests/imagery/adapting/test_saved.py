"""An event's model as files: the same numbers when it comes back, and one line for whatever is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imagery.adapting.learning import EventModel, Teacher
from imagery.adapting.names import MODEL_FILES
from imagery.adapting.saved import EventModelError, load_event_model, save_event_model
from tests.imagery.adapting.events import event

MADE = event(sharp=0.5, telling=1.2, count=300)
FORM, TENSORS = MODEL_FILES


@pytest.fixture(scope="module")
def models() -> dict[str, EventModel]:
    teacher, without = Teacher(MADE.evidence), Teacher(MADE.with_features(None).evidence)
    few, many = ((np.arange(count), MADE.truth[:count], np.ones(count)) for count in (15, 100))
    return {"few": teacher.learn(*few), "features": teacher.learn(*many), "sums": without.learn(*many)}


@pytest.mark.parametrize("kind", ["few", "features", "sums"])
def test_a_saved_model_comes_back_with_the_same_predictions(
    kind: str, models: dict[str, EventModel], tmp_path: Path
) -> None:
    save_event_model(models[kind], tmp_path, {"network": "abc", "worth": {"macro_f1": 0.5}})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(MODEL_FILES)
    found, about = load_event_model(tmp_path)
    expected = models[kind]
    assert (found.onto is None) == (kind != "features")
    np.testing.assert_array_equal(found(MADE.evidence), expected(MADE.evidence))
    np.testing.assert_array_equal(found.grade(MADE.evidence), expected.grade(MADE.evidence))
    assert about == {"network": "abc", "worth": {"macro_f1": 0.5}}


def change(**fields: object) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / FORM).read_text(encoding="utf-8")) | fields
        (folder / FORM).write_text(json.dumps(content), encoding="utf-8")

    return damage


def spoil(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    save_file(tensors | {"intercept": np.full_like(tensors["intercept"], np.nan)}, folder / TENSORS)


def cut(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    save_file(tensors | {"weights": tensors["weights"][:, 1:].copy()}, folder / TENSORS)


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (lambda folder: (folder / FORM).unlink(), f"{FORM}: cannot be read (No such file or directory). Run assess"),
        (lambda folder: (folder / TENSORS).unlink(), f"{TENSORS}: cannot be read (No such file or directory)"),
        (lambda folder: (folder / FORM).write_text("{"), f"{FORM}: is no JSON ("),
        (lambda folder: (folder / TENSORS).write_bytes(b"x"), f"{TENSORS}: cannot be read ("),
        (change(version=2), f"{FORM}: version: input should be 1."),
        (change(channels=0), f"{FORM}: channels: input should be "),
        (change(channels=3), f"{TENSORS}: axes is (60, 32), expected (3, 32) by {FORM}."),
        (change(channels=None), f"{TENSORS}: axes is (60, 32), expected none"),
        (change(more=1), f"{FORM}: more: extra inputs"),
        (spoil, f"{TENSORS}: found values that are no numbers, expected finite float64. Run assess again."),
        (cut, f"{TENSORS}: weights is (6, 31), expected (6, 32)"),
    ],
)
def test_damaged_files_are_one_line(
    damage: Callable[[Path], object], finding: str, models: dict[str, EventModel], tmp_path: Path
) -> None:
    save_event_model(models["features"], tmp_path, {})
    damage(tmp_path)
    with pytest.raises(EventModelError) as error:
        load_event_model(tmp_path)
    assert finding in str(error.value)
    assert "\n" not in str(error.value)

"""The curves of a run in the report, by whatever its history has."""

from pathlib import Path

import pytest

from model.judge.report import _curves
from model.train.history import write_history

LOSSES = {"loss": 1.5, "loss_localization": 0.7, "loss_damage": 0.8}
SCORES = {"validation_score": 0.4, "validation_localization_f1": 0.6, "validation_damage_f1": 0.3}


@pytest.mark.parametrize(
    ("records", "charts"),
    [
        ([{"epoch": 1.0, **LOSSES}, {"epoch": 2.0, **LOSSES, **SCORES}], ["loss", "score"]),
        ([{"epoch": 1.0, **LOSSES}, {"epoch": 2.0, **LOSSES}], ["loss"]),  # never validated: no column of scores
        ([{"epoch": 1.0, "loss": 1.5}, {"epoch": 2.0, "loss": 1.4, **SCORES}], ["score"]),
        ([{"epoch": 1.0, "loss": 1.5}, {"epoch": 2.0, **LOSSES}], ["loss"]),  # resumed by a version that tells more
        ([{"epoch": 1.0}], []),
    ],
    ids=["validated once", "never validated", "without parts of the loss", "more columns later", "nothing"],
)
def test_what_a_history_lacks_is_not_drawn(records: list[dict[str, float]], charts: list[str], tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", records)
    assert [what for what, _ in _curves(tmp_path / "history.csv")] == charts

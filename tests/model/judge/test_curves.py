"""The curves of a run in the report, by whatever its history has."""

from pathlib import Path

import pytest

from model.judge.report import _curves, read_history
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
    assert [what for what, _ in _curves(read_history(tmp_path / "history.csv"))] == charts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch,loss\n1,high\n", "line 2: found 'high' for loss, expected a number"),
        ("epoch,loss\n1,0.5\n2,0.5,0.6\n", "line 3: found .* expected a number"),
        ("epoch,loss\n,0.5\n", "line 2: has no epoch"),
        ("loss\n0.5\n", "has no column epoch"),
        ("", "has no column epoch"),
        (f"epoch,loss\n1,{'9' * 140_000}\n", "field larger than field limit"),
    ],
    ids=["word", "more values", "no epoch", "no column", "empty", "long"],
)
def test_what_is_no_history_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_history(tmp_path / "history.csv")

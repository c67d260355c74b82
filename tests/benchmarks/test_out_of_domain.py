from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import out_of_domain


@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_is_that_of_scikit_learn_also_with_ties(levels: int) -> None:
    generator = np.random.default_rng(0)
    known, new = (generator.integers(0, levels, count) + more for count, more in ((17, 0), (23, levels // 3)))
    expected = roc_auc_score([0] * 17 + [1] * 23, [*known, *new])
    assert out_of_domain.auroc(known.tolist(), new.tolist()) == pytest.approx(expected)


def test_each_respect_is_told_of_a_data_set_with_a_new_event(
    prepared: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the tiny data set the scenes of fire are in no training."""
    out_of_domain.main(["--data", str(prepared), "--model", str(model)])
    head, features, colours = capsys.readouterr().out.splitlines()
    assert head == "6 scenes of tiny-flood: 1 others, 2 of new events"
    assert features.startswith("features: AUROC ") and colours.startswith("colours: AUROC ")

"""How good the map is, by the judged sample: what it confused, and precision and recall, with intervals."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from base.grades import GRADES
from imagery.estimating.frame import Frame, by_stratum, sums_of
from imagery.estimating.interval import Share, ratio
from imagery.estimating.totals import CATEGORIES, DAMAGED
from imagery.sampling.judged import CANNOT_TELL, JUDGEMENTS, Prefix


class Accuracy(NamedTuple):
    """confusion: buildings as the sample stands for them, a row for each grade of the map, a column for each judgement.
    table: a row for each measure, precision and recall of each grade and of damage, and the overall accuracy, with its
    share, low, high, error and how many judged it is of.
    """

    confusion: pd.DataFrame
    table: pd.DataFrame


def judge_map(prefix: Prefix, frame: Frame) -> Accuracy:
    """Accuracy of the map's grades. frame: in the order of the prefix's draw.

    Precision is of the mapped whose judgement could be told, among which those that are no building are wrong; recall
    of the judged buildings with a grade. Source: Olofsson et al. 2014, https://doi.org/10.1016/j.rse.2014.02.015, where
    they are user's and producer's accuracy.
    """
    count = len(prefix)
    mapped, judged = frame.grades[:count], prefix.grades
    rest, told = frame.grades[count:], judged != CANNOT_TELL
    rows = []
    for name, grades in {"damaged": DAMAGED, **{grade.key: CATEGORIES[grade.key] for grade in GRADES}}.items():
        on_map, in_truth = np.isin(mapped, grades), np.isin(judged, grades)
        both, unjudged = on_map & in_truth, int(np.isin(rest, grades).sum())
        rows.append(_row("precision", name, prefix, on_map & told, both, unjudged))
        rows.append(_row("recall", name, prefix, in_truth, both, len(rest)))
    rows.append(_row("accuracy", "all", prefix, told, told & (mapped == judged), len(rest)))
    return Accuracy(_confusion(prefix, mapped), pd.DataFrame(rows))


def _row(
    measure: str,
    category: str,
    prefix: Prefix,
    members: npt.NDArray[np.bool_],
    hits: npt.NDArray[np.bool_],
    unjudged: int,
) -> dict[str, object]:
    """unjudged: of those not judged, how many may be members."""
    most = np.array([members.sum() + unjudged], np.float64)
    found: Share = ratio(prefix.draw.sizes, sums_of(prefix, members.astype(np.float64), hits[None]), most)
    share, low, high, error = (float(value[0]) for value in found)
    return {
        "measure": measure,
        "category": category,
        "share": share,
        "low": low,
        "high": high,
        "error": error,
        "judged": int(members.sum()),
    }


def _confusion(prefix: Prefix, mapped: npt.NDArray[np.int64]) -> pd.DataFrame:
    cells = np.array(
        [[(mapped == grade.number) & (prefix.grades == judgement) for judgement in JUDGEMENTS] for grade in GRADES],
        dtype=np.float64,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = prefix.draw.sizes / prefix.draw.taken(len(prefix))
        sums = (weights * by_stratum(prefix, cells)).sum(-1)
    names = {values[0]: name for name, values in CATEGORIES.items() if len(values) == 1}
    return pd.DataFrame(
        sums, index=[grade.key for grade in GRADES], columns=[names[judgement] for judgement in JUDGEMENTS]
    )

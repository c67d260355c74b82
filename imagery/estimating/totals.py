"""How many buildings, and m² of them, have which grade: of all that the map holds and of each area, with intervals."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from base.grades import BACKGROUND, GRADES
from imagery.estimating.cross_fitting import FOLDS, Learner, Predictions, cross_fit
from imagery.estimating.frame import Frame, by_stratum, sums_of
from imagery.estimating.interval import Floats, Share, assisted, ratio
from imagery.sampling.judged import CANNOT_TELL, JUDGEMENTS, Prefix

ALL = "total"  # the name of the whole among the areas
DAMAGED = tuple(grade.number for grade in GRADES[1:])
ASSESSABLE = tuple(grade.number for grade in GRADES)
# Judgements that count for each estimate.
CATEGORIES: dict[str, tuple[int, ...]] = {
    "not_a_building": (BACKGROUND,),
    **{grade.key: (grade.number,) for grade in GRADES},
    "damaged": DAMAGED,
    "not_assessable": (CANNOT_TELL,),
}
OF_ASSESSABLE = "damaged_of_assessable"
DESIGN_BASED, MODEL_ASSISTED = "design-based", "model-assisted"
ENOUGH = 50  # judged, from which on the model-assisted estimate is the headline: settled before anybody looks
FEW = 10  # damaged among the judged, below which an estimate stands on little


class Estimates(NamedTuple):
    """table: a row for each area, category, unit and method, see `estimate`; headline: the method to report; warnings:
    what a reader must know; judged: how many, n; buildings: N.
    """

    table: pd.DataFrame
    headline: str
    warnings: tuple[str, ...]
    judged: int
    buildings: int


def estimate(prefix: Prefix, frame: Frame, learn: Learner) -> Estimates:
    """Totals and shares of the buildings that the map holds; what it missed is in none of them, see `missed`.

    frame: in the order of the prefix's draw. learn: makes the model of the model-assisted estimates.

    Columns: area, ALL or a name; category, of CATEGORIES, or OF_ASSESSABLE: damaged of those whose grade could be told,
    which only the design gives; unit, buildings or m2; method; headline; share, share_low, share_high; total, low,
    high: the same times the area's size; error: of the total, the plain standard error; found: how many judged have it;
    judged: how many of the area were judged. NaN where nothing is known; intervals then are all that is possible.
    """
    count = len(prefix)
    headline = MODEL_ASSISTED if count >= ENOUGH else DESIGN_BASED
    predictions = cross_fit(learn, prefix) if count >= max(FOLDS, prefix.draw.fewest) else None
    rows: list[pd.DataFrame] = []
    everyone = np.ones(len(frame.grades), bool)
    for name, inside in {ALL: everyone, **frame.areas}.items():
        for unit, amounts in (("buildings", np.ones(len(everyone))), ("m2", frame.area_m2)):
            rows += _rows(prefix, np.where(inside, amounts, 0.0), predictions, name, unit)
    table = pd.concat(rows, ignore_index=True)
    table.insert(4, "headline", (table["method"] == headline) | (table["category"] == OF_ASSESSABLE))
    return Estimates(table, headline, _warnings(prefix), count, len(everyone))


def _rows(prefix: Prefix, amounts: Floats, predictions: Predictions | None, area: str, unit: str) -> list[pd.DataFrame]:
    """amounts: of all of the order, 0 outside of the area, [N]."""
    count, sizes = len(prefix), prefix.draw.sizes
    own, size = amounts[:count], float(amounts.sum())
    hits = np.stack([np.isin(prefix.grades, grades) for grades in CATEGORIES.values()])
    sums, most = sums_of(prefix, own, hits), np.full(len(hits), size)
    found, judged = (hits & (own > 0)).sum(1), int((own > 0).sum())
    rows = [_row(ratio(sizes, sums, most), size, found, judged, [*CATEGORIES], DESIGN_BASED)]
    told = np.isin(prefix.grades, ASSESSABLE)
    assessable = own * told
    share = ratio(
        sizes,
        sums_of(prefix, assessable, np.isin(prefix.grades, DAMAGED)[None]),
        np.array([assessable.sum() + amounts[count:].sum()]),
    )
    known = int((assessable > 0).sum())
    rows.append(_row(share, np.nan, found[[*CATEGORIES].index("damaged")], known, [OF_ASSESSABLE], DESIGN_BASED))
    if predictions is not None:
        parts = np.stack([np.isin(JUDGEMENTS, grades) for grades in CATEGORIES.values()]).astype(np.float64)
        errors = own * (hits - parts @ predictions.held_out.T)
        share = assisted(
            sizes,
            sums,
            most,
            parts @ (predictions.everywhere.T @ amounts),
            by_stratum(prefix, errors),
            by_stratum(prefix, errors**2),
        )
        rows.append(_row(share, size, found, judged, [*CATEGORIES], MODEL_ASSISTED))
    for row in rows:
        row.insert(0, "area", area)
        row.insert(2, "unit", unit)
    return rows


def _row(
    share: Share, size: float, found: npt.NDArray[np.int64], judged: int, categories: list[str], method: str
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "category": categories,
            "method": method,
            "share": share.share,
            "share_low": share.low,
            "share_high": share.high,
            "total": share.share * size,
            "low": share.low * size,
            "high": share.high * size,
            "error": share.error * size,
            "found": found,
            "judged": judged,
        }
    )


def _warnings(prefix: Prefix) -> tuple[str, ...]:
    damaged = int(np.isin(prefix.grades, DAMAGED).sum())
    found = []
    if len(prefix) < (fewest := prefix.draw.fewest):
        found.append(f"{len(prefix)} judged without a gap: no interval before {fewest} are.")
    if damaged < FEW and len(prefix) < len(prefix.draw):
        found.append(
            f"{damaged} damaged among the judged, fewer than {FEW}: the estimates stand on little. Judge more."
        )
    if prefix.beyond:
        found.append(f"{prefix.beyond} judgements after a gap in the order are not counted: judge what lies before.")
    return tuple(found)

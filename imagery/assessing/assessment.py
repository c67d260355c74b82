"""One sitting of judgements against a map: how many buildings have which grade, how good the map is, a better one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from base.grades import GRADES
from imagery.adapting.learning import Extra
from imagery.adapting.worth import Adapted, adapt
from imagery.assessing.judged_map import JudgedMap
from imagery.estimating.accuracy import Accuracy, judge_map
from imagery.estimating.cross_fitting import FOLDS, recalibrating
from imagery.estimating.frame import Frame
from imagery.estimating.interval import Floats
from imagery.estimating.missed import Count, Missed, estimate_missed, with_missed
from imagery.estimating.totals import ALL, Estimates, estimate
from imagery.give.summary import within
from imagery.read.vectors import Polygons
from imagery.sampling.judged import Disagreement, Judgement, JudgementError, Prefix, merge, prefix
from imagery.sampling.squares import Counted, first_counts, merge_counts

SMALLEST = 0.01  # m² of a building, where the map rounds to none
Grades = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sitting:
    """What people judged, brought together. judgements: one for each building; files: how many each file has; both:
    buildings that stand in more than one; disagreements: of these, in the order of the files. counted: squares in which
    somebody looked for what the map missed; differing: how many of them two people counted differently.
    """

    judgements: list[Judgement]
    files: dict[str, int]
    both: int
    disagreements: list[Disagreement]
    counted: list[Counted]
    differing: int


@dataclass(frozen=True, eq=False)
class Assessment:
    """estimates: totals and shares. before: the map's accuracy. after: that of the adapted grades, each building graded
    by a model that did not see its judgement. adapted: what was learned, None where too few are judged for that. said:
    what became of the grades, a sentence. grades: [N] in the map's rows, 0 where not visible; confidence: [N], NaN
    there; judged: [N] of JUDGEMENTS, -1 where nobody judged. changed: how many of the others have another grade.
    missed: what the map missed, None where nobody looked; together: buildings, and damaged ones, with those that the
    map missed, empty where nobody asked for it. warnings: what a reader must know.
    """

    estimates: Estimates
    before: Accuracy
    after: Accuracy | None
    adapted: Adapted | None
    sitting: Sitting
    sample: Prefix
    said: str
    grades: Grades
    confidence: Floats
    judged: Grades
    changed: int
    missed: Missed | None
    together: dict[str, Count]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """How many buildings are damaged, in a line."""
        found = mapped(self.estimates, "damaged")
        judged = f"{self.estimates.judged} of {self.estimates.buildings:,} buildings judged"
        if np.isnan(found.total):
            return f"{judged}: too few for an estimate"
        total, low, high = (f"{value:,.0f}" for value in found[:3])
        return f"{total} damaged buildings ({low} to {high}, 95 % interval, {self.estimates.headline}); {judged}"


def mapped(estimates: Estimates, category: str) -> Count:
    """The headline's total of a category, of the buildings that the map holds."""
    table = estimates.table
    whole = (table["area"] == ALL) & (table["category"] == category) & (table["unit"] == "buildings")
    (row,) = table[whole & table["headline"]].to_dict("records")
    return Count(float(row["total"]), float(row["low"]), float(row["high"]), int(row["found"]))


def sit(files: Mapping[str, Sequence[Judgement]], squares: Sequence[Sequence[Counted]] = ()) -> Sitting:
    """The judgements of one or several files, by their names, and what these say of squares; raises JudgementError
    where they are of other draws.
    """
    judgements: list[Judgement] = []
    counted, differing = list[Counted](), 0
    for of_file in squares:
        counted, more = merge_counts(counted, of_file)
        differing += more
    both, disagreements = 0, list[Disagreement]()
    for own in files.values():
        merged = merge(judgements, own)
        judgements, both = merged.judgements, both + merged.both
        disagreements += merged.disagreements
    return Sitting(judgements, {name: len(own) for name, own in files.items()}, both, disagreements, counted, differing)


def assess_map(
    given: JudgedMap, sitting: Sitting, areas: Polygons | None = None, *, add_missed: bool = False
) -> Assessment:
    """Estimates and adapts. areas: to estimate for, besides the whole. add_missed: also tell the totals with what the
    map missed. Raises JudgementError, also where that cannot be told.
    """
    missed = _missed(given, sitting)
    if add_missed:
        _check_counted(missed)
    sample = prefix(given.draw, sitting.judgements)
    frame = _frame(given, areas)
    adapted = _adapted(given, sitting, sample)
    learn = adapted.learn if adapted else recalibrating(given.evidence.probabilities[given.draw.order])
    estimates = estimate(sample, frame, learn)
    together = _together(estimates, missed) if add_missed and missed else {}
    grades, confidence, judged = _regraded(given, sitting, adapted)
    warnings = [*estimates.warnings, *(areas.notes if areas else ()), *_warnings_of_squares(sitting, missed)]
    if sitting.disagreements:
        count = f"{len(sitting.disagreements)} of {sitting.both}"
        warnings.append(f"{count} buildings judged twice were judged differently: the list is in assessment.json.")
    return Assessment(
        estimates, judge_map(sample, frame), _accuracy_after(sample, frame, adapted), adapted, sitting, sample,
        adapted.said if adapted else f"The map keeps its grades: {len(sample)} judged without a gap teach nothing yet.",
        grades, confidence, judged, int(((grades != given.grades) & (judged < 0)).sum()), missed, together,
        tuple(warnings),
    )  # fmt: skip


def _missed(given: JudgedMap, sitting: Sitting) -> Missed | None:
    if given.squares is None or not sitting.counted:
        return None
    return estimate_missed(first_counts(sitting.counted), len(given.squares.draw))


def _check_counted(missed: Missed | None) -> None:
    if missed is None or np.isnan(missed.buildings.total):
        found = "none" if missed is None else str(len(missed.counts.missed))
        raise JudgementError(
            f"--with-missed: found {found} of the squares counted, expected two or more. Count them in the map's page, "
            "Missed buildings."
        )


def _together(estimates: Estimates, missed: Missed) -> dict[str, Count]:
    damaged, others = mapped(estimates, "damaged"), mapped(estimates, "not_a_building")
    if np.isnan(damaged.total):
        raise JudgementError(
            f"--with-missed: found {estimates.judged} buildings judged, expected enough for an estimate. Judge more."
        )
    every = estimates.buildings
    real = Count(every - others.total, every - others.high, every - others.low, estimates.judged - others.found)
    return {
        "buildings": with_missed(real, missed.buildings),
        "damaged": with_missed(damaged, missed.damaged),
    }


def _warnings_of_squares(sitting: Sitting, missed: Missed | None) -> Iterator[str]:
    if missed is not None and missed.counts.unseen:
        yield (
            f"{missed.counts.unseen} of {len(missed.counts.missed)} squares show nothing: what the map missed is told "
            "of what can be seen."
        )
    if missed is not None and missed.counts.beyond:
        yield f"{missed.counts.beyond} squares after a gap in the order are not counted: count those before them."
    if sitting.differing:
        yield f"{sitting.differing} squares were counted differently by two people; the first file's count stands."


def _frame(given: JudgedMap, areas: Polygons | None) -> Frame:
    inside = {}
    if areas is not None:
        for name, members in zip(*within(given.table, areas), strict=True):
            inside[f"{name} (area)" if name == ALL else name] = members
    sizes = np.maximum(np.asarray(given.table.ours("area_m2"), np.float64), SMALLEST)
    return Frame(given.grades, sizes, inside).in_order(given.draw)


def _adapted(given: JudgedMap, sitting: Sitting, sample: Prefix) -> Adapted | None:
    if len(sample) < max(FOLDS, given.draw.fewest):
        return None
    place = np.full(len(given.grades), -1)
    place[given.draw.order] = np.arange(len(given.draw))
    more = [(place[own.row], own.grade) for own in sitting.judgements if place[own.row] >= len(sample)]
    extra = Extra(*np.array(more, np.int64).reshape(-1, 2).T)
    order = given.draw.order
    mapped = given.grades[order], np.asarray(given.table.ours("confidence"), np.float64)[order]
    return adapt(sample, given.evidence.at(order), extra, mapped=mapped)


def _accuracy_after(sample: Prefix, frame: Frame, adapted: Adapted | None) -> Accuracy | None:
    """Of the adapted grades, whether the map takes them or not."""
    if adapted is None:
        return None
    grades = adapted.grades.copy()
    grades[: len(sample)] = adapted.held_out
    return judge_map(sample, replace(frame, grades=grades))


def _regraded(given: JudgedMap, sitting: Sitting, adapted: Adapted | None) -> tuple[Grades, Floats, Grades]:
    """Grades, confidence and judgements in the map's rows. A grade that a person gave goes before all others."""
    grades = given.grades.copy()
    confidence = np.asarray(given.table.ours("confidence"), np.float64).copy()
    if adapted is not None and not adapted.keeps:
        grades[given.draw.order], confidence[given.draw.order] = adapted.grades, adapted.confidence
    judged = np.full(len(grades), -1)
    for own in sitting.judgements:
        judged[own.row] = own.grade
    told = np.isin(judged, [grade.number for grade in GRADES]) & (grades > 0)
    grades[told], confidence[told] = judged[told], 1.0
    return grades, confidence, judged

"""What people judged: the part of the order that is a sample, and one set of judgements from two people's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from base.errors import InputError
from base.grades import BACKGROUND, GRADES, LEGEND, UNCLASSIFIED
from imagery.sampling.draw import Draw

CANNOT_TELL = UNCLASSIFIED
JUDGEMENTS = (BACKGROUND, *(grade.number for grade in GRADES), CANNOT_TELL)  # BACKGROUND is what is no building


class JudgementError(InputError):
    """Judgements that do not belong together or to a draw; names finding, expectation and remedy."""


@dataclass(frozen=True)
class Judgement:
    """grade: one of JUDGEMENTS. row: of the building in the map's table. rank: its place in the order, from 0, and its
    stratum; None both where the person picked it, which no estimate counts. judge: initials.
    """

    grade: int
    row: int
    rank: int | None
    stratum: int | None
    judge: str = ""


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first judgements of an order. grades: [n] of JUDGEMENTS. beyond: how many judgements come after a gap in the
    order, and so are in no sample.
    """

    draw: Draw
    grades: npt.NDArray[np.int64]
    beyond: int

    def __len__(self) -> int:
        """How many are judged, n."""
        return len(self.grades)

    @property
    def strata(self) -> npt.NDArray[np.int64]:
        """The stratum of each, [n]."""
        return self.draw.strata[: len(self)]


def prefix(draw: Draw, judgements: Iterable[Judgement]) -> Prefix:
    """The judgements of the order up to its first gap.

    Raises JudgementError where a judgement is none, one building has two, or rank, row and stratum are not the draw's.
    """
    grades: dict[int, int] = {}
    for judgement in judgements:
        if judgement.grade not in JUDGEMENTS:
            raise JudgementError(
                f"row {judgement.row}: found the judgement {judgement.grade}, expected one of "
                f"{', '.join(map(str, JUDGEMENTS))}. Judge it again."
            )
        rank = judgement.rank
        if rank is None:
            continue
        found = (judgement.row, judgement.stratum)
        inside = 0 <= rank < len(draw)
        if not inside or found != (expected := (int(draw.order[rank]), int(draw.strata[rank]))):
            wanted = "row {}, stratum {}".format(*expected) if inside else f"a rank below {len(draw)}"
            raise JudgementError(
                f"rank {rank}: found row {found[0]}, stratum {found[1]}, expected {wanted}. "
                "The judgements are of another map or draw: use those made in this map's page."
            )
        if rank in grades:
            raise JudgementError(f"rank {rank}: found two judgements, expected one. Merge the files of two people.")
        grades[rank] = judgement.grade
    ranks = np.sort(np.fromiter(grades, np.int64, len(grades)))
    count = int((ranks == np.arange(len(ranks))).cumprod().sum())
    return Prefix(draw, np.array([grades[rank] for rank in range(count)], np.int64), len(ranks) - count)


class Disagreement(NamedTuple):
    """row: of the map's table; first and second: the two grades; kept: that which stands."""

    row: int
    first: int
    second: int
    kept: int

    def __str__(self) -> str:
        first, second, kept = (name_of(grade) for grade in self[1:])
        return f"row {self.row}: {first} or {second}, kept: {kept}"


class Merged(NamedTuple):
    """judgements: one for each building that either judged. both: how many buildings both judged. disagreements: of
    these, in the order of the first.
    """

    judgements: list[Judgement]
    both: int
    disagreements: list[Disagreement]


def merge(first: Sequence[Judgement], second: Sequence[Judgement]) -> Merged:
    """Two people's judgements as one. Where they disagree, a grade goes before "cannot tell", else the first's stands.

    Raises JudgementError where a building has another rank or stratum in the second, so that the orders are not one.
    """
    others = {judgement.row: judgement for judgement in second}
    merged, both, disagreements = [], 0, []
    for mine in first:
        other = others.pop(mine.row, None)
        if other is None:
            merged.append(mine)
            continue
        ranked = mine if mine.rank is not None else other
        if other.rank is not None and (other.rank, other.stratum) != (ranked.rank, ranked.stratum):
            raise JudgementError(
                f"row {mine.row}: found rank {other.rank}, stratum {other.stratum}, expected rank {ranked.rank}, "
                f"stratum {ranked.stratum} as in the other file. The two judged different draws: use pages of one map."
            )
        both += 1
        kept = other if mine.grade == CANNOT_TELL else mine
        if mine.grade != other.grade:
            disagreements.append(Disagreement(mine.row, mine.grade, other.grade, kept.grade))
        merged.append(Judgement(kept.grade, kept.row, ranked.rank, ranked.stratum, kept.judge))
    return Merged([*merged, *others.values()], both, disagreements)


def name_of(grade: int) -> str:
    """What a judgement is called."""
    return {BACKGROUND: "not a building", CANNOT_TELL: "cannot tell"}.get(grade, LEGEND[grade][0])

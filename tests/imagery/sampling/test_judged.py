from dataclasses import replace

import numpy as np
import pytest

from imagery.sampling.draw import draw_buildings
from imagery.sampling.judged import CANNOT_TELL, Disagreement, Judgement, JudgementError, merge, prefix

GENERATOR = np.random.default_rng(0)
DRAW = draw_buildings(GENERATOR.random(30), GENERATOR.random((30, 2)), 7, "abc")


def judged(rank: int, grade: int = 1, judge: str = "a") -> Judgement:
    return Judgement(grade, int(DRAW.order[rank]), rank, int(DRAW.strata[rank]), judge)


PICKED = Judgement(4, 3, None, None, "a")


def test_the_sample_is_what_was_judged_without_a_gap() -> None:
    found = prefix(DRAW, [judged(2, 4), judged(0), PICKED, judged(1, CANNOT_TELL), judged(4), judged(5)])
    assert found.grades.tolist() == [1, CANNOT_TELL, 4]
    assert (len(found), found.beyond) == (3, 2)
    assert found.strata.tolist() == DRAW.strata[:3].tolist()


def test_without_the_first_there_is_no_sample() -> None:
    assert (len(prefix(DRAW, [judged(1)])), prefix(DRAW, [judged(1)]).beyond) == (0, 1)
    assert len(prefix(DRAW, [])) == 0


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        ([replace(judged(2), row=99)], "rank 2: found row 99, stratum"),
        ([replace(judged(2), stratum=9)], "stratum 9, expected row"),
        ([replace(judged(2), rank=30)], "expected a rank below 30"),
        ([replace(judged(2), rank=-1)], "expected a rank below 30"),
        ([judged(2, 5)], "found the judgement 5, expected one of 0, 1, 2, 3, 4, 255"),
        ([judged(2), judged(2)], "rank 2: found two judgements, expected one. Merge"),
    ],
)
def test_judgements_of_another_draw_are_refused(judgements: list[Judgement], message: str) -> None:
    with pytest.raises(JudgementError) as error:
        prefix(DRAW, judgements)
    assert message in str(error.value)


def test_two_people_become_one_and_what_they_disagree_on_is_listed() -> None:
    first = [judged(0, 1), judged(1, 2), judged(2, CANNOT_TELL), judged(4, 3)]
    second = [judged(1, 4, "b"), judged(0, 1, "b"), judged(2, 3, "b"), judged(3, 4, "b")]
    merged = merge(first, second)
    assert merged.both == 3
    rows = DRAW.order.tolist()
    assert merged.disagreements == [Disagreement(rows[1], 2, 4, 2), Disagreement(rows[2], CANNOT_TELL, 3, 3)]
    assert str(merged.disagreements[0]) == f"row {rows[1]}: minor damage or destroyed, kept: minor damage"
    assert str(merged.disagreements[1]) == f"row {rows[2]}: cannot tell or major damage, kept: major damage"
    assert prefix(DRAW, merged.judgements).grades.tolist() == [1, 2, 3, 4, 3]
    assert {judgement.rank: judgement.judge for judgement in merged.judgements}[2] == "b"


def test_what_one_picked_and_the_other_was_shown_stays_in_the_sample() -> None:
    row = int(DRAW.order[0])
    for files in ([Judgement(4, row, None, None)], [judged(0, 4)]), ([judged(0, 4)], [Judgement(4, row, None, None)]):
        assert prefix(DRAW, merge(*files).judgements).grades.tolist() == [4]


def test_people_who_judged_different_draws_are_not_merged() -> None:
    with pytest.raises(JudgementError, match="The two judged different draws"):
        merge([judged(0)], [replace(judged(0), rank=1)])

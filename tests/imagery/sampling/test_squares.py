from collections import Counter

import numpy as np
import pytest

from imagery.sampling.squares import Counted, draw_squares, first_counts, merge_counts


def test_squares_are_drawn_alike_likely_and_only_where_there_is_data() -> None:
    seen = np.array([[True, True, False], [True, True, True], [False, False, True]])
    first = Counter(int(draw_squares(seen, seed, "m").draw.order[0]) for seed in range(300))
    assert sorted(first) == [0, 1, 3, 4, 5, 8]
    assert max(abs(count - 50) for count in first.values()) < 4 * 6.5


def test_squares_cover_the_map_once_and_are_cut_off_at_its_edge() -> None:
    squares = draw_squares(np.ones((2, 3), bool), 0, "m", side=100.0)
    corners = squares.corners((0.5, 1.0), (500, 150))[np.argsort(squares.draw.order)]
    assert corners.tolist() == [
        [0, 0, 200, 100], [200, 0, 400, 100], [400, 0, 500, 100],
        [0, 100, 200, 150], [200, 100, 400, 150], [400, 100, 500, 150],
    ]  # fmt: skip


@pytest.mark.parametrize("ranks", [[], [1], [0, 2]])
def test_counts_go_up_to_the_first_gap(ranks: list[int]) -> None:
    found = first_counts(Counted(rank, 10 + rank, rank) for rank in reversed(ranks))
    count = 1 if 0 in ranks else 0
    assert (found.missed.tolist(), found.beyond) == ([10] * count, len(ranks) - count)


def test_of_two_people_the_first_stands_but_for_what_could_not_be_seen() -> None:
    first = [Counted(0, 2, 1, "AB"), Counted(1, None, 0, "AB"), Counted(2, 1, 0, "AB")]
    second = [Counted(0, 3, 1, "CD"), Counted(1, 4, 0, "CD"), Counted(2, 1, 0, "CD"), Counted(3, 0, 0, "CD")]
    merged, differing = merge_counts(first, second)
    assert merged == [first[0], second[1], first[2], second[3]]
    assert differing == 2

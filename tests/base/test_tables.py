"""Tables for people."""

from base.tables import aligned


def test_columns_are_aligned_the_first_to_the_left() -> None:
    assert aligned([["a", "bb"], ["ccc", "1"]]) == "a    bb\nccc   1"

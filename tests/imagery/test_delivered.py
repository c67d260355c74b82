"""What a map says of itself: the numbers of its summary, and one line where it is none."""

from pathlib import Path

import pytest

from imagery.delivered import Delivered, DeliveryError, read_delivered
from tests.imagery.shards.making import make_event, on_one_machine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of one machine."""
    folder = tmp_path_factory.mktemp("made")
    on_one_machine(make_event(folder), folder / "map", align="off")
    return folder / "map"


def test_the_numbers_are_those_of_the_summary(made: Path) -> None:
    found = read_delivered(made)
    assert found.state == "complete" and found.left_out == []
    grades = [found.numbers[f"buildings_{key}"] for key in ("no_damage", "minor_damage", "major_damage", "destroyed")]
    assert found.numbers["buildings"] == sum(grades) > 0
    assert found.numbers["buildings_damaged"] == sum(grades[1:])
    assert (found.facts["model"], found.facts["network"]) == ("a model", "a network")
    assert isinstance(found, Delivered) and found.numbers["left_out"] == 0


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"[]", b'{"total": {}, "scene": {}}', b'{"total": {"a": "b"}}']
)
def test_what_is_no_map_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(DeliveryError, match=r"summary\.json: .* Give the folder of a map of components\.predict"):
        read_delivered(tmp_path)

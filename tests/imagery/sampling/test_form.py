import json

import numpy as np
import pytest

from imagery.sampling.draw import draw_buildings
from imagery.sampling.form import DrawError, from_plain, squares_from_plain, to_plain
from imagery.sampling.squares import draw_squares

GENERATOR = np.random.default_rng(0)
DRAW = draw_buildings(GENERATOR.random(40), GENERATOR.random((40, 2)), 7, "abc")


def test_a_draw_comes_back_from_json_as_it_was() -> None:
    back = from_plain(json.loads(json.dumps(to_plain(DRAW))), "judge.json")
    assert to_plain(back) == to_plain(DRAW)
    assert (back.seed, back.map_hash, len(back)) == (7, "abc", 40)
    assert back.inclusion(13).tolist() == DRAW.inclusion(13).tolist()


def test_squares_come_back_and_a_draw_of_earlier_has_none() -> None:
    squares = draw_squares(np.ones((3, 4), bool), 7, "abc")
    back = squares_from_plain(json.loads(json.dumps(to_plain(DRAW, squares))), "judge.json")
    assert back is not None
    assert (back.side, back.columns, back.draw.order.tolist()) == (75.0, 4, squares.draw.order.tolist())
    assert squares_from_plain(to_plain(DRAW), "judge.json") is None
    twice = {**to_plain(DRAW), "squares": {"side": 75.0, "columns": 2, "order": [0, 0]}}
    with pytest.raises(DrawError, match=r"\(squares\.order: found 1 rows twice, expected each once\)"):
        squares_from_plain(twice, "judge.json")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"version": 2}, "version: found 2: input should be 1"),
        ({"seed": -1}, "seed: found -1: "),
        ({"seed": "7"}, "seed: found '7': "),
        ({"map": ""}, "map: found '': "),
        ({"order": [*range(39), 38]}, "order: found 1 rows twice, expected each once"),
        ({"order": [1, 2]}, "strata: found 40, expected 2, one for each of the order"),
        ({"order": [1.5]}, "order.0: found 1.5: "),
        ({"strata": [0] * 40}, "sizes: found [4, 8, 12, 16], expected [40], as strata counts them"),
        ({"strata": [1] * 40, "sizes": [40]}, "sizes: found [40], expected [0, 40]"),
        ({"more": 1}, "more: found 1: "),
        ({"squares": {"side": 0.0, "columns": 1, "order": []}}, "squares.side: found 0.0: "),
    ],
)
def test_what_is_no_draw_is_refused_in_one_line(change: dict[str, object], finding: str) -> None:
    with pytest.raises(DrawError) as error:
        from_plain({**to_plain(DRAW), **change}, "map/judge.json")
    message = str(error.value)
    assert message.startswith(f"map/judge.json: is no draw of this version ({finding}")
    assert message.endswith("Use the page of the same map.") and "\n" not in message


@pytest.mark.parametrize("content", [None, [], "order", {}, {"order": {}}])
def test_other_json_is_refused(content: object) -> None:
    with pytest.raises(DrawError, match=r"^x: is no draw of this version \(.*found .*\)"):
        from_plain(content, "x")

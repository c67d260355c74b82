"""The parser of every command line: an empty text is no value, and bounds are told."""

from pathlib import Path

import pytest

from base.command_line import Parser, whole_number


def parser() -> Parser:
    whole = Parser(prog="it")
    one = whole.add_subparsers(dest="command").add_parser("one")
    one.add_argument("place", type=Path)
    one.add_argument("--name")
    one.add_argument("--many", nargs="+")
    one.add_argument("--open", type=str, default="")
    one.add_argument("--count", type=whole_number(1, 9), default=3)
    return whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one", ""], "argument place: found an empty text, expected a value"),
        (["one", "a", "--name", " "], "argument --name: found an empty text, expected a value"),
        (["one", "a", "--many", "b", ""], "argument --many: found an empty text, expected a value"),
        *(
            (["one", "a", "--count", value], f"argument --count: found {value}, expected a whole number from 1 to 9")
            for value in ("0", "-1", "10", "nan", "1e300", "text")
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be_is_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"it one: error: {said}"


def test_what_may_be_empty_can_be_and_the_rest_comes_through() -> None:
    found = vars(parser().parse_args(["one", "a/b", "--name", "c d", "--open", "", "--count", "9"]))
    assert found == {"command": "one", "place": Path("a/b"), "name": "c d", "many": None, "open": "", "count": 9}

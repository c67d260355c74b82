"""Parameter files of any content: parameters that a step can take, or one line that says why not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.yaml_file import YamlError, parse_yaml
from components.params import ParamsError, load_params, validate
from tests.paths import ROOT

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
DEFAULTS = parse_yaml(TEXT)
# One section of each kind of value, few lines for the sake of time.
LINES = "".join(re.findall(r"^(?:prepare|promote|evaluate):.*\n(?:  .*\n)+", TEXT, re.MULTILINE)).splitlines(
    keepends=True
)
NAMES = [line.split(":")[0].strip() for line in LINES if ":" in line]
# What YAML has a meaning of its own for.
ODD = (
    ".nan", ".inf", "-.inf", "1e400", "9" * 5000, "1_0", "0x10", "010", "1:30", "off", "~", "''", "2020-01-01",
    "2020-99-99", "2020-01-01 25:61:61", "!!int x", "!!float x", "!!timestamp x", "!!binary x", "!!binary AAAA",
    "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!bool x", "!!python/name:os.system", "!mine 1", "&a 1", "*a",
    "&b [*b]", "&c {c: *c}", "[1, [2, [3]]]", "{a: 1, a: 2}", "{1: 2}", "{[1]: 2}", "{null: 2}", "{? {a: 1} : 2}",
    "<<: 3", "{<<: {seed: 3}}", '"\\ud800"', '"\\0"', "\t1", "|\n    text", "\ufeff1", "\u2028", "ü", "- 1", "[" * 60,
    "---", "...", "%YAML 3.0", "@", "`", "? a", "1\r\n", "1 # why", "=", "{=: 1}", "<", "!!null x", "!!str 1", "--- 1",
    "!!int ''", "!!float '-'", f"1:{'00:' * 500}00.5",
)  # fmt: skip
values = st.sampled_from(ODD) | st.text(max_size=8) | st.floats().map(str) | st.integers().map(str)
lines = st.tuples(st.integers(0, len(LINES) - 1), st.sampled_from(["value", "line", "key", "cut"]), values)
finite = st.floats(allow_nan=False, allow_infinity=False)  # what JSON has
trees: Any = st.recursive(
    st.none() | st.booleans() | finite | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4),
    max_leaves=12,
)


def changed(changes: list[tuple[int, str, str]]) -> str:
    """Sections of params.yaml with another value, key or line at some places, or with what follows cut off."""
    found = list(LINES)
    for place, what, text in changes:
        place = min(place, len(found) - 1)
        key, _, value = found[place].partition(":")
        new = {
            "value": f"{key}: {text}\n",
            "line": f"{found[place]}{text}\n",
            "key": f"{key}{text}:{value}",
            "cut": text,
        }
        found[place : None if what == "cut" else place + 1] = [new[what]]
    return "".join(found)


def check(sections: Any) -> None:
    """Validates sections over the defaults; what comes must stay the same as JSON, which is how pods get it."""
    if not isinstance(sections, dict):
        return
    try:
        found = validate({**DEFAULTS, **sections}, "a.yaml")
    except ParamsError as error:
        assert str(error).startswith("a.yaml: ")
        assert "\n" not in str(error) and len(str(error)) < 9000
        return
    text = json.dumps(found.model_dump(mode="json", by_alias=True), allow_nan=False)
    assert load_params(text) == found


@settings(max_examples=100)
@given(st.lists(lines, min_size=1, max_size=4), st.sampled_from(["", "\ufeff"]))
def test_any_parameter_file_is_read_or_refused(changes: list[tuple[int, str, str]], start: str) -> None:
    try:
        sections = parse_yaml(start + changed(changes))
    except YamlError as error:
        assert "\n" not in str(error)
        return
    check(sections)


@settings(max_examples=60)
@given(trees)
def test_any_values_are_parameters_or_refused(tree: Any) -> None:
    try:
        sections = parse_yaml(json.dumps(tree))
    except YamlError:
        return
    assert sections == tree
    check(sections)


def test_a_character_beyond_16_bits_comes_to_a_pod_as_it_is() -> None:
    """JSON escapes it as two halves, which YAML takes for two characters that nothing can hold."""
    given = {"tracking": {**DEFAULTS["tracking"], "experiment": "🙂 floods"}}
    found = validate({**DEFAULTS, **given}, "a.yaml")
    text = json.dumps(found.model_dump(mode="json", by_alias=True))
    assert "\\ud83d\\ude42" in text
    assert load_params(text).tracking.experiment == "🙂 floods"
    assert parse_yaml('{"\\ud83d\\ude42": 1}') == {"🙂": 1}


@pytest.mark.parametrize("text", ['{"seed\\u200b": 1}', "a: 1\n\ufeffb\n"])
def test_a_character_that_nobody_sees_is_shown(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match=r"a\.yaml: .*\\u(200b|feff)") as caught:
        load_params(tmp_path / "a.yaml")
    assert str(caught.value).isprintable()

"""A YAML file brought to another content: exact to both YAMLs, and otherwise as it was."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from base.errors import InputError
from base.yaml_file import rewrite_yaml

# What YAML 1.1 and 1.2 read differently where it stands bare, and what is not text where it stands bare.
TRAPS = [
    "off",
    "yes",
    "1e5",
    "0o17",
    "017",
    "12:30:00",
    "1_0",
    "null",
    "~",
    "",
    "<<",
    "=",
    "2020-01-01",
    "${x}",
    "a: b #",
]
TEXTS = st.text() | st.sampled_from(TRAPS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTENTS = st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3)


def rewritten(path: Path, before: str, content: dict[str, Any]) -> str:
    path.write_text(before, encoding="utf-8")
    rewrite_yaml(path, content)
    return path.read_text(encoding="utf-8")


@given(CONTENTS, CONTENTS)
def test_both_yamls_read_exactly_the_new_content(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, Any], content: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rewritten.yaml"
    text = rewritten(path, yaml.safe_dump(before), content)
    assert yaml.safe_load(text) == content
    assert YAML(typ="safe").load(text) == content


def test_what_stays_the_same_keeps_its_comments_and_its_spelling(tmp_path: Path) -> None:
    before = """# Of the file.
a: # of a section
  list: [1, 1] # of a list
  gone: 3
  off: "off" # quoted
  none: null # nothing
  rate: 0.10 # of a number

b: 1_000
"""
    after = {
        "a": {"list": [1, 1], "off": "off", "none": None, "rate": 0.2, "new": ["x", {"y": 1e-05, "z": "off"}]},
        "b": 1000,
    }
    assert (
        rewritten(tmp_path / "a.yaml", before, after)
        == """# Of the file.
a: # of a section
  list: [1, 1] # of a list
  off: "off" # quoted
  none: null # nothing
  rate: 0.2  # of a number

  new: [x, {y: 1.0e-05, z: "off"}]
b: 1_000
"""
    )


@pytest.mark.parametrize("alias", ["b: *x", "b:\n  <<: *x"], ids=["the same", "merged"])
def test_a_value_that_stands_for_two_can_become_two_values(tmp_path: Path, alias: str) -> None:
    before = f"a: &x {{c: 1, d: 2}}\n{alias}\n"
    content = {"a": {"c": 1}, "b": {"c": 3, "d": 2}}
    assert yaml.safe_load(rewritten(tmp_path / "a.yaml", before, content)) == content


def test_a_file_that_only_yaml_1_1_can_read_is_one_line_and_stays(tmp_path: Path) -> None:
    before = "a: 1\na: 2\n"
    with pytest.raises(InputError, match=r"a\.yaml: is not YAML 1\.2 \(.*duplicate key") as caught:
        rewritten(tmp_path / "a.yaml", before, {"a": 3})
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a.yaml").read_text(encoding="utf-8") == before

"""YAML as plain values, and a file of it brought to another content as by hand: what stays the same keeps its comments
and its spelling.
"""

import io
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from base.errors import InputError, printable
from base.files import write_file

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
LARGEST = 2**53  # whole numbers up to which every reader of JSON sees the same number
DEEPEST, MOST = 20, 100_000  # values within values, and values in all: aliases can make any number out of a few lines
# Characters that neither a path nor a variable can hold: NUL, and halves of others.
_UNFIT = re.compile("[\0\ud800-\udfff]")
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# How a number begins, and one with a power of ten, as YAML 1.2 and JSON have it.
_NUMBER = tuple("-+0123456789")
_POWER = ("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"))


class YamlError(ValueError):
    """A text that is no YAML, or holds something else than plain values; says what, and not in which file."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but for this: keys are texts as they are spelled and stand once, dates are texts,
    and 1e-05 is a number and two escaped halves are one character, as in JSON.
    """

    yaml_constructors = {  # noqa: RUF012
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }
    yaml_implicit_resolvers = {  # noqa: RUF012
        start: [(tag, spelled) for tag, spelled in known if not tag.endswith(":timestamp")]
        + [_POWER] * (start in _NUMBER)
        for start, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_scalar_node(self, anchor: Any) -> Any:
        """As PyYAML's; two escaped halves, as which json.dumps writes a character beyond 16 bits, are that one."""
        node = super().compose_scalar_node(anchor)
        node.value = _HALVES.sub(lambda two: two[0].encode("utf-16", "surrogatepass").decode("utf-16"), node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """As PyYAML's; refuses a key that stands twice, of which PyYAML takes the last without a word."""
        node, names = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="found a key that is no text", problem_mark=key.start_mark)
            if key.value in names:
                raise yaml.MarkedYAMLError(problem=f"found the key {key.value} twice", problem_mark=key.start_mark)
            names.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return node


def parse_yaml(text: str) -> Any:
    """What a text of YAML or JSON holds: None, truths, numbers, texts, lists, and mappings with texts as keys.

    Numbers are finite, and whole ones at most LARGEST. Raises YamlError.
    """
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
    # All but the first and the last of values that a tag is wrong for, such as `!!int x`, `!!bool x` and `!!int ''`.
    except (yaml.YAMLError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise YamlError(f"is not YAML ({printable(str(error))})") from error
    _check(content, (), [0])
    return content


def _check(value: Any, path: tuple[str, ...], count: list[int]) -> None:
    """Raises YamlError where a value within `content` is not fit for JSON, or where there are too many."""
    count[0] += 1
    if len(path) > DEEPEST or count[0] > MOST:
        raise YamlError(f"holds more than {MOST} values, or more than {DEEPEST} within each other")
    name = ".".join(path) or "it"
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, path, count)
            _check(item, (*path, key), count)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, (*path, str(number)), count)
    elif isinstance(value, str) and (unfit := _UNFIT.search(value)):
        raise YamlError(f"{name}: found {value!a}, expected text without the character {unfit[0]!a}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise YamlError(f"{name}: found {value}, expected a finite number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise YamlError(f"{name}: found {value}, expected a whole number of at most {LARGEST}")


def rewrite_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Makes a YAML file hold this content, so that a parser of YAML 1.1 (PyYAML) and one of 1.2 (DVC) both read it.

    content: what `parse_yaml` gives. A file with aliases, which tie values together, loses its comments.
    Raises InputError where YAML 1.2 cannot read the file, such as for a key that stands twice.
    """
    from ruamel.yaml.error import YAMLError

    text, written, writer = path.read_text(encoding="utf-8"), io.StringIO(), _writer()
    has_aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))
    try:
        document = _spell({}) if has_aliases else writer.load(text)
    except YAMLError as error:
        raise InputError(f"{path}: is not YAML 1.2 ({' '.join(str(error).split())}). Correct it.") from error
    _lay_over(document, content)
    writer.dump(document, written)
    write_file(path, written.getvalue())


def _writer() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter
    from ruamel.yaml.scalarfloat import ScalarFloat

    class Representer(RoundTripRepresenter):
        """Numbers as PyYAML writes them, since 1e-05 is text in YAML 1.1; null in full."""

        def as_number(self, value: float) -> Any:
            return self.represent_scalar("tag:yaml.org,2002:float", yaml.safe_dump(float(value)).splitlines()[0])

        def as_null(self, _: None) -> Any:
            return self.represent_scalar("tag:yaml.org,2002:null", "null")

    Representer.add_representer(float, Representer.as_number)
    Representer.add_representer(ScalarFloat, Representer.as_number)
    Representer.add_representer(type(None), Representer.as_null)
    writer = YAML()
    writer.Representer, writer.preserve_quotes, writer.width = Representer, True, sys.maxsize
    return writer


def _lay_over(document: Any, content: Mapping[str, Any]) -> None:
    for key in set(document) - set(content):
        del document[key]
    for key, value in content.items():
        old = document.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            _lay_over(old, value)
        elif key not in document or old != value:
            document[_spell(key)] = _spell(value)


def _spell(value: Any) -> Any:
    """The value for ruamel.yaml, texts but words in quotes: bare, `off` is false in YAML 1.1, 1e5 a number in 1.2."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, str):
        return value if WORD.fullmatch(value) and yaml.safe_load(value) == value else DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        return CommentedMap((_spell(key), _spell(item)) for key, item in value.items())
    if isinstance(value, list):
        items = CommentedSeq(_spell(item) for item in value)
        items.fa.set_flow_style()
        return items
    return value

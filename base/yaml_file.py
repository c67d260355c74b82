"""A YAML file brought to another content as by hand: what stays the same keeps its comments and its spelling."""

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from base.errors import InputError
from base.files import write_file

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def rewrite_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Makes a YAML file hold this content, so that a parser of YAML 1.1 (PyYAML) and one of 1.2 (DVC) both read it.

    content: what PyYAML reads. A file with aliases, which tie values together, loses its comments.
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

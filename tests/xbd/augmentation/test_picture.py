"""The command that draws samples."""

from pathlib import Path

import pytest

from tests.commands import exit_line
from xbd.augmentation.__main__ import main


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xff\xfe", "is no text"),
        (b"- a", "holds a list"),
        (b"a: !!int ''", "is not YAML"),
        (b"[" * 3000, "is not YAML"),
    ],
)
def test_a_file_that_holds_no_pipeline_is_refused_in_one_line(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "geometry.yaml"
    path.write_bytes(content)
    line = exit_line(main, tmp_path, "--picture", tmp_path / "a.png", "--geometry", path)
    assert line.startswith(f"InputError: --geometry: {path} {named}")
    assert not (tmp_path / "a.png").exists()

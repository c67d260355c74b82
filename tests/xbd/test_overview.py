"""The picture of prepared scenes, as its users ask for it."""

from pathlib import Path

import pytest

from tests.conftest import GOLDEN, exit_line
from xbd.overview import main

PREPARED = GOLDEN / "earlier" / "prepared"


@pytest.mark.parametrize("name", ["scenes.xyz", "folder"])
def test_a_picture_that_is_no_png_is_refused_before_anything_is_printed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = exit_line(main, PREPARED, "--picture", tmp_path / name)
    assert f"--picture: found {tmp_path / name}, expected a file that ends in .png" in line
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    main([str(PREPARED), "--picture", str(tmp_path / "new" / "scenes.png"), "--count", "2"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scenes.png"]
    assert (tmp_path / "new" / "scenes.png").read_bytes().startswith(b"\x89PNG")

"""Outputs that cannot be are refused before the work, with nothing made."""

from pathlib import Path

import pytest

from base.errors import InputError
from base.files import new_folder, refuse_no_folder, write_file


@pytest.mark.parametrize("name", ["file", "file/below", "file/far/below"])
def test_a_file_in_the_way_of_a_folder_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = f"{tmp_path / 'file'}: is a file, expected a folder to write to"
    with pytest.raises(InputError, match=expected):
        refuse_no_folder(tmp_path / name)
    with pytest.raises(InputError, match=expected), new_folder(tmp_path / name, lambda path: True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_yet_is_good(tmp_path: Path) -> None:
    refuse_no_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").mkdir()
    with pytest.raises(InputError, match=r"graph\.yaml: is a folder, expected a file to write to"):
        write_file(tmp_path / "graph.yaml", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.yaml"]

"""A run that is killed, or that the disk has no room for, leaves the results of the run before, or none."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from base.errors import errors_in_one_line
from imagery.give.names import FEATURES
from imagery.give.outputs import FILES
from imagery.give.writing import OutputError
from imagery.sampling.judgements_file import JUDGE
from tests.commands import program
from tests.conftest import environment, exit_line, tree
from tests.imagery.predicted import give_out, write_classes
from tests.limits import files_up_to


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crumbs without end, so that each file is large."""
    rng = np.random.default_rng(3)
    damage = rng.integers(1, 5, (120, 160)) * (rng.random((120, 160)) < 0.3)
    return write_classes(
        tmp_path_factory.mktemp("scene") / "classes.tif", damage, grades=rng.integers(0, 256, (4, 120, 160))
    )


@pytest.fixture(scope="module")
def sizes(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    out = tmp_path_factory.mktemp("results") / "out"
    give_out(classes, out)
    return {path.name: path.stat().st_size for path in out.iterdir()}


KILLED = """
import os, signal, sys
from pathlib import Path
import imagery.give.outputs
from tests.imagery.predicted import give_out

# When the rasters and a vector are there.
imagery.give.outputs.add_style = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
give_out(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_run_leaves_the_results_before_it(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*program(KILLED), str(classes), str(out)]
    assert subprocess.run(command, env=environment(), timeout=300).returncode == -9
    assert not out.exists()
    assert {"damage.tif", "buildings.gpkg"} <= {path.name for path in tmp_path.rglob("*")}  # it had come so far
    give_out(classes, out)
    kept = tree(out)
    assert set(kept) == set(FILES) - {FEATURES, JUDGE}
    assert subprocess.run(command, env=environment(), timeout=300).returncode == -9
    assert tree(out) == kept
    give_out(classes, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["damage.tif", "confidence.tif", "buildings.gpkg", "buildings.geojson", "summary.csv"])
def test_a_full_disk_is_one_line(name: str, classes: Path, sizes: dict[str, int], tmp_path: Path) -> None:
    """Where the last bytes have no room, too: some libraries notice when they close the file, and tell nobody."""
    with files_up_to(sizes[name] - 4), pytest.raises(OutputError) as caught:
        give_out(classes, tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: cannot be written (")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def write(arguments: Sequence[str]) -> None:
        with errors_in_one_line():
            give_out(classes, Path(arguments[0]))

    assert "expected a folder" in exit_line(write, tmp_path / "file")
    assert str(tmp_path / "file") in exit_line(write, tmp_path / "file" / "out")

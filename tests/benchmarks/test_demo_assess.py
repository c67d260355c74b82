"""The demonstration of assess, on scenes whose colours tell their grades, by a network that reads these."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import demo_assess
from imagery.assessing.judged_map import read_map
from imagery.sampling.judgements_file import JUDGEMENTS_FILE, read_judgements
from model.inference import MEAN, STD
from tests.conftest import GRADE_NAMES, Rectangle, exit_line, write_scene
from tests.tiny_network import Tiny, TinySettings

SCENES = 9
DAMAGED = 3  # of the five buildings of each scene; the fifth cannot be told
REDS = torch.tensor([210.0, 170.0, 130.0, 90.0])  # of the grades, in `write_scene`


def reading_colours() -> Tiny:
    """A building is where pre is bright, its grade the one whose red is nearest to post's."""
    network = Tiny(TinySettings())
    grades = (REDS / 255 - MEAN[0]) / STD[0] + 3
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    state["norm.weight"] += 1
    state["norm.running_var"] += 1
    for channel, band in ((0, 0), (1, 3)):
        state["features.weight"][channel, band] = 1 / 16
        state["features.bias"][channel] = 3
    state["heads.weight"][1, 0], state["heads.bias"][1] = 5, -5 * (3 + 0.2)
    state["heads.weight"][2:, 1, 0, 0], state["heads.bias"][2:] = 20 * grades, -10 * grades**2
    network.load_state_dict(state)
    return network.eval()


def write_scenes(folder: Path) -> Path:
    for number in range(SCENES):
        corners = [(4, 4), (24, 4), (44, 4), (4, 24), (24, 24)]
        buildings = [
            Rectangle(grade, left, top, left + 11, top + 11)
            for grade, (left, top) in zip(GRADE_NAMES, corners, strict=True)
        ]
        write_scene(folder, "test", f"tiny-flood_{number:08}", buildings)
    return folder / "test"


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("model.inference.load_model", lambda directory: reading_colours())
    return write_scenes(tmp_path / "raw")


def test_the_loop_tells_the_truth_beside_the_estimate(
    raw: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    demo_assess.main(["--model", str(model), "--raw", str(raw), "--judged", "30", "--out", str(out)])
    said = capsys.readouterr().out
    count = 5 * SCENES
    assert f"The map says:       {4 * SCENES} of its {count} buildings are damaged\n" in said
    assert f"30 of {count} buildings judged\n" in said
    assert f"The truth:          {DAMAGED * SCENES}, which the interval holds\n" in said
    # 96 x 96 m make four squares, all of which are looked at; the network misses nothing.
    assert "Missed by the map:  0 (0 to 0); the truth: 0, which the interval holds\n" in said
    assert (out / "map-assessed" / "assessment.html").exists()
    given = read_map(out / "map")
    judged = read_judgements(out / JUDGEMENTS_FILE, given.draw, given.ids)
    assert [own.rank for own in judged] == [*range(30)]
    mapped = given.grades[[own.row for own in judged]]
    told = np.array([own.grade for own in judged])
    assert (told[told != 255] == mapped[told != 255]).all() and (mapped[told == 255] == 4).all()


def test_scenes_that_are_not_there_or_differ_in_size_are_one_line(raw: Path, model: Path, tmp_path: Path) -> None:
    empty, out = tmp_path / "empty", tmp_path / "demo"
    empty.mkdir()
    said = exit_line(demo_assess.main, "--model", model, "--raw", empty, "--out", out)
    assert said == f"InputError: {empty}: found no image pair in images/, expected scenes. Run `make demo` first."
    write_scene(raw.parent, "test", "tiny-flood_00000099", [], size=(32, 32))
    said = exit_line(demo_assess.main, "--model", model, "--raw", raw, "--out", out)
    assert said == f"InputError: {raw}: found images of 2 sizes, expected one. Give scenes of one data set."
    assert list(out.iterdir()) == []

"""The measurement on real events, on tiny scenes of them and a network that was not trained."""

import shutil
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest

from benchmarks import real_events
from benchmarks.demo_assess import join_scenes
from benchmarks.event_maps import BINS, map_event
from tests.conftest import exit_line
from tests.scenes import tiny_buildings, write_scene

SCENES = 9


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in range(SCENES):
        scene = f"hurricane-michael_{number:08}"
        write_scene(tmp_path / "raw", "train" if number else "test", scene, tiny_buildings(scene))
    write_scene(tmp_path / "raw", "test", "guatemala-volcano_00000001", tiny_buildings("other"))
    return tmp_path / "raw"


def test_a_table_is_printed_of_the_events_whose_models_are_there(
    raw: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    shutil.copytree(model, tmp_path / "models" / "michael-1" / "model")
    words = ["--raw", str(raw), "--models", str(tmp_path / "models"), "--work", str(work), "--draws", "2"]
    real_events.main(words)
    said = capsys.readouterr().out
    assert f"santa-rosa: {tmp_path}/models/santa-rosa-1/model is missing, and the event left out\n" in said
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert table[0].startswith("| michael, grades: judged | the map | assess | sums alone | forest on colours |")
    assert [line.split(" | ")[0] for line in table[2:]] == ["| 10"]  # 40 % of 45 buildings are 18
    population = pd.read_csv(work / "population.csv")
    assert len(population) == 5 * SCENES and population["damaged"].sum() == 3 * SCENES
    scores = (work / "michael" / "scores.csv").read_bytes()
    (work / "michael" / "map" / "report.html").unlink()
    real_events.main(words)
    assert (work / "michael" / "scores.csv").read_bytes() == scores
    assert not (work / "michael" / "map" / "report.html").exists()  # nothing was predicted again


def test_the_map_knows_the_buildings_and_not_their_grades(raw: Path, model: Path, tmp_path: Path) -> None:
    found = map_event(raw, "hurricane-michael", model, tmp_path / "event")
    given = geopandas.read_file(tmp_path / "event" / "footprints.geojson")
    assert list(given.columns) == ["uid", "geometry"]
    labels = {label.uid: label for label in join_scenes([raw / "train", raw / "test"], tmp_path, "hurricane").labels}
    uids = found.given.table.frame["uid"].tolist()
    assert sorted(uids) == sorted(labels) and len(uids) == 5 * SCENES
    assert found.truth.tolist() == [labels[uid].grade for uid in uids]
    assert sorted(found.draw(3).order.tolist()) == list(range(5 * SCENES))
    # Post is 150 green in each building, and the pixels around it that are touched are noise.
    green = found.colours[:, (2 * 3 - 2) * BINS + 150 // (256 // BINS)]
    assert (green * 6 > 0.8).all()
    np.testing.assert_allclose(found.colours.sum(1), 1)


def test_without_any_model_nothing_is_measured(raw: Path, tmp_path: Path) -> None:
    said = exit_line(real_events.main, "--raw", raw, "--models", tmp_path / "none", "--work", tmp_path / "work")
    assert said == f"InputError: {tmp_path}/none: found no model, expected FOLD-SEED/model. Train some."

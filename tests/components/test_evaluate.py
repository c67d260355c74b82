"""What evaluate writes, with one grade a building and without: every number taken anew by plain NumPy."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from components import evaluate
from components.params import ParamsError, load_params
from model.dual_hrnet import DualHRNet
from model.inference import Predictor, load_model, normalize, save_model
from model.judge.matching import building_scores
from tests.commands import exit_line
from tests.comparing import read_csv, read_png
from tests.model.calibration.test_errors import error_by_loop
from tests.model.judge.test_matching import match_by_sets
from tests.model.test_buildings import flood
from tests.model.test_metric import KEYS, score_by_loops
from tests.model.test_metric_reference import rates_by_loops
from tests.scenes import TEST_SCENES
from tests.tiny import SMALL, write_params
from xbd.dataset import Scenes
from xbd.scenes import MASK, SceneError, open_scene, prepared_version, read_index, save_scene, write_index

MODES = ("off", "vote")


class Outcome(NamedTuple):
    """A run of the step. masks: localization, damage, target of all scenes, each [N, 64, 64], from the submission."""

    metrics: dict[str, Any]
    out: Path
    masks: tuple[Any, Any, Any]


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted a little to the scenes that it is tested on, so that nothing below is about empty masks."""
    torch.manual_seed(3)
    net, scenes = DualHRNet(**SMALL, batch_norm_momentum=0.3).train(), Scenes(prepared, ["test"])
    pre, post = (normalize(torch.stack([getattr(scenes[i], name) for i in range(3)])) for name in ("pre", "post"))
    mask = torch.stack([scenes[i].mask for i in range(3)]).long()
    grades = torch.where((mask > 0) & (mask < 5), mask - 1, 255)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(35):
        localization, damage = (F.interpolate(part, (64, 64), mode="bilinear") for part in net(pre, post))
        loss = F.cross_entropy(localization, (mask > 0).long()) + F.cross_entropy(damage, grades, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    folder = tmp_path_factory.mktemp("evaluate") / "model"
    save_model(net, folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(prepared: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The step through its command line, in both modes."""
    found = {}
    for mode in MODES:
        folder = tmp_path_factory.mktemp(mode)
        params = write_params(folder / "params.yaml", {"evaluate": {"per_building": mode}})
        arguments = ["--params", params, "--data", prepared, "--model", model, "--out", folder / "out"]
        evaluate.main([str(argument) for argument in (*arguments, "--submission", folder / "files")])
        files = [
            sorted((folder / "files").glob(pattern))
            for pattern in ("predictions/*_localization_*", "predictions/*_damage_*", "targets/*_damage_*")
        ]
        masks = [np.stack([read_png(path) for path in paths]) for paths in files]
        metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
        found[mode] = Outcome(metrics, folder / "out", (masks[0], masks[1], masks[2]))
    return found


@pytest.fixture(params=MODES)
def outcome(outcomes: dict[str, Outcome], request: pytest.FixtureRequest) -> Outcome:
    return outcomes[request.param]


def test_the_official_rules_over_the_submission_give_the_metrics(outcome: Outcome) -> None:
    expected = score_by_loops(*outcome.masks)
    assert expected["damage_f1"] > 0.001  # else the comparison would say nothing
    assert {key: outcome.metrics[key] for key in KEYS} == pytest.approx(expected, rel=0, abs=1e-9)


def test_precision_and_recall_are_those_of_the_submission(outcome: Outcome) -> None:
    for kind, expected in rates_by_loops(*outcome.masks).items():
        assert outcome.metrics[kind] == pytest.approx(expected, rel=0, abs=1e-9)


def test_metrics_have_these_keys(outcome: Outcome) -> None:
    assert list(outcome.metrics) == [
        *KEYS,
        "score_present",
        "damage_f1_present",
        "absent_grades",
        "scenes",
        "score_per_pixel",
        "score_per_building",
        "building_f1",
        "localization_calibration_error",
        "damage_calibration_error",
        "calibration",
        "precision",
        "recall",
        "buildings",
        "per_pixel",
        "per_building",
        "per_disaster",
        "per_disaster_type",
        "per_split",
        "prepared_version",
        "evaluate_settings",
    ]


def test_metrics_say_of_which_scenes_by_which_settings(outcomes: dict[str, Outcome], prepared: Path) -> None:
    for mode in MODES:
        metrics = outcomes[mode].metrics
        assert metrics["prepared_version"] == prepared_version(prepared)
        assert metrics["evaluate_settings"] == {"splits": ["test"], "unclassified_as": 1, "per_building": mode}


def test_grades_that_the_scenes_lack_are_named_and_left_out_beside_the_official_score(
    prepared: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenes without minor and major damage, as a fire leaves them: those pixels are no damage here."""
    records = read_index(prepared)
    for record in records:
        array = open_scene(prepared, record).copy()
        array[..., MASK][np.isin(array[..., MASK], (2, 3))] = 1
        save_scene(tmp_path / "fire", record.scene, array)
    write_index(tmp_path / "fire", records)
    params = load_params(write_params(tmp_path / "params.yaml"))
    metrics = evaluate.evaluate(tmp_path / "fire", model, tmp_path / "out", params)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "official rule" in line]
    assert line.startswith("no pixel of minor damage or major damage in these scenes: ")
    assert line in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert metrics["absent_grades"] == ["minor_damage", "major_damage"]
    assert metrics["damage_f1"] < 4e-6
    present = [metrics[f"damage_f1_{name}"] + 1e-6 for name in ("no_damage", "destroyed")]
    assert metrics["damage_f1_present"] == pytest.approx(2 / sum(1 / f1 for f1 in present), rel=1e-12)
    assert metrics["damage_f1_present"] > 0.01  # else the comparison would say nothing
    for scores in metrics["per_disaster"].values():
        expected = 0.3 * scores["localization_f1"] + 0.7 * scores["damage_f1_present"]
        assert scores["score"] < scores["score_present"] == pytest.approx(expected, rel=1e-12)


def test_where_no_grade_is_absent_both_rules_are_one(outcome: Outcome) -> None:
    assert outcome.metrics["absent_grades"] == []
    assert outcome.metrics["score_present"] == pytest.approx(outcome.metrics["score"], rel=1e-12)
    assert outcome.metrics["damage_f1_present"] == pytest.approx(outcome.metrics["damage_f1"], rel=1e-12)
    assert "official rule" not in (outcome.out / "report.html").read_text(encoding="utf-8")


def test_both_scores_are_told_in_either_mode(outcomes: dict[str, Outcome]) -> None:
    off, vote = (outcomes[mode].metrics for mode in MODES)
    assert off["score"] != vote["score"]
    for metrics in (off, vote):
        assert metrics["per_pixel"] == {key: off[key] for key in KEYS}
        assert metrics["per_building"] == {key: vote[key] for key in KEYS}
        assert metrics["score_per_pixel"] == off["score"]
        assert metrics["score_per_building"] == vote["score"]
    # What is not about the grades of pixels does not depend on the mode.
    for key in ("localization_f1", "buildings", "localization_calibration_error", "damage_calibration_error"):
        assert off[key] == vote[key]


def test_one_grade_a_building_is_the_vote_of_the_probabilities(
    outcomes: dict[str, Outcome], prepared: Path, model: Path
) -> None:
    predictor, scenes = Predictor(load_model(model)), Scenes(prepared, ["test"])
    mixed = 0
    for number in range(len(scenes)):
        _, probabilities = predictor.probabilities(scenes[number].pre[None], scenes[number].post[None])
        localization, per_pixel, _ = (part[number] for part in outcomes["off"].masks)
        labels, expected = flood(localization), np.zeros_like(per_pixel)
        for building in range(1, labels.max() + 1):
            inside = labels == building
            mixed += len(np.unique(per_pixel[inside])) > 1
            expected[inside] = 1 + probabilities.damage[0].double().numpy()[:, inside].sum(1).argmax()
        np.testing.assert_array_equal(outcomes["vote"].masks[0][number], localization)
        np.testing.assert_array_equal(outcomes["vote"].masks[1][number], expected)
    assert mixed  # else a vote would have nothing to decide


def test_buildings_are_counted_as_sets_of_pixels_are(outcomes: dict[str, Outcome], prepared: Path) -> None:
    counts = np.zeros((5, 5), np.int64)
    scenes = Scenes(prepared, ["test"])
    for number in range(len(scenes)):
        localization, damage, _ = (part[number] for part in outcomes["vote"].masks)
        labels = flood(localization)
        grades = [0, *(damage[labels == building][0] for building in range(1, labels.max() + 1))]
        counts += match_by_sets(labels, np.array(grades, np.uint8), scenes[number].mask.numpy(), 1)
    assert counts[0, 1:].sum() > 0
    assert outcomes["vote"].metrics["buildings"] == building_scores(counts)
    assert outcomes["vote"].metrics["building_f1"] == building_scores(counts)["f1"]["localization"]


@pytest.mark.parametrize("unclassified_as", [1, 0, "ignore"])
def test_calibration_errors_equal_a_loop_over_bins(
    prepared: Path, model: Path, tmp_path: Path, unclassified_as: int | str
) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"unclassified_as": unclassified_as}}))
    metrics = evaluate.evaluate(prepared, model, tmp_path / "out", params)
    predictor, scenes = Predictor(load_model(model)), Scenes(prepared, ["test"])
    pairs: dict[str, list[tuple[float, bool]]] = {"localization": [], "damage": []}
    for sample in (scenes[i] for i in range(len(scenes))):
        _, (building, damage) = predictor.probabilities(sample.pre[None], sample.post[None])
        for row, column in np.ndindex(64, 64):
            actual = int(sample.mask[row, column])
            if actual == 255:
                if unclassified_as == "ignore":
                    continue
                actual = int(unclassified_as)
            sure = float(building[0, row, column])
            pairs["localization"].append((max(sure, 1 - sure), (sure > 0.5) == (actual > 0)))
            if actual > 0:
                grades = damage[0, :, row, column].tolist()
                pairs["damage"].append((max(grades), grades.index(max(grades)) + 1 == actual))
    for part, found in pairs.items():
        expected = error_by_loop([sure for sure, _ in found], [right for _, right in found])
        assert expected > 0.001  # else the comparison would say nothing
        assert metrics[f"{part}_calibration_error"] == pytest.approx(expected, rel=0, abs=1e-6)


def test_scenes_are_listed_with_their_own_scores_and_pixels(outcome: Outcome) -> None:
    rows = read_csv(outcome.out / "scenes.csv")
    assert [row["scene"] for row in rows] == list(TEST_SCENES)
    assert list(rows[0])[:7] == [
        "scene", "disaster", "disaster_type", "split", "score", "localization_f1", "damage_f1"
    ]  # fmt: skip
    for number, row in enumerate(rows):
        assert (row["disaster"], row["split"]) == (row["scene"].rsplit("_", 1)[0], "test")
        localization, damage, target = (part[number] for part in outcome.masks)
        for actual, predicted in np.ndindex(5, 5):
            expected = int(((target == actual) & (damage == predicted)).sum())
            assert int(row[f"t{actual}_p{predicted}"]) == expected
        official = score_by_loops(localization, damage, target)
        assert set(np.unique(target)) == {0, 1, 2, 3, 4}  # so that the official rule holds for the scene alone
        for key in ("score", "localization_f1", "damage_f1"):
            assert float(row[key]) == pytest.approx(official[key], rel=0, abs=1e-9)


def test_groups_are_scored_by_the_official_rules(outcome: Outcome, prepared: Path) -> None:
    records = [line for line in read_csv(prepared / "index.csv") if line["split"] == "test"]
    for column in ("disaster", "disaster_type", "split"):
        names = {record[column] for record in records}
        assert set(outcome.metrics[f"per_{column}"]) == names
        for name in names:
            chosen = [record[column] == name for record in records]
            expected = score_by_loops(*(part[chosen] for part in outcome.masks))
            found = {key: outcome.metrics[f"per_{column}"][name][key] for key in KEYS}
            assert found == pytest.approx(expected, rel=0, abs=1e-9)


def test_a_bare_off_in_yaml_is_off(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for text in ("off", '"off"'):
        recipe.write_text(f"evaluate: {{per_building: {text}}}\n", encoding="utf-8")
        assert load_params(write_params(tmp_path / "params.yaml"), recipe).evaluate.per_building == "off"


def test_another_mode_is_one_line_that_names_it(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"evaluate": {"per_building": True}})
    line = exit_line(evaluate.main, "--params", params, "--data", prepared, "--model", model, "--out", tmp_path / "out")
    assert "evaluate.per_building: found True: input should be 'off' or 'vote'" in line
    assert not (tmp_path / "out").exists()


def test_the_official_files_cannot_say_ignore(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"unclassified_as": "ignore"}}))
    with pytest.raises(ParamsError, match=r"evaluate\.unclassified_as: found 'ignore' with --submission"):
        evaluate.evaluate(prepared, model, tmp_path / "out", params, submission=tmp_path / "submission")
    assert not (tmp_path / "submission").exists()
    assert not (tmp_path / "out").exists()


def test_ignored_pixels_are_left_out_of_the_score(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"unclassified_as": "ignore"}}))
    metrics = evaluate.evaluate(prepared, model, tmp_path / "out", params)
    masks: list[list[Any]] = [[], [], []]
    predictor, scenes = Predictor(load_model(model)), Scenes(prepared, ["test"])
    for sample in (scenes[i] for i in range(len(scenes))):
        kept = sample.mask != 255
        assert not kept.all()
        prediction = predictor(sample.pre[None], sample.post[None])
        for found, mask in zip(masks, (*prediction, sample.mask), strict=True):
            found.append(mask.reshape(64, 64)[kept].numpy())
    expected = score_by_loops(*(np.concatenate(part) for part in masks))
    assert {key: metrics[key] for key in KEYS} == pytest.approx(expected, rel=0, abs=1e-9)


def test_scores_of_the_parts_are_those_of_their_scenes(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"splits": ["test", "validation"]}}))
    both = evaluate.evaluate(prepared, model, tmp_path / "both", params)
    for split in ("test", "validation"):
        alone = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"splits": [split]}}))
        metrics = evaluate.evaluate(prepared, model, tmp_path / split, alone)
        assert both["per_split"][split] == {key: metrics[key] for key in both["per_split"][split]}
        assert list(both["per_split"][split])[: len(KEYS)] == KEYS


def test_a_missing_split_is_an_error_that_names_it(prepared: Path, model: Path, tmp_path: Path) -> None:
    params = load_params(write_params(tmp_path / "params.yaml", {"evaluate": {"splits": ["hold"]}}))
    with pytest.raises(SceneError, match="no scene in hold; it has test, train, validation"):
        evaluate.evaluate(prepared, model, tmp_path / "out", params)


def test_evaluate_refuses_a_wrong_run_file_before_it_writes_anything(
    prepared: Path, model: Path, tmp_path: Path
) -> None:
    params = load_params(write_params(tmp_path / "params.yaml"))
    with pytest.raises(ValueError, match=r"no-run\.json: cannot be read"):
        evaluate.evaluate(prepared, model, tmp_path / "out", params, run_file=tmp_path / "no-run.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"a,b\n1,2\n", b"epoch,loss\n1,x\n", b"\xff\xfe"])
def test_evaluate_refuses_a_wrong_history_before_it_writes_anything(
    prepared: Path, model: Path, tmp_path: Path, content: bytes | None
) -> None:
    params = load_params(write_params(tmp_path / "params.yaml"))
    history = tmp_path / "history"
    if content is None:
        history.mkdir()
    else:
        history.write_bytes(content)
    with pytest.raises(evaluate.EvaluateError, match=r"expected history\.csv of train|history: is a folder"):
        evaluate.evaluate(prepared, model, tmp_path / "out", params, history=history)
    assert not (tmp_path / "out").exists()

"""An event's model from assess over the registry to predict, on a real store, with a real network."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from base.images import encode_png
from components import assess, predict, promote
from components.cards.card import CARD
from components.events.names import EVENTS, EventError
from components.events.registering import register_event
from components.tracking import registry, serving
from components.tracking.connection import TrackingError
from imagery.adapting.names import MODEL_FILES
from imagery.predict.inference import identity_of
from imagery.sampling.judgements_file import read_draw
from tests.components.events.afternoon import JUDGED, NETWORK, Afternoon, assess_map, buildings, facts, make_map
from tests.components.events.conftest import Registered
from tests.components.tracking.model_registry import decisions
from tests.conftest import exit_line, tree
from tests.imagery.assessing.maps import write_judgements
from tests.imagery.geotiff import noise
from tests.servers.mlflow_server import using

Words = list[str | Path]


@pytest.fixture(scope="module")
def client(mlflow_store: str) -> MlflowClient:
    return MlflowClient(mlflow_store)


@pytest.fixture(scope="module")
def again(afternoon: Afternoon, registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scene, mapped by the event's model."""
    out = tmp_path_factory.mktemp("again") / "out"
    make_map(afternoon.folder, f"models:/{EVENTS}@event-palu", out)
    return out


def versions(client: MlflowClient, event: str) -> list[Any]:
    return list(client.search_model_versions(f"name = '{EVENTS}' and tags.event = '{event}'"))


def files_of(client: MlflowClient, number: int) -> Path:
    """Where the store of the tests has the files of a version."""
    return Path(client.get_model_version_download_uri(EVENTS, str(number)).removeprefix("file://"))


def test_a_version_holds_the_network_and_the_events_model_and_says_what_they_are_worth(
    afternoon: Afternoon, registered: Registered, client: MlflowClient
) -> None:
    tags = client.get_model_version(EVENTS, str(registered.number)).tags
    content = json.loads((registered.out / "assessment.json").read_text(encoding="utf-8"))
    assert (tags["event"], tags["base"], tags["judged"]) == ("palu", f"models:/{NETWORK}/1", str(JUDGED))
    assert tags["network"] == identity_of(afternoon.folder / "network")
    assert tags["judgements"] == hashlib.sha256(afternoon.judgements.read_bytes()).hexdigest()
    assert tags["map"] == afternoon.made.draw.map_hash
    own = pd.read_csv(registered.out / "estimates.csv").query("area == 'total' and unit == 'buildings' and headline")
    row = own.set_index("category").loc["damaged"]
    assert tags["damaged"] == f"{row['total']:.0f} ({row['low']:.0f} to {row['high']:.0f})"
    for when in ("before", "after"):
        measures = {(one["measure"], one["category"]): one for one in content["accuracy"][when]["measures"]}
        overall = measures["accuracy", "all"]
        share, low, high = (f"{overall[name]:.3f}" for name in ("share", "low", "high"))
        assert tags[f"accuracy_{when}"] == f"{share} ({low} to {high})"
        assert float(tags[f"mean_f1_{when}"]) == content["adapting"][when]["macro_f1"]
    held = tree(files_of(client, registered.number))
    card = held.pop(CARD).decode()
    assert f"| accuracy | {tags['accuracy_before']} | {tags['accuracy_after']} |" in card
    assert f"learned from {JUDGED} buildings that people judged" in card and tags["network"] in card
    assert held == tree(afternoon.folder / "network") | {
        name: own for name, own in tree(registered.out).items() if name in MODEL_FILES
    }
    run = client.get_run(str(client.get_model_version(EVENTS, str(registered.number)).run_id))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["damaged"] == pytest.approx(row["total"])
    domain = json.loads((afternoon.made.folder / "summary.json").read_text(encoding="utf-8"))["scene"]["domain"]
    assert tags["imagery"] == domain["said"]
    for name in ("features", "colours"):
        assert run.data.metrics[f"distance_in_{name}"] == pytest.approx(domain[name]["distance"])
        assert run.data.metrics[f"usual_distance_in_{name}"] == pytest.approx(domain[name]["usual"])
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert names >= {"model", "assessment.html", "assessment.json", "estimates.csv"}


def test_promotion_moves_the_alias_of_the_event_and_nothing_else(registered: Registered, client: MlflowClient) -> None:
    model = client.get_registered_model(EVENTS)
    assert int(model.aliases["event-palu"]) == registered.number
    (decision,) = decisions(client, EVENTS, registered.number)
    assert (decision["alias"], decision["verdict"], decision["previous"]) == ("event-palu", "moving", None)
    tags = client.get_model_version(EVENTS, str(registered.number)).tags
    assert tags["promotion"].startswith("promoted: cross-validated F1 of the grades on the mean ")
    words: Words = ["--params", registered.params, "--model", EVENTS, "--version", str(registered.number)]
    for to in ("production", "event-lombok"):
        assert f"--to: found {to}, expected event-palu" in exit_line(promote.main, *words, "--to", to)
    assert client.get_registered_model(EVENTS).aliases == model.aliases


def test_predict_grades_as_assess_did_where_nobody_judged(
    afternoon: Afternoon, registered: Registered, again: Path
) -> None:
    base, assessed, found = buildings(afternoon.made.folder), buildings(registered.out), buildings(again)
    free = assessed["judged"].isna()
    assert free.sum() == len(found) - JUDGED > 100
    assert found["grade"][free].tolist() == assessed["grade"][free].tolist()
    np.testing.assert_allclose(found["confidence"][free], assessed["confidence"][free], atol=1e-4)
    assert found["base_grade"].tolist() == base["grade"].tolist()
    assert (found["grade"] != found["base_grade"]).sum() > 20
    names = ["no-damage", "minor-damage", "major-damage", "destroyed"]
    assert found["damage"].tolist() == [names[grade - 1] for grade in found["grade"]]
    made, before = tree(again), tree(afternoon.made.folder)
    assert made["damage.tif"] == before["damage.tif"]
    first, second = (pd.read_parquet(folder / "features.parquet") for folder in (afternoon.made.folder, again))
    assert second["confidence"].tolist() == found["confidence"].tolist()
    pd.testing.assert_frame_equal(first.drop(columns="confidence"), second.drop(columns="confidence"))


def test_a_map_says_which_event_model_graded_it(registered: Registered, again: Path) -> None:
    said = (
        f"buildings graded by the model of the event palu, learned from {JUDGED} judgements "
        f"({EVENTS}/{registered.number})"
    )
    assert facts(again)["event"] == {
        "said": said, "name": "palu", "version": f"{EVENTS}/{registered.number}", "judged": JUDGED,
        "base": f"models:/{NETWORK}/1",
    }  # fmt: skip
    assert said in (again / "report.html").read_text(encoding="utf-8")
    summary = json.loads((again / "summary.json").read_text(encoding="utf-8"))["total"]
    assert summary["buildings_destroyed"] == (buildings(again)["grade"] == 4).sum()


def test_a_folder_of_assess_grades_too_over_the_network_that_it_names(
    afternoon: Afternoon, registered: Registered, again: Path, tmp_path: Path
) -> None:
    make_map(afternoon.folder, registered.out, tmp_path / "out")
    assert buildings(tmp_path / "out")["grade"].tolist() == buildings(again)["grade"].tolist()
    assert "not registered" in str(facts(tmp_path / "out")["event"])


def test_the_same_judgements_are_registered_once(
    afternoon: Afternoon, registered: Registered, client: MlflowClient, tmp_path: Path, capsys: Any
) -> None:
    copy = tmp_path / "copy.geojson"
    shutil.copy(afternoon.judgements, copy)
    assess_map(afternoon, tmp_path / "out", "--event", "palu", judgements=copy)
    assert f"{EVENTS} version {registered.number} is this model, of these judgements" in capsys.readouterr().out
    assert len(versions(client, "palu")) == 1


def test_a_registration_that_broke_off_is_gone_on_with(
    registered: Registered, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessed = renamed(registered.out, tmp_path / "out", "broken")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_see_to_model", fail)
        with pytest.raises(KeyboardInterrupt):
            register_event(assessed, None)
    assert versions(client, "broken") == []
    own = register_event(assessed, None).tags["content_hash"]
    assert len(versions(client, "broken")) == 1
    experiment = client.get_experiment_by_name(EVENTS)
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id], f"tags.content_hash = '{own}'")) == 1


def renamed(assessed: Path, to: Path, event: str) -> Path:
    """The same assessed map, of an event of another name."""
    shutil.copytree(assessed, to)
    for name in ("assessment.json", MODEL_FILES[0]):
        text = (to / name).read_text(encoding="utf-8")
        (to / name).write_text(text.replace('"event": "palu"', f'"event": "{event}"'), encoding="utf-8")
    return to


def fail(name: str) -> None:
    raise KeyboardInterrupt


def test_without_a_name_and_where_the_map_keeps_its_grades_nothing_is_registered(
    afternoon: Afternoon, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(client.search_model_versions(f"name = '{EVENTS}'"))
    right = {int(row): 1 for row in afternoon.made.draw.order}
    same = write_judgements(tmp_path / "same.geojson", afternoon.made, range(30), given=right)
    assess_map(afternoon, tmp_path / "out", "--event", "same", judgements=same)
    assert "nothing is registered, as no model of the event gives the grades" in capsys.readouterr().out
    assess_map(
        afternoon, tmp_path / "out", judgements=write_judgements(tmp_path / "few.geojson", afternoon.made, range(60))
    )
    assert (tmp_path / "out" / MODEL_FILES[0]).exists()
    assert len(client.search_model_versions(f"name = '{EVENTS}'")) == before


def test_a_map_of_the_events_model_can_be_judged_and_assessed_too(
    afternoon: Afternoon, registered: Registered, again: Path, tmp_path: Path
) -> None:
    made = afternoon.made._replace(folder=again, draw=read_draw(again / "judge.json"))
    mine = write_judgements(tmp_path / "mine.geojson", made, range(60))
    assess_map(afternoon._replace(made=made), tmp_path / "out", judgements=mine)
    content = json.loads((tmp_path / "out" / "assessment.json").read_text(encoding="utf-8"))
    assert content["base"] == f"models:/{NETWORK}/1"
    rows = made.draw.order[:60]
    right = buildings(again)["grade"].to_numpy()[rows] == made.truth[rows]
    weights = (np.bincount(made.draw.strata) / np.bincount(made.draw.strata[:60]))[made.draw.strata[:60]]
    assert content["adapting"]["before"]["right"] == pytest.approx(weights @ right / weights.sum())
    assert buildings(tmp_path / "out")["damage_base_grade"].tolist() == buildings(again)["grade"].tolist()


def test_what_an_events_model_cannot_do_is_one_line(
    afternoon: Afternoon, registered: Registered, tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(encode_png(noise(32, 32).transpose(1, 2, 0)))
    model = f"models:/{EVENTS}@event-palu"
    words: Words = ["--model", model, "--out", tmp_path / "out"]
    line = exit_line(predict.main, *words, "--pre", image, "--post", image)
    assert f"--model {model}: grades the buildings of a map by the model of an event, found plain images" in line
    assert line.endswith(f"or the network alone: models:/{NETWORK}/1.")
    tifs: Words = ["--pre", afternoon.folder / "pre.tif", "--post", afternoon.folder / "post.tif"]
    line = exit_line(predict.main, *words, *tifs, "--no-features")
    assert "--no-features: is not used with an event's model that reads the features" in line
    with pytest.raises(TrackingError, match="is the model of an event, which grades the buildings of GeoTIFFs"):
        serving.serve(model, "127.0.0.1", 0, 1, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["Palu", "palu_2018", "-palu", "palu--2018", "a" * 61])
def test_a_name_that_is_none_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    words: Words = ["--map", tmp_path, "--judgements", tmp_path, "--out", tmp_path / "out", f"--event={name}"]
    assert exit_line(assess.main, *words).startswith("EventError: --event: found '")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_away_is_noticed_before_any_work(afternoon: Afternoon, tmp_path: Path) -> None:
    words: Words = ["--map", afternoon.made.folder, "--judgements", afternoon.judgements, "--out", tmp_path / "out"]
    with using("http://127.0.0.1:1"):
        assert "MLflow does not answer there" in exit_line(assess.main, *words, "--event", "away")
    assert list(tmp_path.iterdir()) == []


def test_another_network_than_the_maps_is_refused_and_the_results_stay(
    afternoon: Afternoon, registered: Registered, model: Path, client: MlflowClient, tmp_path: Path
) -> None:
    few = write_judgements(tmp_path / "few.geojson", afternoon.made, range(60))
    words: Words = ["--map", afternoon.made.folder, "--judgements", few, "--out", tmp_path / "out"]
    line = exit_line(assess.main, *words, "--event", "odd", "--model", model)
    assert line.startswith(f"EventError: {model}: found the network {identity_of(model)[:12]}, expected ")
    assert (tmp_path / "out" / "assessment.html").exists()
    assert versions(client, "odd") == []
    moved = renamed(registered.out, tmp_path / "moved", "moved")
    with pytest.raises(EventError, match="gone: has no network, expected that which made the map"):
        register_event(moved, tmp_path / "gone")
    register_event(moved, afternoon.folder / "network")
    earlier = renamed(registered.out, tmp_path / "earlier", "earlier")
    content = json.loads((earlier / "assessment.json").read_text(encoding="utf-8"))
    (earlier / "assessment.json").write_text(json.dumps(content | {"base": None}), encoding="utf-8")
    with pytest.raises(EventError, match="--model: is missing, expected the location of the model that made the map"):
        register_event(earlier, None)
    assert versions(client, "moved")[0].tags["base"] == str(afternoon.folder / "network")


def without_form(folder: Path) -> None:
    (folder / MODEL_FILES[0]).unlink()


def truncated(folder: Path) -> None:
    path = folder / MODEL_FILES[1]
    path.write_bytes(path.read_bytes()[:100])


def of_another_network(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")


def without_about(folder: Path) -> None:
    path = folder / MODEL_FILES[0]
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["about"]["worth"]
    path.write_text(json.dumps(content), encoding="utf-8")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (without_form, f"/{MODEL_FILES[0]}: cannot be read (No such file or directory)"),
        (truncated, f"/{MODEL_FILES[1]}: cannot be read ("),
        (without_about, f"/{MODEL_FILES[0]}: about.worth: field required."),
        (of_another_network, ": found the network "),
        (without_weights, "/model.safetensors: cannot be read (No such file or directory)"),
    ],
)
def test_a_damaged_version_is_one_line_that_names_it(
    damage: Callable[[Path], None], finding: str, afternoon: Afternoon, registered: Registered, client: MlflowClient,
    tmp_path: Path,
) -> None:  # fmt: skip
    files = files_of(client, registered.number)
    shutil.copytree(files, tmp_path / "kept")
    words: Words = ["--pre", afternoon.folder / "pre.tif", "--post", afternoon.folder / "post.tif", "--align", "off"]
    try:
        damage(files)
        line = exit_line(predict.main, "--model", f"models:/{EVENTS}@event-palu", *words, "--out", tmp_path / "out")
    finally:
        shutil.rmtree(files)
        shutil.copytree(tmp_path / "kept", files)
    where = "@event-palu" if damage is of_another_network else f"/{registered.number}"
    assert f"models:/{EVENTS}{where}{finding}" in line
    assert not (tmp_path / "out").exists()


def test_a_version_outlives_the_network_it_was_made_of_and_a_folder_says_what_is_missing(
    afternoon: Afternoon, registered: Registered, again: Path, client: MlflowClient, tmp_path: Path
) -> None:
    client.delete_registered_model(NETWORK)
    try:
        make_map(afternoon.folder, f"models:/{EVENTS}@event-palu", tmp_path / "out")
        assert buildings(tmp_path / "out")["grade"].tolist() == buildings(again)["grade"].tolist()
        words: Words = [
            "--pre",
            afternoon.folder / "pre.tif",
            "--post",
            afternoon.folder / "post.tif",
            "--align",
            "off",
        ]
        line = exit_line(predict.main, "--model", registered.out, *words, "--out", tmp_path / "none")
        assert f"{MODEL_FILES[0]}: was learned over the network of models:/{NETWORK}/1, which cannot be had (" in line
        assert line.endswith("Bring it back, or lay its config.json and model.safetensors beside this file.")
        shutil.copytree(registered.out, tmp_path / "both")
        shutil.copytree(afternoon.folder / "network", tmp_path / "both", dirs_exist_ok=True)
        make_map(afternoon.folder, tmp_path / "both", tmp_path / "out")
        assert buildings(tmp_path / "out")["grade"].tolist() == buildings(again)["grade"].tolist()
    finally:
        registry.register_files(NETWORK, afternoon.folder / "network", [], {registry.CONTENT_HASH: "network"}, {})

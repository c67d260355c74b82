"""Which recipes a run is said to follow."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from components.params import load_params
from components.tracking.recipe import recipe_of
from model.networks.by_name import NETWORKS
from tests.paths import ROOT
from tests.tiny_network import Tiny

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_known_by_its_training(recipe: Path) -> None:
    params = load_params(ROOT / "params.yaml", recipe)
    has_training = "train" in yaml.safe_load(recipe.read_text(encoding="utf-8"))
    known = recipe.stem if has_training else "none"
    assert recipe_of(params) == known
    other = params.evaluate.model_copy(update={"pictures": 17})  # training stays the same
    assert recipe_of(params.model_copy(update={"evaluate": other})) == known
    changed = dataclasses.replace(params.train, epochs=3, damage_focus=0.25)  # of which each recipe says one
    assert recipe_of(params.model_copy(update={"train": changed})) == "none"
    assert recipe_of(load_params(ROOT / "params.yaml")) == "none"


@pytest.mark.parametrize(
    ("recipes", "known"),
    [
        ("base mine", "base+mine"),  # mine says other epochs, and base the rest
        ("mine base", "base"),  # nothing is left of mine
        ("base apart", "apart+base"),
        ("base apart mine", "apart+base+mine"),
        ("apart", "apart"),
        ("over", "over"),  # which says all that its base says
        ("base over", "over"),
        ("over apart", "apart+over"),
    ],
)
def test_of_several_recipes_all_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipes: str, known: str
) -> None:
    monkeypatch.setattr("components.params.RECIPES", tmp_path)
    contents = {"base": "{epochs: 3, patience: 2}", "mine": "{epochs: 4}", "apart": "{seed: 17}"}
    for name, train in contents.items():
        (tmp_path / f"{name}.yaml").write_text(f"train: {train}\n", encoding="utf-8")
    (tmp_path / "over.yaml").write_text("over: base\ntrain: {misalignment: 5}\n", encoding="utf-8")
    given = [tmp_path / f"{name}.yaml" for name in recipes.split()]
    assert recipe_of(load_params(ROOT / "params.yaml", *given)) == known


def test_a_recipe_of_another_network_is_known_by_its_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    monkeypatch.setattr("components.params.RECIPES", tmp_path)
    for name, network in (
        ("a_usual", "{width: 16}"),
        ("b_tiny", "{name: tiny}"),
        ("c_tiny", "{name: tiny, channels: 3}"),
    ):
        (tmp_path / f"{name}.yaml").write_text(f"train: {{network: {network}}}\n", encoding="utf-8")
        params = load_params(ROOT / "params.yaml", tmp_path / f"{name}.yaml")
        assert recipe_of(params) == name


def test_a_recipe_that_cannot_be_read_stops_no_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("components.params.RECIPES", tmp_path)
    (tmp_path / "mine.yaml").write_text("train: {epochs: 4}\n", encoding="utf-8")
    (tmp_path / "half.yaml").write_text("train: {epochs\n", encoding="utf-8")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / ".#mine.yaml").symlink_to("me@host.1:2")  # while an editor has the file open
    assert recipe_of(load_params(ROOT / "params.yaml", tmp_path / "mine.yaml")) == "mine"
    told = capsys.readouterr().out.splitlines()
    assert [line.split(f": {tmp_path}")[0] for line in told] == ["recipe half is left out", "recipe loop is left out"]

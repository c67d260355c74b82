"""params.yaml and its recipes: what loads, what the paper's recipe says, and what is refused under which name."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.params import Params, ParamsError, load_params
from model.networks.by_name import NETWORKS
from model.settings import AugmentationSettings
from tests.commands import exit_line
from tests.paths import ROOT
from tests.tiny import write_params
from tests.tiny_network import Tiny

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_the_defaults_load() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.data.root == "data/sample"
    assert params.evaluate.unclassified_as == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_every_recipe_loads_over_the_defaults(recipe: Path) -> None:
    load_params(ROOT / "params.yaml", recipe)


def test_the_recipe_of_the_paper_holds_its_numbers() -> None:
    params = load_params(ROOT / "params.yaml", ROOT / "recipes" / "paper.yaml")
    train, network = params.train, params.train.network
    assert (network.width, network.stem_width, network.stage1_width) == (32, 64, 64)
    assert (network.stage1_blocks, list(network.modules), network.blocks) == (4, [1, 4, 3], 4)
    assert network.batch_norm_momentum == 0.01
    assert (train.epochs, train.global_batch_size, train.crop_size) == (250, 32, 512)
    assert (train.learning_rate, train.momentum, train.weight_decay) == (0.01, 0.9, 0.0005)
    assert (train.poly_power, list(train.scale)) == (0.9, [0.8, 1.2])
    assert (train.damage_weight, train.class_weights) == (1.0, None)
    assert (train.optimizer, train.damage_cross_entropy) == ("sgd", 0)
    assert (train.damage_focus, train.misalignment) == (0, 0)
    assert train.augmentation == AugmentationSettings(geometry="paper", photometry="none")


def test_a_recipe_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {network: {width: 5}, seed: 7}\npromote: {tolerance: 0.5}\n", encoding="utf-8")
    base = load_params(ROOT / "params.yaml").model_dump(by_alias=True)
    merged = load_params(ROOT / "params.yaml", recipe).model_dump(by_alias=True)
    base["train"]["network"]["width"] = 5
    base["train"]["seed"] = 7
    base["promote"]["tolerance"] = 0.5
    assert merged == base


def test_a_recipe_over_another_is_both(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("over: best\ntrain: {epochs: 3, network: {blocks: 2}}\n", encoding="utf-8")
    found = load_params(ROOT / "params.yaml", mine)
    paper = load_params(ROOT / "params.yaml", ROOT / "recipes" / "paper.yaml")
    train = dataclasses.replace(
        paper.train,
        logit_adjustment=1.0,
        epochs=3,
        network=dataclasses.replace(paper.train.network, blocks=2),
    )
    assert found == paper.model_copy(update={"train": train})


@pytest.mark.parametrize("over", ["papre", "[paper]", "../recipes/paper", "null", "circle", "other"])
def test_a_recipe_over_none_or_over_itself_is_refused(
    over: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.params.RECIPES", tmp_path)
    for name, content in {"circle": f"over: {over}", "other": "over: circle", "paper": "train: {epochs: 3}"}.items():
        (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(ROOT / "params.yaml", tmp_path / "circle.yaml")
    wrong = "other" if over == "other" else "circle"
    found = {
        "[paper]": "['paper']",
        "null": "None",
        "circle": "'circle' and so a circle, circle, over circle",
        "other": "'circle' and so a circle, circle, over other, over circle",
    }.get(over, f"'{over}'")
    assert str(caught.value) == (
        f"{tmp_path / wrong}.yaml: over: found {found}, expected the name of another recipe; of "
        f"{tmp_path.name}/NAME.yaml there are circle, other, paper. Correct it."
    )


def test_a_list_in_a_recipe_replaces_the_list(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("evaluate: {splits: [hold]}\n", encoding="utf-8")
    assert load_params(ROOT / "params.yaml", recipe).evaluate.splits == ["hold"]


def test_a_pipeline_in_a_recipe_replaces_the_pipeline(tmp_path: Path) -> None:
    for name, more in (("one", {"p": 0.1}), ("other", {})):
        pipeline = {"transform": {"__class_fullname__": "Compose", "transforms": [], **more}}
        recipe = {"train": {"augmentation": {"geometry": pipeline}}}
        (tmp_path / name).write_text(json.dumps(recipe), encoding="utf-8")
    augmentation = load_params(ROOT / "params.yaml", tmp_path / "one", tmp_path / "other").train.augmentation
    assert augmentation == AugmentationSettings(geometry=pipeline, photometry="none")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown section": ({"servings": {}}, "servings: is not a parameter"),
    "unknown in data": ({"data": {"rot": 1}}, "data.rot: is not a parameter"),
    "unknown in sample": ({"sample": {"sizes": 1}}, "sample.sizes: is not a parameter"),
    "unknown in prepare": ({"prepare": {"share": 0.1}}, "prepare.share: is not a parameter"),
    "unknown in train": ({"train": {"learning_rat": 0.1}}, "train.learning_rat: is not a parameter"),
    "unknown in network": ({"train": {"network": {"widht": 8}}}, "train.network.widht: is not a parameter"),
    "unknown in evaluate": ({"evaluate": {"split": "test"}}, "evaluate.split: is not a parameter"),
    "unknown in register": ({"register": {"names": "a"}}, "register.names: is not a parameter"),
    "unknown in promote": ({"promote": {"minimum": 0.1}}, "promote.minimum: is not a parameter"),
    "unknown in tracking": ({"tracking": {"uri": "a"}}, "tracking.uri: is not a parameter"),
    "text for a number": ({"train": {"epochs": "12"}}, "train.epochs: found '12'"),
    "fraction for a count": ({"train": {"epochs": 1.5}}, "train.epochs: found 1.5"),
    "truth for a count": ({"train": {"epochs": True}}, "train.epochs: found True"),
    "null for a number": ({"train": {"learning_rate": None}}, "train.learning_rate: found None"),
    "number for a name": ({"register": {"name": 3}}, "register.name: found 3"),
    "number for a section": ({"train": 3}, "train: found 3"),
    "text for a list": ({"prepare": {"exclude": "a"}}, "prepare.exclude: found 'a'"),
    "text in a list of numbers": ({"train": {"scale": [0.8, "x"]}}, "train.scale.1: found 'x'"),
    "no epoch": ({"train": {"epochs": 0}}, "train.epochs: found 0"),
    "rate of zero": ({"train": {"learning_rate": 0.0}}, "train.learning_rate: found 0.0"),
    "rate that is no number": ({"train": {"learning_rate": float("nan")}}, "train.learning_rate"),
    "momentum of one": ({"train": {"momentum": 1.0}}, "train.momentum: found 1.0"),
    "three scales": ({"train": {"scale": [0.8, 1.0, 1.2]}}, "train.scale: found"),
    "scale of zero": ({"train": {"scale": [0, 1.2]}}, "train.scale.0: found 0"),
    "focus above one": ({"train": {"damage_focus": 1.1}}, "train.damage_focus: found 1.1"),
    "negative focus": ({"train": {"damage_focus": -0.1}}, "train.damage_focus: found -0.1"),
    "unknown preset": ({"train": {"augmentation": {"geometry": "big"}}}, "train.augmentation.geometry: found 'big'"),
    "a preset alone": ({"train": {"augmentation": "paper"}}, "train.augmentation: found 'paper'"),
    "negative misalignment": ({"train": {"misalignment": -1}}, "train.misalignment: found -1"),
    "half a pixel": ({"train": {"misalignment": 0.5}}, "train.misalignment: found 0.5"),
    "crop below the network's stride": ({"train": {"crop_size": 16}}, "train.crop_size: found 16"),
    "crop that is no multiple of 32": ({"train": {"crop_size": 100}}, "train.crop_size: found 100"),
    "three weights": ({"train": {"class_weights": [1, 1, 1]}}, "train.class_weights: found"),
    "width of zero": ({"train": {"network": {"width": 0}}}, "train.network.width: found 0"),
    "two stages": ({"train": {"network": {"modules": [1, 1]}}}, "train.network.modules: found"),
    "unknown stem": ({"train": {"network": {"stem_order": "x"}}}, "train.network.stem_order: found 'x'"),
    "share of one": ({"prepare": {"validation_share": 1}}, "prepare.validation_share: found 1"),
    "unknown split": ({"evaluate": {"splits": ["tier3"]}}, "evaluate.splits.0: found 'tier3'"),
    "no split": ({"evaluate": {"splits": []}}, "evaluate.splits: found []"),
    "un-classified as 5": ({"evaluate": {"unclassified_as": 5}}, "evaluate.unclassified_as"),
    "un-classified as text": ({"evaluate": {"unclassified_as": "skip"}}, "evaluate.unclassified_as"),
    "score above one": ({"promote": {"minimum_score": 1.1}}, "promote.minimum_score: found 1.1"),
    "negative tolerance": ({"promote": {"tolerance": -0.1}}, "promote.tolerance: found -0.1"),
    "empty name": ({"register": {"name": ""}}, "register.name: found ''"),
    "name that MLflow refuses": ({"register": {"name": "team/model"}}, "register.name: found 'team/model'"),
    "empty root": ({"data": {"root": ""}}, "data.root: found ''"),
    "sample too small": ({"sample": {"size": 8}}, "sample.size: found 8"),
}


@pytest.mark.parametrize(("override", "finding"), BAD.values(), ids=BAD)
def test_a_bad_parameter_is_named_with_its_sections(tmp_path: Path, override: dict[str, Any], finding: str) -> None:
    path = write_params(tmp_path / "params.yaml", override)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: ")
    # A name stands alone: "train.scale" must not be found in "train.scale.0" by chance, nor in another's message.
    assert f": {finding}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train", "train.epochs", "promote.tolerance", "train.network", "register"])
def test_a_missing_parameter_is_named(tmp_path: Path, name: str) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    *sections, last = name.split(".")
    parent = content
    for section in sections:
        parent = parent[section]
    del parent[last]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert f": {name}: is missing" in str(caught.value)


def test_all_problems_are_named_at_once_and_the_recipe_with_them(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train: {epochs: 0, seeds: 1}\npromote: {tolerance: 2}\n", encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(ROOT / "params.yaml", recipe)
    for part in (str(recipe), "train.epochs", "train.seeds", "promote.tolerance"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"train: [1, 2", "is not YAML"),
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0). Save it as UTF-8"),
        (b"- a\n- b\n", "holds list"),
        (b"", "is empty"),
        (b"just text", "holds str"),
        (b"train: 2020-01-01\n", "train: found"),
        (b"train: {seed: 1, seed: 2}", "found the key seed twice"),
        (b"train: {? [1] : 2}", "found a key that is no text"),
        (b"train: {weight_decay: .inf}", "train.weight_decay: found inf, expected a finite number"),
        (b"train: {seed: 9007199254740993}", "train.seed: found 9007199254740993, expected a whole number of at most"),
        (b"tracking: {experiment: !!binary AAAA}", "is not YAML"),
        (b"train: {seed: !!int x}", "is not YAML"),
        (b"train: {seed: !!int ''}", "is not YAML"),
        (b"train: {scale: [0." + b"9:00" * 400 + b".5]}", "train.scale.0"),
        (b"train: {damage_focus: 1:" + b"00:" * 500 + b"00.5}", "is not YAML"),
        (b"train: &a {network: *a}", "within each other"),
        (b"a: [" + b"[" * 1000, "is not YAML"),
        (b'tracking: {experiment: "\\ud800"}', r"tracking.experiment: found '\ud800', expected text without"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_is_no_parameter_file_is_named(tmp_path: Path, content: bytes, finding: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_few_lines_of_aliases_that_mean_a_billion_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    grown = [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 10)]
    path.write_text("a0: &a0 [1]\n" + "\n".join(grown), encoding="utf-8")
    with pytest.raises(ParamsError, match="holds more than"):
        load_params(path)


@pytest.mark.parametrize("spelled", ["1e-05", "1e-5", "1E-5", "1.0e-5", "0.00001", "+1.e-5"])
def test_a_small_number_is_a_number_however_it_is_spelled(spelled: str, tmp_path: Path) -> None:
    """Python writes it as 1e-05, which YAML 1.1 takes for text."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"train: {{weight_decay: {spelled}}}", encoding="utf-8")
    params = load_params(ROOT / "params.yaml", recipe)
    assert params.train.weight_decay == 1e-5
    assert load_params(params.model_dump_json(by_alias=True)) == params
    assert load_params(json.dumps(params.model_dump(mode="json", by_alias=True))) == params


def test_names_that_yaml_has_a_meaning_for_stay_names(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("cluster: {environment: {NO: a, ON: b}}\nprepare: {exclude: [2020-01-01]}", encoding="utf-8")
    params = load_params(ROOT / "params.yaml", recipe)
    assert params.cluster.environment == {"NCCL_DEBUG": "WARN", "NO": "a", "ON": "b"}
    assert params.prepare.exclude == ["2020-01-01"]


@pytest.mark.parametrize("which", ["params", "recipe"])
def test_a_missing_file_is_named(tmp_path: Path, which: str) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(ParamsError, match="cannot be read") as caught:
        load_params(*((missing,) if which == "params" else (ROOT / "params.yaml", missing)))
    assert str(missing) in str(caught.value)


def test_every_section_and_parameter_of_the_schema_stands_in_params_yaml() -> None:
    """No default is written twice: what the file leaves out would come from the code."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert load_params(ROOT / "params.yaml").model_dump(mode="json", by_alias=True) == content
    assert set(content) == {field.alias or name for name, field in Params.model_fields.items()}


def test_a_recipe_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        load_params(ROOT / "params.yaml", tmp_path / "papre.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'papre.yaml'}: cannot be read (No such file or directory). Give the path of a recipe; "
        "of recipes/NAME.yaml there are best, cpu, new-events, paper, small."
    )


WITHOUT_PARAMS = {
    "components.sample": "--out x",
    "components.prepare": "--raw x --out x",
    "components.train": "--data x --out x",
    "components.evaluate": "--data x --model x --out x",
    "components.register": "--model x --metrics x --run x --out x",
    "components.promote": "--dry-run",
    "components.deliver": "--map x --out x",
    "components.cluster.command": "--name x --image x --data x --out x --dry-run",
    "components.cluster.readiness.__main__": "",
    "pipeline": "compile --out graph.yaml",
}


@pytest.mark.parametrize(("module", "others"), WITHOUT_PARAMS.items(), ids=WITHOUT_PARAMS)
def test_empty_params_of_any_command_are_one_line(
    module: str, others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = exit_line(importlib.import_module(module).main, *others.split(), "--params", "")
    assert line == (
        "ParamsError: --params: is empty, expected the path of a parameter file, or its content as JSON. Give one."
    )
    assert list(tmp_path.iterdir()) == []


def test_every_command_that_takes_parameters_is_asked() -> None:
    takers = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "components").rglob("*.py")
        if "step_parser(" in path.read_text(encoding="utf-8")
    }
    assert (takers - {"components.cli"}) | {"pipeline"} == set(WITHOUT_PARAMS)


@pytest.mark.parametrize(("crop", "batch", "runs"), [(32, 1, False), (32, 2, True), (64, 1, True)])
def test_crops_that_leave_one_value_to_norm_are_refused_when_read(
    crop: int, batch: int, runs: bool, tmp_path: Path
) -> None:
    path = write_params(tmp_path / "params.yaml", {"train": {"crop_size": crop, "device_batch_size": batch}})
    if runs:
        assert load_params(path).train.crop_size == crop
        return
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(caught.value) == (
        f"{path}: train.crop_size: found 32: with train.device_batch_size 1, batch norm would be over one value of "
        "each channel; expected a crop of 64 or more, or a device_batch_size of 2 or more."
    )


def test_a_network_without_such_a_bound_takes_small_crops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    train = {"crop_size": 32, "device_batch_size": 1}
    content = yaml.safe_load(write_params(tmp_path / "params.yaml", {"train": train}).read_text(encoding="utf-8"))
    content["train"]["network"] = {"name": "tiny"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").train.crop_size == 32

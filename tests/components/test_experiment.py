"""An experiment by a recipe: DVC runs it with exactly what params.yaml and the recipe give, whatever stands in them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.params import Params, load_params, main
from model.networks.by_name import NETWORKS
from tests.commands import environment, exit_line
from tests.paths import ROOT
from tests.repository import commit, dvc
from tests.tiny_network import Tiny

SECTIONS = [field.alias or name for name, field in Params.model_fields.items()]
# Spaces, commas, quotes, `=`, `$`, braces, and texts that are none where they stand bare.
TEXTS = [
    "a b, c=d",
    """it's "quoted" `so`""",
    "${HOME} $HOME {x: [1, 2]} ${data.root}",
    "back\\slash\ttab\nline",
    "off",
    "1e5",
    "null",
    "???",
    "",
    "~x,+y,!z # é",
]
MADE: dict[str, dict[str, Any]] = {
    "another network": {"train": {"network": {"name": "tiny", "channels": 6}, "pretrained": None}},
    "open mappings": {
        "cluster": {
            "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4", "123": "x", "true": "y, z"},
            "environment": {f"VARIABLE_{number}": text for number, text in enumerate(TEXTS)},
            "tolerations": [{"key": text, "operator": "Exists"} for text in TEXTS if text],
        },
        "prepare": {"exclude": TEXTS},
        "register": {"name": "the model's name, {new}=$1"},
    },
    "nothing": {
        "promote": {"grade_tolerance": None},
        "prepare": {"exclude": []},
        "cluster": {"device_resource": None, "node_selector": {}, "environment": {}},
        "train": {"class_weights": None, "network": {}},
        "data": {},
    },
}
RECIPES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "recipes").glob("*.yaml"))} | MADE


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository with our parameters and one stage, which depends on all of them and keeps what it saw."""
    folder = tmp_path_factory.mktemp("committed")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    stage = {
        "cmd": "echo ${data.root} && sh stage.sh && cp params.yaml seen.yaml",
        "params": SECTIONS,
        "deps": ["stage.sh"],
        "outs": [{"seen.yaml": {"cache": False}}],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": stage}}), encoding="utf-8")
    (folder / "stage.sh").write_text("true\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    dvc(folder, "init", "--quiet")
    commit(folder)
    return folder


@pytest.fixture
def repository(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory. A network named tiny is registered."""
    folder = shutil.copytree(committed, tmp_path / "repository", symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("os.environ", environment())
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    return folder


def experiment(recipe: Path, *more: str) -> int:
    """Exit status of the command."""
    with pytest.raises(SystemExit) as caught:
        main(["--recipe", str(recipe), *more])
    assert isinstance(caught.value.code, int), caught.value.code
    return caught.value.code


class Quoting(yaml.SafeDumper):
    """Puts quotes around texts that YAML 1.2 would take for numbers."""


Quoting.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("0123456789")
)


def write_recipe(folder: Path, content: Any) -> Path:
    """A recipe beside the repository, which stays clean."""
    path = folder.parent / "recipe.yaml"
    path.write_text(yaml.dump(content, Dumper=Quoting), encoding="utf-8")
    return path


def laid_over(base: Any, over: Any, key: str = "") -> Any:
    """The merge, once more: mappings key by key, but for a network with a name, which is another one."""
    if not (isinstance(base, dict) and isinstance(over, dict)) or (key == "network" and "name" in over):
        return over
    return base | {name: laid_over(base.get(name), value, name) for name, value in over.items()}


def shown_params(folder: Path) -> dict[str, Any]:
    """The parameters of each experiment, run or queued, and of the workspace, as `dvc exp show` has them."""
    shown = json.loads(dvc(folder, "exp", "show", "--json"))
    of_experiments = [entry["revs"][0] for commit in shown for entry in commit["experiments"] or []]
    return {
        entry.get("name") or entry["rev"]: entry["data"]["params"]["params.yaml"]["data"]
        for entry in [*shown, *of_experiments]
    }


@pytest.mark.endurance
@pytest.mark.parametrize("name", RECIPES)
def test_stages_and_dvc_see_exactly_what_the_file_and_the_recipe_give(repository: Path, name: str) -> None:
    recipe = write_recipe(repository, RECIPES[name])
    given = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    below = RECIPES.get(RECIPES[name].get("over"), {})
    over = {section: value for section, value in RECIPES[name].items() if section != "over"}
    content = laid_over(laid_over(given, below), over)
    expected = load_params(repository / "params.yaml", recipe)
    assert experiment(recipe, "--name", "mine") == 0
    assert yaml.safe_load((repository / "seen.yaml").read_text(encoding="utf-8")) == content
    assert load_params(repository / "seen.yaml") == expected
    shown = shown_params(repository)
    assert shown["mine"] == shown["workspace"] == content
    # In the end the working tree is that of the experiment.
    assert (repository / "params.yaml").read_bytes() == (repository / "seen.yaml").read_bytes()


def test_comments_of_params_yaml_stay(repository: Path) -> None:
    assert experiment(ROOT / "recipes" / "paper.yaml") == 0
    before, after = ((folder / "params.yaml").read_text(encoding="utf-8") for folder in (ROOT, repository))
    assert len(before.splitlines()) == len(after.splitlines())
    for old, new in zip(before.splitlines(), after.splitlines(), strict=True):
        assert old.partition("#")[2] == new.partition("#")[2]


def test_edits_of_params_yaml_are_part_of_the_experiment_and_more_is_set_over_the_recipe(repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("pictures: 4", "pictures: 5"), encoding="utf-8")
    recipe = write_recipe(repository, {"train": {"seed": 7, "epochs": 3}})
    assert experiment(recipe, "--name", "mine", "--set-param", "train.seed=17") == 0
    changed = json.loads(dvc(repository, "params", "diff", "--json"))["params.yaml"]
    assert {name: change["new"] for name, change in changed.items()} == {
        "evaluate.pictures": 5,
        "train.epochs": 3,
        "train.seed": 17,
    }
    seen = load_params(repository / "seen.yaml")
    assert (seen.evaluate.pictures, seen.train.epochs, seen.train.seed) == (5, 3, 17)
    assert shown_params(repository)["mine"]["train"]["seed"] == 17


@pytest.mark.endurance
@pytest.mark.parametrize("option", ["--queue", "--temp", "--tem"])
def test_an_experiment_that_runs_elsewhere_leaves_the_working_tree_alone(repository: Path, option: str) -> None:
    recipe = write_recipe(repository, MADE["open mappings"])
    assert experiment(recipe, option, "--name", "mine") == 0
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert changed.stdout == ""
    assert (repository / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    expected = laid_over(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), MADE["open mappings"])
    assert shown_params(repository)["mine"] == expected


@pytest.mark.endurance
def test_what_is_written_into_params_yaml_while_it_runs_elsewhere_stays(repository: Path) -> None:
    path = repository / "params.yaml"
    (repository / "stage.sh").write_text(f"echo '# mine' >> {path}\n", encoding="utf-8")
    assert experiment(write_recipe(repository, {"train": {"seed": 7}}), "--temp") == 0
    assert path.read_text(encoding="utf-8").endswith("# mine\n")


def test_the_command_fails_where_a_stage_fails_and_params_yaml_stays_that_of_the_experiment(repository: Path) -> None:
    (repository / "stage.sh").write_text("false\n", encoding="utf-8")
    assert experiment(write_recipe(repository, {"train": {"seed": 7}})) == 255
    assert load_params(repository / "params.yaml").train.seed == 7


def test_what_dvc_does_not_start_leaves_params_yaml_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(repository, {"train": {"seed": 7}})
    assert experiment(recipe, "--nonsense") == 254
    assert (repository / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    (repository.parent / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(repository.parent)  # no repository of DVC
    assert experiment(recipe) == 253
    assert (repository.parent / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ({"train": {"seeds": 1}}, "train.seeds: is not a parameter. Remove it or correct its spelling."),
        ({"cluster": {"environment": {"A B": "x"}}}, "cluster.environment.A B"),
        ({"train": {"network": {"name": "resnet"}}}, "'resnet' is no network of this project, expected one of"),
        ([], "holds list"),
    ],
    ids=["key", "variable", "network", "list"],
)
def test_a_bad_recipe_is_one_line_with_its_file_and_starts_nothing(
    repository: Path, content: Any, finding: str
) -> None:
    recipe = write_recipe(repository, content)
    line = exit_line(main, "--recipe", recipe)
    assert str(recipe) in line and finding in line
    assert not (repository / "seen.yaml").exists()
    assert (repository / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_a_recipe_that_is_not_there_is_one_line_with_those_that_are(repository: Path) -> None:
    line = exit_line(main, "--recipe", "recipes/papre.yaml")
    assert line == (
        "ParamsError: recipes/papre.yaml: cannot be read (No such file or directory). Give the path of a recipe; of "
        "recipes/NAME.yaml there are best, cpu, new-events, paper, small."
    )

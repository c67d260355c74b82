"""dvc.yaml names the code that a step's result depends on, for both graphs, and this holds it to what the step imports.

The rule: a stage depends on the module of its step and on all that this imports, also inside functions, from base, xbd,
model, imagery and components, and on the pages beside them. What only brings the world, `WORLD`, is not followed: it
decides where data and records go and how parameters are read (their values stand under `params:`). A stage may still
name a part of the world that decides its result. Folders keep the list short, where each folder in them holds
something that the step uses.
"""

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from base.errors import InputError
from components.kubeflow import code_version as versions
from components.kubeflow.code_version import PACKAGES, code_files, code_version
from tests.conftest import ROOT, dvc

WORLD = (
    "components/cli.py",
    "components/params.py",
    "components/cluster/",
    "components/storage/",
    "components/tracking/",
)
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def file_of(module: str) -> str | None:
    """Path of one of our modules; None for packages, whose `__init__.py` holds no code, and for names in a module."""
    path = module.replace(".", "/") + ".py"
    return path if module.split(".")[0] in PACKAGES and (ROOT / path).is_file() else None


def imports_of(node: ast.AST) -> Iterator[str]:
    """Modules that code imports when it runs, wherever the import stands; names in a module may be among them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield str(child.module)
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from imports_of(child)


@cache
def imported(path: str) -> frozenset[str]:
    """Our files that a file imports itself."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(found for module in imports_of(tree) if (found := file_of(module)) is not None)


def reached(step: str, *, world: bool) -> set[str]:
    """The step's module, all that it imports, and the pages beside these. world: with what brings the world."""
    seen: set[str] = set()
    waiting = {f"components/{step}.py"}
    while waiting:
        path = waiting.pop()
        if path not in seen and (world or not path.startswith(WORLD)):
            seen.add(path)
            waiting |= imported(path)
    return seen | {page for folder in {Path(path).parent for path in seen} for page in pages_in(folder)}


def pages_in(folder: Path) -> Iterator[str]:
    """Files that are no Python in folders without Python, which the modules beside them read."""
    for inner in sorted(path for path in (ROOT / folder).iterdir() if path.is_dir()):
        if not list(inner.rglob("*.py")) and inner.name != "__pycache__":
            yield from (path.relative_to(ROOT).as_posix() for path in inner.rglob("*") if path.is_file())


@pytest.mark.parametrize("step", STAGES)
def test_a_stage_depends_on_all_code_that_its_step_imports(step: str) -> None:
    missing = sorted(reached(step, world=False) - set(code_files(step)))
    assert missing == [], f"dvc.yaml: stages.{step}.deps: add {', '.join(missing)}, or the folder where they lie"


@pytest.mark.parametrize("step", STAGES)
def test_a_stage_depends_on_no_code_that_its_step_does_not_use(step: str) -> None:
    used = reached(step, world=True)
    for entry in STAGES[step]["deps"]:
        if entry.split("/")[0] not in PACKAGES:
            continue
        folders = {Path(path).parent.as_posix() for path in code_files(step) if path.startswith(f"{entry}/")}
        for place in [entry] if (ROOT / entry).is_file() else sorted(folders):
            within = [path for path in used if path == place or Path(path).parent.as_posix() == place]
            assert within, f"dvc.yaml: stages.{step}.deps: {entry}: the step uses nothing of {place}, take it out"


def test_packages_hold_no_code_that_an_import_would_run() -> None:
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")):
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        assert [type(statement) for statement in statements] == [ast.Expr], path


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code, which `code_version` reads."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ("model/score.py", ["train", "evaluate"]),
        ("model/train/history.py", ["train"]),
        ("model/settings.py", ["train", "evaluate", "register"]),
        ("model/judge/report.py", ["evaluate"]),
        ("model/judge/pages/page.css", ["evaluate"]),
        ("model/pyfunc.py", ["register"]),
        ("components/tracking/lock.py", ["register"]),
        ("components/tracking/runs.py", []),
        ("imagery/settings.py", []),
        ("xbd/masks.py", ["prepare"]),
        ("xbd/sample/canvas.py", ["sample"]),
        ("base/errors.py", list(STAGES)),
    ],
)
def test_a_change_gives_a_new_version_to_the_steps_that_use_the_file(
    changed: str, steps: list[str], copy: Path
) -> None:
    before = {step: code_version(step) for step in STAGES}
    with (copy / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert [step for step in STAGES if code_version(step) != before[step]] == steps


def test_a_file_that_moves_or_comes_gives_a_new_version_and_a_cache_of_python_does_not(copy: Path) -> None:
    before = code_version("train")
    (copy / "model" / "train" / "__pycache__").mkdir()
    (copy / "model" / "train" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"x")
    assert code_version("train") == before
    (copy / "model" / "train" / "more.py").touch()
    more = code_version("train")
    (copy / "model" / "train" / "more.py").rename(copy / "model" / "train" / "other.py")
    assert len({before, more, code_version("train")}) == 3


def test_dvc_sees_the_same_files(copy: Path) -> None:
    """DVC's own list of what a stage depends on, folders opened."""
    shutil.copy(ROOT / ".dvcignore", copy)
    shutil.copy(ROOT / "params.yaml", copy)
    dvc(copy, "init", "--no-scm", "--quiet")
    for step in ("train", "evaluate"):
        entries = [entry for entry in STAGES[step]["deps"] if entry.split("/")[0] in PACKAGES]
        assert {path for entry in entries for path in listed_by_dvc(copy, entry)} == set(code_files(step))


def listed_by_dvc(repository: Path, entry: str) -> list[str]:
    if (repository / entry).is_file():
        return [entry]
    return [f"{entry}/{line}" for line in dvc(repository, "list", ".", entry, "--recursive").split()]


def test_a_stage_or_a_file_that_is_not_there_is_named(copy: Path) -> None:
    with pytest.raises(InputError, match=r"dvc\.yaml: has no stage assess, expected one of sample, prepare"):
        code_version("assess")
    (copy / "model" / "score.py").unlink()
    with pytest.raises(InputError, match=r"dvc\.yaml: stages\.train\.deps: model/score\.py is not there"):
        code_version("train")


def test_the_lock_of_dvc_names_the_deps_of_today() -> None:
    """`dvc repro`, or `dvc commit` where nothing that decides a result changed, brings it up."""
    data = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]["root"]
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    for step, stage in STAGES.items():
        expected = sorted(entry.replace("${data.root}", data) for entry in stage["deps"])
        found = sorted(entry["path"] for entry in locked.get(step, {"deps": []})["deps"])
        assert found == expected, f"dvc.lock: the stage {step}: run dvc repro"

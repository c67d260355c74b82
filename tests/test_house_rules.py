"""Rules of the house that the code cannot break unseen: who imports what, quick help, nothing done at import."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

PACKAGES = ("base", "xbd", "model", "imagery", "components")
SOURCES = [*sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "pipeline.py"]
# From the ground up. A module imports what is on its own floor below the same name, and what is on a lower floor.
FLOORS = (
    ("base",),
    ("xbd",),
    ("xbd.importing", "xbd.sample"),
    ("model", "model.fast"),
    ("model.calibration",),
    ("model.train", "model.judge"),
    ("imagery",),
    ("imagery.sampling",),
    ("imagery.estimating",),
    ("imagery.adapting",),
    ("imagery.read",),
    ("imagery.predict",),
    ("imagery.find",),
    ("imagery.give",),
    ("imagery.formats",),
    ("imagery.mapping", "imagery.assessing"),
    ("imagery.labelling", "imagery.shards"),
    ("imagery.delivered",),
    ("components.params", "components.cli"),
    ("components.storage", "components.tracking"),
    ("components.promotion", "components.cluster", "components.cards"),
    ("components.events",),
    ("components",),
    ("components.kubeflow",),
    ("pipeline",),
)
# Rooms on one floor that share it.
TOGETHER = ({"model", "model.fast"}, {"components.params", "components.cli"})
# The only places that may import these.
DOORS = {
    "albumentations": ("xbd/augmentation/",),
    "kfp": ("pipeline.py", "components/kubeflow/"),
    "kfp_server_api": ("components/kubeflow/client.py",),
    "kubernetes": ("components/cluster/",),
    "mlflow": ("components/tracking/", "model/pyfunc.py"),
    "boto3": ("components/storage/s3.py",),
    "botocore": ("components/storage/s3.py",),
    "s3transfer": ("components/storage/s3.py",),
    "huggingface_hub": ("components/storage/hub.py",),
    "dvc": ("components/storage/dvc.py",),
    "dvc_data": ("components/storage/dvc.py",),
    "dvc_objects": ("components/storage/dvc.py",),
    "pyarrow": ("imagery/give/features.py", "imagery/assessing/judged_map.py", "imagery/formats/vector_tiles.py"),
    "pyogrio": ("imagery/read/vector_files.py", "imagery/formats/vector_tiles.py", "imagery/read/vectors.py"),
}
# Configuration is data, validated once: what a step does must not depend on the machine but through these.
READERS_OF_THE_ENVIRONMENT = (
    "base/patience.py",
    "components/tracking/",
    "components/storage/locations.py",
    "components/kubeflow/ending.py",
    "components/kubeflow/mapping/tasks.py",
    "components/kubeflow/tasks.py",
    "components/kubeflow/training.py",
    "model/train/distributed.py",
    "model/device.py",
)
COMMANDS = sorted(path.stem for path in (ROOT / "components").glob("*.py") if path.stem not in ("__init__", "cli"))
# Settings of libraries, each with its reason beside it in the code.
SETTINGS_AT_IMPORT = {
    "os.environ.setdefault",
    "cv2.setNumThreads",
    "logging.getLogger('alembic').setLevel",
    "logging.getLogger('mlflow.store.db.utils').setLevel",
    "mlflow.models.set_model",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in SOURCES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the file, wherever it stands."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in MODULES else str(node.module)


def room_of(module: str) -> tuple[int, str]:
    """Floor and room of a module: those of the longest name that it lies below."""
    rooms = {room: floor for floor, names in enumerate(FLOORS) for room in names}
    room = max((room for room in rooms if f"{module}.".startswith(f"{room}.")), key=len)
    return rooms[room], room


def may_import(module: str, other: str) -> bool:
    (floor, room), (other_floor, other_room) = room_of(module), room_of(other)
    return other_floor < floor or room == other_room or {room, other_room} in TOGETHER


def test_imports_point_downward() -> None:
    upward = [
        f"{name_of(path)}:{line} imports {imported}"
        for module, path in MODULES.items()
        for line, imported in imports_of(path)
        if imported in MODULES and not may_import(module, imported)
    ]
    assert upward == []


def test_no_imports_go_round_in_a_circle() -> None:
    graph = {
        module: {imported for _, imported in imports_of(path) if imported in MODULES} - {module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_each_system_outside_has_one_door() -> None:
    strangers = [
        f"{name_of(path)}:{line} imports {imported}"
        for path in SOURCES
        for line, imported in imports_of(path)
        for package, doors in DOORS.items()
        if imported.partition(".")[0] == package and not name_of(path).startswith(doors)
    ]
    assert strangers == []


def test_no_folder_is_a_heap() -> None:
    folders = {path.parent for path in SOURCES}
    sizes = {name_of(folder): len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) for folder in folders}
    most = {"components": 20}  # a file for each step
    heaps = {folder: size for folder, size in sizes.items() if size > most.get(folder, 14)}
    assert heaps == {}, "more files than somebody looks through: group those that belong together in a folder"


HELP = """
import contextlib, io, runpy, sys
command = sys.argv.pop(1)
text = io.StringIO()
try:
    with contextlib.redirect_stdout(text):
        runpy.run_module("components." + command, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
assert text.getvalue().startswith("usage: "), text.getvalue()
assert command == "launch" or "python -m components." + command in text.getvalue(), text.getvalue()
print(*sorted({"torch", "mlflow", "pandas", "matplotlib", "dvc", "kfp"} & set(sys.modules)))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_that_needs_no_heavy_library(command: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP, command, "--help"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert command == "launch" or result.stdout.split() == []  # its help is torchrun's own
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_importing_everything_prints_nothing_and_writes_nothing(tmp_path: Path) -> None:
    program = "\n".join(f"import {module}" for module in MODULES if not module.endswith(".__main__"))
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def _called(node: ast.stmt) -> str:
    """The function that a statement calls without keeping the result; empty where it does not."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func)
    return ""


def test_nothing_runs_at_import_but_settings_of_libraries() -> None:
    found = []
    for path in SOURCES:
        for node in tree_of(path).body:
            what = _called(node)
            if isinstance(node, ast.If) and ast.unparse(node.test) not in ("TYPE_CHECKING", "__name__ == '__main__'"):
                what = "if"
            elif isinstance(node, ast.For | ast.While | ast.With | ast.Try):
                what = type(node).__name__
            if what and what not in SETTINGS_AT_IMPORT:
                found.append(f"{name_of(path)}:{node.lineno}: {what}")
    assert found == []


def test_every_file_opens_with_what_it_is() -> None:
    opening = {name_of(path): (ast.get_docstring(tree_of(path)) or "").partition("\n")[0] for path in SOURCES}
    assert [name for name, line in opening.items() if len(line) <= 20] == []


def test_no_function_but_the_doors_reads_the_environment() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if not name_of(path).startswith(READERS_OF_THE_ENVIRONMENT)
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.getenv", "os.environ.get"))
        or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ")
    ]
    assert found == []


def test_errors_say_what_was_expected_in_one_way() -> None:
    """NAME: what was found, expected what. What to do."""
    odd = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.JoinedStr) and re.search(r": expected\b", ast.unparse(node))
    ]
    assert odd == []

"""Rules of the house that the code cannot break unseen: who imports what, quick help, nothing done at import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

PACKAGES = ("base", "xbd", "model", "imagery", "components")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")) + [
    path for path in [ROOT / "pipeline.py"] if path.exists()
]
# The only files that may import these; a folder that does not exist yet harms nobody.
DOORS = {
    "kfp": {"pipeline.py", "components/kubeflow/steps.py", "components/kubeflow/client.py"},
    "kfp_server_api": {"components/kubeflow/client.py"},
    "kubernetes": {"components/cluster/pytorchjob/api.py"},
    "mlflow": {
        "components/tracking/connection.py",
        "components/tracking/runs.py",
        "components/tracking/registry.py",
        "components/tracking/system_metrics.py",
        "model/pyfunc.py",
    },
    "boto3": {"components/storage/s3.py"},
    "botocore": {"components/storage/s3.py"},
    "s3transfer": {"components/storage/s3.py"},
    "huggingface_hub": {"components/storage/hub.py"},
    "dvc": {"components/storage/dvc.py"},
    "dvc_objects": {"components/storage/dvc.py"},
    "pyogrio": {"imagery/read/vectors.py"},
}
FORBIDDEN = {
    "base": {"xbd", "model", "imagery", "components", "pipeline"},
    "xbd": {"model", "imagery", "components", "pipeline"},
    "model": {"imagery", "components", "pipeline"},
    "imagery": {"components", "pipeline"},
    "components": {"pipeline"},
}
STEPS = (
    "sample",
    "fetch",
    "prepare",
    "train",
    "evaluate",
    "register",
    "promote",
    "predict",
    "import_weights",
    "params",
    "pytorchjob",
)
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


def imported_packages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import of the file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            yield node.lineno, str(node.module).split(".")[0]


@pytest.mark.parametrize("package", DOORS)
def test_each_system_outside_has_one_door(package: str) -> None:
    strangers = [
        f"{name_of(path)}:{line}"
        for path in SOURCES
        if name_of(path) not in DOORS[package]
        for line, imported in imported_packages(path)
        if imported == package
    ]
    assert strangers == []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    upwards = [
        f"{name_of(path)}:{line} imports {imported}"
        for path in SOURCES
        if name_of(path).startswith(f"{package}/")
        for line, imported in imported_packages(path)
        if imported in FORBIDDEN[package]
    ]
    assert upwards == []


HELP = """
import contextlib, importlib, io, sys
main = importlib.import_module("components." + sys.argv[1]).main
text = io.StringIO()
try:
    with contextlib.redirect_stdout(text):
        main(["--help"])
except SystemExit as end:
    assert not end.code, end.code
assert "usage:" in text.getvalue()
print(*sorted({"torch", "mlflow", "pandas", "matplotlib", "dvc", "kfp"} & set(sys.modules)))
"""


@pytest.mark.parametrize("step", STEPS)
def test_help_answers_without_a_heavy_library(step: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HELP, step]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_a_module_that_runs(step: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"components.{step}", "--help"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"usage: python -m components.{step}" in result.stdout


@pytest.mark.slow
def test_importing_everything_prints_nothing_and_writes_nothing(tmp_path: Path) -> None:
    modules = [name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in SOURCES]
    command = [sys.executable, "-c", "\n".join(f"import {module}" for module in modules)]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_runs_at_import_but_settings_of_libraries(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [
        ast.unparse(node.value.func)
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    assert set(calls) <= SETTINGS_AT_IMPORT
    for node in tree.body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"), f"line {node.lineno}"
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_opens_with_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring.splitlines()[0]) > 20


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_function_but_the_doors_reads_the_environment(path: Path) -> None:
    """Configuration is data, validated once; what a step does must not depend on the machine."""
    if name_of(path) in (
        "components/tracking/connection.py",
        "components/storage/locations.py",
        "components/kubeflow/tasks.py",
        "model/train/distributed.py",
    ):
        return
    reads = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.getenv", "os.environ.get"))
        or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ")
    ]
    assert reads == []

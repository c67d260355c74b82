"""What the image is built from: the Dockerfile, what of the repository goes into it, and its lock."""

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

LIMIT = 5_000_000  # bytes of the build context
NAMES = (
    "LICENSE",
    "base",
    "components",
    "dvc.yaml",
    "imagery",
    "model",
    "params.yaml",
    "pipeline.py",
    "recipes",
    "requirements-image.txt",
    "xbd",
)


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each instruction of the Dockerfile."""
    text = "\n".join(line for line in read("Dockerfile").splitlines() if not line.startswith("#"))
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name, " ".join(arguments.split())) for name, arguments in lines]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def is_in_context(path: str) -> bool:
    """The rules of https://docs.docker.com/build/concepts/context/#syntax: the last pattern that matches the path or a
    folder above it decides.
    """
    inside = True
    parts = path.split("/")
    folders = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    for line in read(".dockerignore").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            # ** stands for any number of folders; fnmatch's * goes over slashes, which is right in this case only.
            anywhere = pattern.startswith("**/")
            assert "**" not in pattern.removeprefix("**/")
            names = [folder.rpartition("/")[2] if anywhere else folder for folder in folders]
            depth = None if anywhere else pattern.count("/")
            if any(
                fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) and depth in (None, name.count("/"))
                for name in names
            ):
                inside = line.startswith("!")
    return inside


def context() -> list[Path]:
    """Every file here that a build sends to the engine, whether git knows it or not."""
    assert not re.search(r"^!.*/", read(".dockerignore"), re.MULTILINE)  # so nothing lies below what is out
    tops = [path for path in ROOT.iterdir() if is_in_context(path.name)]
    files = [path for top in tops for path in [top, *top.rglob("*")] if path.is_file()]
    return sorted(path for file in files if is_in_context((path := file.relative_to(ROOT)).as_posix()))


def locked(name: str) -> dict[str, str]:
    """The packages of a lock, each with its version and hashes."""
    blocks = re.split(r"^(?=[a-z0-9])", re.sub(r"^ +#.*\n", "", read(name), flags=re.MULTILINE), flags=re.MULTILINE)
    return {re.split(r"[=\[ ]", block)[0]: block for block in blocks if block.strip()}


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=<>~! ]", requirement)[0]).lower()


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def test_every_stage_starts_from_the_base_or_from_another_stage() -> None:
    stages: set[str] = set()
    for arguments in arguments_of("FROM"):
        base, *name = arguments.split(" AS ")
        assert base == "${BASE}" or base in stages
        stages.update(name)
    default = arguments_of("ARG")[0]
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-[a-z]+", default)


def test_no_instruction_brings_what_is_not_pinned() -> None:
    assert arguments_of("ADD") == []
    assert ":latest" not in read("Dockerfile")
    for arguments in arguments_of("RUN"):
        assert "http" not in arguments
        assert not re.search(r"\b(curl|wget|git clone)\b", arguments)


def test_torch_is_the_one_of_the_project() -> None:
    pinned = [name for name in project()["dependencies"] if canonical(name) == "torch"]
    (install,) = [arguments for arguments in arguments_of("RUN") if "TORCH_INDEX" in arguments]
    assert install.split()[-1] == pinned[0]
    assert f"pip install --quiet {pinned[0]}" in read("Makefile")


def test_the_rest_is_what_the_lock_says_and_nothing_else() -> None:
    build, install = (arguments for arguments in arguments_of("RUN") if "/wheels" in arguments)
    assert "--no-deps" in build and "--requirement /requirements-image.txt" in build
    assert "--no-deps" in install and "--no-index" in install
    assert all("--no-cache-dir" in arguments for arguments in arguments_of("RUN") if "pip install" in arguments)


def test_the_image_keeps_no_secret() -> None:
    words = re.compile(r"password|passwd|token|secret|credential|_key\b", re.IGNORECASE)
    for name in ("ARG", "ENV", "LABEL", "COPY"):
        assert [arguments for arguments in arguments_of(name) if words.search(arguments)] == []
    mounts = [match for arguments in arguments_of("RUN") for match in re.findall(r"--mount=(\S+)", arguments)]
    assert {mount for mount in mounts if "secret" in mount} == {"type=secret,id=pip,target=/etc/pip.conf"}


def test_the_last_stage_needs_neither_root_nor_a_writable_file_system() -> None:
    names = [name for name, _ in instructions()]
    (user,) = arguments_of("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)  # Kubernetes' runAsNonRoot takes no name
    assert names.index("USER") > max(position for position, name in enumerate(names) if name in ("RUN", "COPY", "FROM"))
    environment = dict(pair.split("=", 1) for line in arguments_of("ENV") for pair in line.split())
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert {environment[name].split("/")[1] for name in ("HOME", "TMPDIR", "DVC_SITE_CACHE_DIR")} == {"tmp"}
    assert arguments_of("ENTRYPOINT") == ['["tini", "--", "python", "-m"]']


def test_the_labels_say_what_the_image_holds() -> None:
    (labels,) = arguments_of("LABEL")
    assert "DUAL_HRNET_REVISION=${REVISION}" in arguments_of("ENV")  # what its runs say
    for name in ("revision", "source", "version"):
        assert f'org.opencontainers.image.{name}="${{{name.upper()}}}"' in labels
    assert f'org.opencontainers.image.licenses="{project()["license"]}"' in labels
    assert f'org.opencontainers.image.title="{project()["name"]}"' in labels


def run_torch(index: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the shell line that installs torch, with a pip that only says what it was given."""
    (line,) = [arguments for arguments in arguments_of("RUN") if "TORCH_INDEX" in arguments]
    shell = line.removeprefix("--mount=type=secret,id=pip,target=/etc/pip.conf ")
    assert shell != line
    pip = tmp_path / "pip"
    pip.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
    pip.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH_INDEX": index}
    return subprocess.run(["sh", "-c", shell], env=environment, capture_output=True, text=True)


def test_torch_comes_from_the_index_that_is_named_else_from_that_of_pip(tmp_path: Path) -> None:
    assert "TORCH_INDEX=" in arguments_of("ARG")
    plain = run_torch("", tmp_path)
    assert plain.stdout.split() == ["install", "--no-cache-dir", "torch==2.13.0"]  # so that pip.conf decides
    named = run_torch("https://download.pytorch.org/whl/cpu", tmp_path)
    assert named.stdout.split()[2:4] == ["--index-url", "https://download.pytorch.org/whl/cpu"]


def test_an_index_with_a_password_is_refused_before_it_is_used(tmp_path: Path) -> None:
    result = run_torch("https://user:hush@example.org/simple", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("TORCH_INDEX holds a user or a password")
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in result.stderr


def test_a_changed_lock_changes_the_layer_before_the_packages() -> None:
    """Podman looks at that layer alone, and not at what is mounted, to tell whether it has the packages already."""
    last = instructions()[max(i for i, (name, _) in enumerate(instructions()) if name == "FROM") :]
    (install,) = [i for i, (name, arguments) in enumerate(last) if name == "RUN" and "/wheels" in arguments]
    assert last[install - 1] == ("COPY", "requirements-image.txt /app/")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with what `make image` reads, and an engine in it that keeps what it is given."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("Makefile", "pyproject.toml", "Dockerfile"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    engine = tmp_path / "engine"
    engine.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n'
        f'for last; do :; done\ncp -R "$last" {tmp_path}/context\n',
        encoding="utf-8",
    )
    engine.chmod(0o755)
    return copy


def make_image(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "image", f"DOCKER={copy.parent}/engine", "IMAGE=r.example.org/i"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of the tests
    return subprocess.run([*command, *arguments], cwd=copy, env=environment, capture_output=True, text=True)


def git(copy: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=copy, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_make_image_builds_the_commit_and_nothing_else(copy: Path) -> None:
    git(copy, "init", "--quiet")
    git(copy, "remote", "add", "origin", "https://user:pass@example.org/a.git")
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "--message", "One")
    commit = git(copy, "rev-parse", "HEAD")[:12]
    quiet = make_image(copy, "IMAGE_ARGUMENTS=--pull")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    *given, folder = (copy.parent / "arguments").read_text(encoding="utf-8").splitlines()
    values = [f"REVISION={commit}", "SOURCE=https://example.org/a.git", f"VERSION={project()['version']}"]
    stated = [part for value in values for part in ("--build-arg", value)]
    assert given == ["build", "--tag", f"r.example.org/i:{commit}", *stated, "--pull"]
    assert not Path(folder).exists()
    shutil.rmtree(copy.parent / "context")
    (copy / "Dockerfile").write_text("changed", encoding="utf-8")
    (copy / "new.py").write_text("new", encoding="utf-8")
    told = make_image(copy)
    assert told.returncode == 0
    assert told.stderr.startswith(f"make image: the image holds commit {commit}, and not the changes")
    built = copy.parent / "context"
    assert (built / "Dockerfile").read_text(encoding="utf-8") == read("Dockerfile")
    assert not (built / "new.py").exists()
    assert f"r.example.org/i:{commit}" in (copy.parent / "arguments").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("has_repository", [False, True])
def test_make_image_refuses_what_has_no_commit(copy: Path, has_repository: bool) -> None:
    if has_repository:
        git(copy, "init", "--quiet")
    result = make_image(copy)
    assert result.returncode != 0
    first, *rest = result.stderr.splitlines()
    assert first == (
        f"make image: {copy} is no git repository with a commit, which an image is built from and named by. "
        "Clone the repository."
    )
    assert [line for line in rest if not line.startswith("make: ***")] == []
    assert not (copy.parent / "arguments").exists()


def test_a_build_gets_the_code_and_nothing_else() -> None:
    files = context()
    assert {path.parts[0] for path in files} == {name for name in NAMES if (ROOT / name).exists()}
    assert [path for path in files if path.suffix in (".pyc", ".npy", ".db") or path.name.startswith(".")] == []
    assert sum((ROOT / path).stat().st_size for path in files) < LIMIT


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        ".dvc/config.local",
        "components/.env",
        "xbd/__pycache__/masks.cpython-311.pyc",
        "data/a.png",
    ],
)
def test_private_and_derived_files_stay_out(path: str) -> None:
    assert not is_in_context(path)


@pytest.mark.parametrize("path", ["components/train.py", "xbd/sample/drawing.py", "recipes/paper.yaml", "params.yaml"])
def test_the_code_goes_in(path: str) -> None:
    assert is_in_context(path)


def test_all_code_that_the_image_runs_is_in_it() -> None:
    modules = {path.parts[0].removesuffix(".py") for path in context() if path.suffix == ".py"}
    own = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    for path in context():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(read(path.as_posix()))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    top = node.module.split(".")[0]
                    assert top in modules or top not in own | {"tests", "benchmarks"}, path


def test_the_image_has_the_packages_that_the_tests_ran_with() -> None:
    everything, image = locked("requirements.txt"), locked("requirements-image.txt")
    assert {name for name in image if image[name] != everything.get(name)} == set()
    needed = {canonical(name) for name in project()["dependencies"]} - {"torch"}
    assert needed <= set(image)


def test_the_image_has_no_tool_of_development() -> None:
    image = locked("requirements-image.txt")
    tools = {canonical(name) for name in project()["optional-dependencies"]["dev"]}
    assert tools & set(image) == set()
    assert tools <= set(locked("requirements.txt"))

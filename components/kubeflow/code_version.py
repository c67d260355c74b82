"""Which code a step's result depends on: what dvc.yaml names as `deps` of its stage, for DVC and for Kubeflow.

tests/test_code_version.py holds these deps to what the step imports, and has the rule.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import yaml

from base.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("base", "xbd", "model", "imagery", "components")
# What a map in shards depends on, which is no stage of DVC.
MAP = ("base", "components/merge.py", "components/plan.py", "components/predict.py", "imagery", "model", "xbd")


def code_version(step: str) -> str:
    """Hash of the names and contents of a step's code: where it is equal, DVC runs the step again no more than this.

    Raises InputError where dvc.yaml has no such stage or names code that is not there.
    """
    return _hash_of(code_files(step))


def map_version() -> str:
    """The same of the code that plans, predicts and merges a map."""
    return _hash_of(path for entry in MAP for path in _files_of(entry))


def code_files(step: str) -> list[str]:
    """Paths, from the root of the repository, of the code that a step's stage depends on."""
    files: set[str] = set()
    for entry in _deps(step):
        if entry.split("/")[0] not in PACKAGES:
            continue  # data, or what an earlier stage made
        found = _files_of(entry)
        if not found:
            raise InputError(f"dvc.yaml: stages.{step}.deps: {entry} is not there. Correct it.")
        files.update(found)
    return sorted(files)


def _files_of(entry: str) -> list[str]:
    """The files of a file or folder, but what Python keeps beside code."""
    path = ROOT / entry
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file.relative_to(ROOT).as_posix() for file in found if "__pycache__" not in file.parts)


def _hash_of(paths: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        content = (ROOT / path).read_bytes()
        whole.update(f"{path}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def _deps(step: str) -> list[str]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if step not in stages:
        raise InputError(f"dvc.yaml: has no stage {step}, expected one of {', '.join(stages)}.")
    return list(stages[step]["deps"])

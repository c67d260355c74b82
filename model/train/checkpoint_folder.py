"""One checkpoint on disk: a folder that appears whole or not at all, and by which damage is found before it is loaded.

`step_<8 digits>` holds state.pt (tensors and plain containers) and checkpoint.json (what it is, and the sha256).
"""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from base.access import unreadable
from base.errors import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STATE, DESCRIPTION = "state.pt", "checkpoint.json"


class UnusableError(Exception):
    """Why a checkpoint cannot be resumed."""


@dataclass(config=ConfigDict(strict=True), frozen=True, kw_only=True)
class Description:
    """Content of checkpoint.json; the size is in bytes."""

    step: int
    epoch: int
    score: float | None
    identity: dict[str, Any]
    state_size: int
    state_sha256: str
    torch_version: str


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return folder / f"step_{step:08}"


def find_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, good or not, by step."""
    return sorted((path for path in folder.glob("step_*") if _step(path) >= 0), key=_step)


def copy_state(value: Any) -> Any:
    """A copy in CPU memory that shares nothing with `value`.

    Raises TypeError for what `torch.load` with weights_only would refuse, among them np.float64, though it is a float.
    """
    if isinstance(value, Tensor):
        return _copy_tensor(value.detach())
    if isinstance(value, Mapping):
        return {copy_state(key): copy_state(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copy_state(item) for item in value)
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}, only tensors, plain values and containers")


def write_checkpoint(
    path: Path, state: Mapping[str, Any], *, epoch: int, score: float | None, identity: Mapping[str, Any]
) -> None:
    """Writes beside `path`, then renames; a checkpoint that stands there is replaced.

    state: as `copy_state` returns it. identity: plain JSON. Raises OSError, and then leaves nothing behind.
    """
    partial = _hidden(path, "partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        size, digest = _write_state(partial / STATE, state)
        description = Description(
            step=_step(path),
            epoch=epoch,
            score=score,
            identity=dict(identity),
            state_size=size,
            state_sha256=digest,
            torch_version=str(torch.__version__),
        )
        _write_description(partial / DESCRIPTION, description)
        _put_in_place(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_checkpoint(path: Path, identity: Mapping[str, Any]) -> Description:
    """Reads what the checkpoint is; does not read its state.

    Raises UnusableError where it is of another run or, by the names and sizes of its files, not whole.
    """
    description = _read_description(path / DESCRIPTION)
    difference = describe_difference(description.identity, identity)
    if difference:
        raise UnusableError(
            f"it is of another run ({difference}) and will be removed when this run has written one of its own; "
            "use another output folder to keep it"
        )
    if description.step != _step(path):
        raise UnusableError(f"{DESCRIPTION} is that of step {description.step}")
    try:
        size = (path / STATE).stat().st_size
    except OSError as error:
        raise UnusableError(f"{STATE} {unreadable(path / STATE, error, '')}".rstrip(".")) from error
    if size != description.state_size:
        raise UnusableError(f"{STATE} is torn: {size} of {description.state_size} bytes")
    return description


def load_state(path: Path, description: Description) -> dict[str, Any]:
    """The state of the checkpoint at `path`, in CPU memory.

    Raises UnusableError where its sha256 is not the one described, or torch cannot read it.
    """
    try:
        with (path / STATE).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != description.state_sha256:
                raise UnusableError(f"{STATE} is damaged: its sha256 is not that of {DESCRIPTION}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign formats that it then refuses
            # No memory map: an optimizer keeps the tensors that it is given, and their file will be removed.
            state: Any = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except UnusableError:
        raise
    except OSError as error:
        raise UnusableError(f"{STATE} {unreadable(path / STATE, error, '')}".rstrip(".")) from error
    except pickle.UnpicklingError as error:  # whose text advises to let the file run its code
        raise UnusableError(f"{STATE} cannot be read (it is a pickle of other things than a state)") from error
    except Exception as error:  # in bytes that it did not write torch stumbles over a dozen kinds, KeyError among them
        raise UnusableError(f"{STATE} cannot be read ({first_line(error)})") from error
    if not isinstance(state, dict):
        raise UnusableError(f"{STATE} holds {type(state).__name__}, not the state of a training")
    return state


def remove_checkpoint(path: Path) -> None:
    """Removes by way of another name: a kill in between leaves no damaged checkpoint. Raises OSError."""
    removed = _hidden(path, "removed")
    path.rename(removed)
    shutil.rmtree(removed)


def clear_leftovers(folder: Path) -> None:
    """Clears away what a killed process left half-written or half-removed."""
    for path in folder.glob(".step_*.*"):
        name, _, kind = path.name[1:].rpartition(".")
        if kind == "replaced" and not (folder / name).exists():
            with suppress(OSError):
                path.rename(folder / name)  # the kill came between the two renames of _put_in_place
        elif kind in ("partial", "replaced", "removed"):
            shutil.rmtree(path, ignore_errors=True)


def describe_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Where two identities differ, as "train.seed 1, this run has 2; ..."; empty where they do not."""
    a, b = _flatten(theirs), _flatten(ours)
    differences = (
        f"{key} {a.get(key, 'missing')}, this run has {b.get(key, 'none')}"
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    )
    return "; ".join(map(printable, differences))


def first_line(error: Exception) -> str:
    """An error's kind and what it says, in one line."""
    return printable(f"{type(error).__name__}: {error}".splitlines()[0])


def _copy_tensor(tensor: Tensor) -> Tensor:
    """Same strides, in CPU memory.

    torch would start its threads for each of some thousand tensors, and wait for all of them each time: measured on
    two cores that two other processes keep busy, 2 to 9 s for 477 MB, against 0.4 to 0.6 s by NumPy.
    """
    try:
        source = tensor.numpy()
    except TypeError:  # on a GPU, or of a type that NumPy lacks, such as bfloat16
        return tensor.to("cpu", copy=True)
    copied = torch.empty_like(tensor)
    np.copyto(copied.numpy(), source)
    return copied


class _HashedFile(io.BufferedWriter):
    """A new file that knows the sha256 of what was written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.digest = hashlib.sha256()

    def write(self, data: "ReadableBuffer") -> int:
        self.digest.update(data)
        return super().write(data)


def _write_state(path: Path, state: Mapping[str, Any]) -> tuple[int, str]:
    """Writes a file that survives a power cut; returns its size in bytes and its sha256."""
    with _HashedFile(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # torch closes its archive after a failed write, and that failure hides what the disk said.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), file.digest.hexdigest()


def _write_description(path: Path, description: Description) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(description), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read_description(path: Path) -> Description:
    try:
        description = TypeAdapter(Description).validate_json(path.read_bytes())
    except OSError as error:
        raise UnusableError(f"{path.name} {unreadable(path, error, '')}".rstrip(".")) from error
    except ValidationError as error:
        raise UnusableError(f"{path.name} is damaged") from error
    if "data_version" in description.identity:  # as the first checkpoints call it
        description.identity["prepared_version"] = description.identity.pop("data_version")
    return description


def _put_in_place(partial: Path, path: Path) -> None:
    """Renames a whole folder; one that stands in its place stays until then, and comes back after a kill."""
    replaced = _hidden(path, "replaced")
    _sync_folder(partial)
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    partial.rename(path)
    _sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut, where its file system can; some network ones cannot."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _step(path: Path) -> int:
    """The step of a checkpoint's folder; -1 for other names."""
    match = re.fullmatch(r"step_(\d{8,})", path.name)
    return -1 if match is None else int(match[1])


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings to dotted keys and their values as JSON."""
    if not isinstance(value, Mapping):
        return {prefix: json.dumps(value, ensure_ascii=False)}
    return {
        name: text
        for key, item in value.items()
        for name, text in _flatten(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }

"""An event's model as two files, JSON and safetensors: nothing in them is executed when they are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load_file, save_file

from base.access import unreadable
from base.errors import InputError, printable
from base.grades import GRADES
from base.problems import first_problem
from base.tensors import reading_tensors
from imagery.adapting.evidence import Projection
from imagery.adapting.heads import Head, only_curves
from imagery.adapting.learning import EventModel
from imagery.adapting.names import MODEL_FILES
from imagery.estimating.recalibration import Curves
from imagery.sampling.judged import JUDGEMENTS

_REMEDY = "Run assess again."


class EventModelError(InputError):
    """Files of an event's model that cannot be used; names file, finding, expectation and remedy."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    channels: Annotated[int, Field(ge=1)] | None
    about: dict[str, Any]


def save_event_model(model: EventModel, folder: Path, about: Mapping[str, Any]) -> None:
    """Writes MODEL_FILES into the folder. about: what else is to be known of it, fit for JSON: the network that it
    belongs to, the judgements that it learned from, its worth.
    """
    head, onto = model.head, model.onto
    tensors = {**head.curves._asdict(), "shares": model.shares}
    if onto is not None:
        tensors |= {"mean": onto.mean, "axes": onto.axes}
        for name, own in (("", head), ("bold_", model.bold)):
            tensors |= {f"{name}weights": own.weights, f"{name}shift": own.intercept}
    form = _Form(version=1, channels=None if onto is None else len(onto.mean), about=dict(about))
    content = json.dumps(form.model_dump(), indent=2, ensure_ascii=False)
    (folder / MODEL_FILES[0]).write_text(content + "\n", encoding="utf-8")
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / MODEL_FILES[1])


def load_event_model(folder: Path) -> tuple[EventModel, dict[str, Any]]:
    """The model that `save_event_model` wrote, and what it is about. Raises EventModelError."""
    path, tensors_path = (folder / name for name in MODEL_FILES)
    form = _read_form(path)
    with reading_tensors(tensors_path, EventModelError, _REMEDY):
        tensors = load_file(tensors_path)
    expected = _shapes(form, tensors)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd:
        raise EventModelError(
            f"{tensors_path}: {printable(odd[0])} is {found.get(odd[0], 'missing')}, expected "
            f"{expected.get(odd[0], 'none')} by {path.name}. {_REMEDY}"
        )
    if not all(value.dtype == np.float64 and np.isfinite(value).all() for value in tensors.values()):
        raise EventModelError(f"{tensors_path}: found values that are no numbers, expected finite float64. {_REMEDY}")
    curves = Curves(tensors["intercept"], tensors["slope"])
    if form.channels is None:
        head = only_curves(curves)
        return EventModel(head, head, None, tensors["shares"]), form.about
    head, bold = (Head(curves, tensors[f"{name}weights"], tensors[f"{name}shift"]) for name in ("", "bold_"))
    return EventModel(head, bold, Projection(tensors["mean"], tensors["axes"]), tensors["shares"]), form.about


def _read_form(path: Path) -> _Form:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EventModelError(f"{path}: {unreadable(path, error, f'. {_REMEDY}')}") from error
    except ValueError as error:
        raise EventModelError(f"{path}: is no JSON ({printable(str(error))}). {_REMEDY}") from error
    try:
        return _Form.model_validate(content)
    except ValidationError as error:
        problem = first_problem(error)
        raise EventModelError(f"{path}: {problem.place or 'the file'}: {problem.said}. {_REMEDY}") from None


def _shapes(form: _Form, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Of the tensors that must be there; the number of axes is what they agree on."""
    count = len(JUDGEMENTS)
    needed: dict[str, tuple[int, ...]] = {"intercept": (count,), "slope": (count,), "shares": (len(GRADES),)}
    if form.channels is None:
        return needed
    axes = tensors["axes"].shape[-1] if "axes" in tensors and tensors["axes"].ndim == 2 else 0
    return needed | {
        "mean": (form.channels,),
        "axes": (form.channels, axes),
        **{f"{name}weights": (count, axes) for name in ("", "bold_")},
        **{f"{name}shift": (count,) for name in ("", "bold_")},
    }

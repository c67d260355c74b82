"""What is known of a model when it is registered: what its card and its STAC item are written from."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking.lineage import TRAINED_SCENES, source_tags

if TYPE_CHECKING:
    from components.tracking.runs import Run
    from model.calibration.domain import Domain
    from model.inference import Origin
    from model.networks.pair_network import PairNetwork

FRAMEWORKS = ("torch", "mlflow", "numpy", "safetensors")
Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """name: of the registered model; content: what tells this one from others of the name; registered: when.

    network: its name; architecture: its settings; parameters: how many numbers it has; weights: SHA-256 and bytes of
    its file. temperatures: by which its logits are divided, None where nobody calibrated it. grade_offsets: what is
    added to those of the damage, None where nothing is. origin: what it was trained on; scenes: how many of them, None
    where nobody recorded it. gsd: metres of a pixel and off_nadir: degrees of the scenes that it keeps of its training
    data, `described` of them, each None where not known. metrics: content of metrics.json. run, experiment, settings:
    of its training; params: of that run in MLflow, dotted names; tags: recipe and the like. versions: of what it was
    registered with.
    """

    name: str
    content: str
    registered: datetime
    network: str
    architecture: Mapping[str, Any]
    parameters: int
    weights: tuple[str, int]
    temperatures: Mapping[str, float] | None
    grade_offsets: str | None
    origin: "Origin"
    scenes: int | None
    described: int | None
    gsd: Span | None
    off_nadir: Span | None
    metrics: Mapping[str, Any]
    run: str
    experiment: str
    settings: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    versions: Mapping[str, str]


def gather(
    name: str, content: str, registered: datetime, directory: Path, model: "PairNetwork", metrics: Mapping[str, Any],
    run: "Run", params: Mapping[str, str], tags: Mapping[str, str],
) -> Facts:  # fmt: skip
    """The facts of a model directory, of which `model` was loaded. params, tags: of the run in MLflow.

    Raises ModelError where the directory is damaged.
    """
    from model.calibration.domain import read_domain
    from model.inference import WEIGHTS, read_origin

    domain, weights = read_domain(directory), directory / WEIGHTS
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    scenes = tags.get(TRAINED_SCENES, "")
    return Facts(
        name=name, content=content, registered=registered, network=model.architecture.name,
        architecture={key: value for key, value in asdict(model.architecture).items() if key != "name"},
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=(digest, weights.stat().st_size),
        temperatures=None if model.temperatures is None else asdict(model.temperatures),
        grade_offsets=None if model.grade_offsets is None else str(model.grade_offsets),
        origin=read_origin(directory), scenes=int(scenes) if scenes.isdecimal() else None,
        described=None if domain is None else len(domain.gsd),
        gsd=_span(domain, "gsd"), off_nadir=_span(domain, "off_nadir"),
        metrics=metrics, run=run.run_id, experiment=run.experiment, settings=run.settings_hash, params=params,
        tags={**{key: tags[key] for key in ("recipe", "params_hash") if key in tags}, **source_tags()},
        versions={"Python": platform.python_version(), **{package: version(package) for package in FRAMEWORKS}},
    )  # fmt: skip


def _span(domain: "Domain | None", name: str) -> Span | None:
    import numpy as np

    known = [] if domain is None else [float(value) for value in getattr(domain, name) if np.isfinite(value)]
    return (round(min(known), 3), round(max(known), 3)) if known else None

"""Step register: a scored model directory becomes a version in MLflow's registry, the new challenger."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from base.access import unreadable
from base.errors import InputError, shortly
from base.files import copy_anew
from base.grades import KEYS
from base.problems import first_problem
from base.stac import ITEM
from components.cards.card import CARD, write_card
from components.cards.facts import Facts, gather
from components.cards.mlm import describe_model
from components.cli import errors_in_one_line, read_params, step_parser
from components.params import Params, Share, Split
from components.promotion.gate import ABSENT, GRADES, SCORES, TRAINED_ON, scores_of
from components.promotion.handover import CHALLENGER
from components.storage.locations import LOCATIONS, Location, local_input, local_output
from components.tracking.lineage import STARTED_FROM, circumstances, in_todays_names, source_tags
from components.tracking.lock import pin, read_lock

if TYPE_CHECKING:
    from components.tracking.registry import ModelPackage
    from components.tracking.runs import Run

ROOT = Path(__file__).resolve().parent.parent
# What model/pyfunc.py and what it imports need; and torch, which has no lock.
REQUIREMENTS = (
    *("mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "rasterio", "safetensors"),
    *("shapely", "torchmetrics"),
)
CODE = ("base", "model", "xbd")  # model/pyfunc.py, and what its package imports of this project
LOCK = Path("dvc.lock")


class RegisterError(InputError):
    """The metrics of the model cannot be used."""


class _Settings(BaseModel):
    splits: list[Split] = Field(min_length=1)


class _Disaster(BaseModel):
    score_present: Share
    absent_grades: list[Literal[KEYS]]  # type: ignore[valid-type]


class _Metrics(BaseModel):
    """What of metrics.json goes into the registry beside `GRADES`, each of which may be missing there."""

    model_config = ConfigDict(strict=True)

    score: Share
    absent_grades: list[Literal[KEYS]]  # type: ignore[valid-type]
    prepared_version: str = Field(min_length=1)
    evaluate_settings: _Settings
    per_disaster: dict[str, _Disaster] = {}


def register(model: Location, metrics_file: Location, run_file: Location, out: Location, params: Params) -> str:
    """Registers the model directory with its lineage and scores, in the run of its training; the new challenger.

    A model that is registered with the same scores already stays the version that it is.
    Writes `out`/version.json. Returns the model's URI, `models:/NAME/VERSION`.
    Raises ModelError, RegisterError, LockError, TrackingError, StorageError.
    """
    from components.tracking import registry, runs
    from model.inference import load_model

    name = params.register_.name
    with ExitStack() as stack:
        folder = stack.enter_context(local_output(out))
        directory, metrics_path, run_path = (
            stack.enter_context(local_input(location)) for location in (model, metrics_file, run_file)
        )
        network = load_model(directory)  # a damaged directory must not become a version
        metrics = read_metrics(metrics_path)
        run = runs.read_run(run_path)
        known, params_of_run = registry.run_tags(run), registry.run_params(run)
        tags = _tags(run, known, metrics, directory)
        version = registry.find_content(name, tags[registry.CONTENT_HASH])
        if version is not None:
            print(f"{name} version {version.version} is this model with these scores: nothing new is registered")
        else:
            data = [
                registry.DataUse(run.prepared_version, "training"),
                registry.DataUse(metrics["prepared_version"], "evaluation"),
            ]
            content_hash = tags[registry.CONTENT_HASH]
            facts = gather(
                name, content_hash, datetime.now(UTC), directory, network, metrics, run, params_of_run, known
            )
            package = stack.enter_context(_package(directory, facts))
            numbers = runs.of_splits(metrics["evaluate_settings"]["splits"], metrics)
            version = registry.register_model(run, name, package, tags, numbers, data)
            if LOCK.exists():
                runs.log_file(run, LOCK)
        registry.set_alias(version, CHALLENGER)
        uri = f"models:/{version.name}/{version.version}"
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "uri": uri,
            "run_id": version.run_id,
            "score": metrics["score"],
            "prepared_version": in_todays_names(version.tags)["prepared_version"],
        }
        (folder / "version.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return uri


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads the metrics.json of evaluate; raises RegisterError where it is not one, or one that says nothing of the
    scenes and settings behind its scores: what the run says of its latest evaluation may be about another.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        float(metrics["score"])
    except OSError as error:
        raise RegisterError(f"{path}: {unreadable(path, error, ', expected metrics.json of evaluate.')}") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RegisterError(
            f"{path}: is not the metrics.json of evaluate ({shortly(error)}). Evaluate again."
        ) from error
    settings = metrics.get("evaluate_settings")
    is_known = isinstance(settings, dict) and isinstance(settings.get("splits"), list)
    if not is_known or not {"prepared_version", ABSENT} <= metrics.keys():
        raise RegisterError(
            f"{path}: does not say on which splits, data and settings its scores were measured, expected the keys "
            f"prepared_version, evaluate_settings and {ABSENT}. It is of an earlier evaluate: evaluate again."
        )
    try:
        _Metrics.model_validate(metrics)
        grades = {key: metrics[key] for key in GRADES if key in metrics}
        TypeAdapter(dict[str, Share]).validate_python(grades, strict=True)
    except ValidationError as error:
        problem = first_problem(error)
        found = shorten(repr(problem.found), 60, placeholder=" ...")
        raise RegisterError(
            f"{path}: is not the metrics.json of evaluate ({problem.place}: found {found}: {problem.said}). "
            "Evaluate again."
        ) from error
    return dict(metrics)


def _tags(run: "Run", known: Mapping[str, str], metrics: Mapping[str, Any], model: Path) -> dict[str, str]:
    """What a version says of itself: its scores, what they were measured on, and where it comes from. known: tags of
    the run.
    """
    from components.tracking import registry
    from model.inference import read_origin

    origin = read_origin(model)
    identity = [_hash_files(model), metrics]
    return {
        **{key: known[key] for key in ("params_hash", "recipe") if key in known},
        **{key: f"{value:.6f}" for key, value in metrics.items() if isinstance(value, float)},
        SCORES: json.dumps(scores_of(metrics)),
        ABSENT: ", ".join(metrics[ABSENT]) or "none",
        "scored_prepared_version": metrics["prepared_version"],
        "evaluate_settings": json.dumps(metrics["evaluate_settings"], sort_keys=True),
        TRAINED_ON: origin.scenes,
        **({} if origin.raw_version is None else {"raw_version": origin.raw_version}),
        **({} if origin.started_from is None else {STARTED_FROM: origin.started_from}),
        **source_tags(),
        **circumstances(),
        "prepared_version": run.prepared_version,
        "settings_hash": run.settings_hash,
        registry.CONTENT_HASH: hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    }


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def _package(model: Path, facts: Facts) -> Iterator["ModelPackage"]:
    """What the version consists of: weights with their card, code, requirements, and a pair of images as example."""
    import numpy as np

    from base.images import encode_png
    from components.tracking.registry import ModelPackage
    from model.pyfunc import SIGNATURE

    rng = np.random.default_rng(0)
    pre, post = (encode_png(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(2))
    lock = read_lock()
    with TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("".join(f"{pin(name, lock)}\n" for name in lock), encoding="utf-8")
        # Copied, because MLflow keeps modes, and other accounts load what is registered here.
        directory = copy_anew(model, Path(folder, "weights", "model"))
        (directory / CARD).write_text(write_card(facts), encoding="utf-8")
        item = json.dumps(describe_model(facts), indent=2, ensure_ascii=False) + "\n"
        (directory / ITEM).write_text(item, encoding="utf-8")
        yield ModelPackage(
            artifacts={"model": directory},
            code=[copy_anew(ROOT / name, Path(folder, name)) for name in CODE],
            script=Path(folder, "model", "pyfunc.py"),
            example={"pre": pre, "post": post},
            signature=SIGNATURE,
            description=_description(facts),
            # Named here, because MLflow otherwise guesses them by running the model in a second process. The
            # constraints hold whatever these bring with them to the lock as well.
            requirements=[
                *(pin(name, lock) for name in REQUIREMENTS),
                f"torch=={importlib.metadata.version('torch').partition('+')[0]}",
                f"-c {constraints}",
            ],
        )


def _description(facts: Facts) -> str:
    """What MLflow's UI shows of the version."""
    from components.tracking.registry import DIRECTORY

    score, splits = facts.metrics["score"], ", ".join(facts.metrics["evaluate_settings"]["splits"])
    return (
        f"{facts.network}, {facts.origin}, score {score:.4f} on {splits}. What it knows, its limits and the licence of "
        f"its data: {DIRECTORY}/{CARD}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("register", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--model", required=True, metavar="LOCATION", help="model directory")
    parser.add_argument("--metrics", required=True, metavar="LOCATION", help="metrics.json of evaluate")
    parser.add_argument("--run", required=True, metavar="LOCATION", help="run.json of train")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="version.json is written here")
    a = parser.parse_args(argv)
    with errors_in_one_line():
        print(f"registered {register(a.model, a.metrics, a.run, a.out, read_params(a))}")


if __name__ == "__main__":
    main()

"""Step register: a scored model directory becomes a version in MLflow's registry, the new challenger."""

import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import Params
from components.storage import LOCATIONS, Location, local_input, local_output
from xbd.errors import InputError

if TYPE_CHECKING:
    from components.registry import ModelPackage

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pillow", "pydantic", "safetensors")
LOCK = Path("dvc.lock")


class RegisterError(InputError):
    """The metrics of the model cannot be used."""


def register(model: Location, metrics_file: Location, run_file: Location, out: Location, params: Params) -> str:
    """Registers the model directory with signature, input example, code and tags, in the run of its training.

    Writes `out`/version.json. Returns the model's URI, `models:/NAME/VERSION`.
    Raises ModelError, RegisterError, TrackingError, StorageError.
    """
    from components import registry, tracking
    from model.inference import load_model

    with ExitStack() as stack:
        folder = stack.enter_context(local_output(out))
        directory, metrics_path, run_path = (
            stack.enter_context(local_input(location)) for location in (model, metrics_file, run_file)
        )
        load_model(directory)  # a damaged directory must not become a version
        metrics = read_metrics(metrics_path)
        run = tracking.read_run(run_path)
        scores = {key: f"{value:.6f}" for key, value in metrics.items() if isinstance(value, float)}
        tags = scores | tracking.source_tags() | {"data_version": run.data_version, "settings_hash": run.settings_hash}
        version = registry.register_model(run, params.register_.name, _package(directory), tags)
        if LOCK.exists():
            tracking.log_file(run, LOCK)
        uri = f"models:/{version.name}/{version.version}"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"uri": uri, "run_id": run.run_id, "score": metrics["score"], "data_version": run.data_version}
        (folder / "version.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return uri


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads the metrics.json of evaluate; raises RegisterError where it is not one."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        float(metrics["score"])
    except OSError as error:
        raise RegisterError(f"{path}: cannot be read ({error.strerror}): expected metrics.json of evaluate.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RegisterError(f"{path}: is not the metrics.json of evaluate ({error!r}). Evaluate again.") from error
    return dict(metrics)


def _package(model: Path) -> "ModelPackage":
    """What the version consists of: weights, code, requirements, and a pair of images as input example."""
    import numpy as np

    from components.registry import ModelPackage
    from xbd.images import encode_png

    rng = np.random.default_rng(0)
    pre, post = (encode_png(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(2))
    return ModelPackage(
        script=ROOT / "model" / "pyfunc.py",
        artifacts={"model": model},
        code=[ROOT / "model", ROOT / "xbd"],
        example={"pre": pre, "post": post},
        outputs=["localization", "damage"],
        # Named and pinned here, because MLflow otherwise guesses them by running the model in a second process.
        requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS],
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

"""Step train: prepared scenes to a model directory, with checkpoints, a history and an MLflow run."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import Params


def train(data: Path, out: Path, params: Params) -> None:
    """Trains with the section `train` of `params`; writes `out`/model, history.csv, run.json and checkpoints/.

    A run that was interrupted goes on where its last checkpoint stands; see `model.training.train`.
    Raises SceneError, TrainingError.
    """
    from components import tracking
    from components.pretrained import find_pretrained
    from model import training
    from xbd.scenes import data_version, describe, read_index

    pretrained = None if params.train.pretrained is None else find_pretrained(params.train.pretrained)
    if params.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
    print(f"train on {describe(read_index(data, ['train']))}")
    settings = json.dumps(asdict(params.train), sort_keys=True)
    run = tracking.open_run(
        out / "run.json",
        params.tracking.experiment,
        data_version(data),
        hashlib.sha256(settings.encode()).hexdigest(),
    )
    resolved = params.model_dump(mode="json", by_alias=True)
    tracking.log_params(run, {"train": resolved["train"], "prepare": resolved["prepare"]})
    tracking.log_dict(run, resolved, "params.yaml")
    try:
        training.train(
            data,
            out,
            params.train,
            pretrained=pretrained,
            on_epoch=lambda record: tracking.log_metrics(run, record, int(record["epoch"])),
        )
    except BaseException:
        tracking.finish_run(run, failed=True)
        raise
    tracking.log_file(run, out / "history.csv")
    tracking.finish_run(run)
    print(f"model: {out / 'model'}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("train", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared scenes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model is written to DIR/model")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        train(arguments.data, arguments.out, read_params(arguments))


if __name__ == "__main__":
    main()

"""Step evaluate: a model directory and prepared scenes to the xView2 score, a confusion matrix and a picture."""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import EvaluateParams, Params, ParamsError
from components.storage import LOCATIONS, Location, local_input, local_output

if TYPE_CHECKING:
    from torch import Tensor

    from components.tracking import Run
    from xbd.scenes import SceneRecord


def evaluate(
    data: Location,
    model: Location,
    out: Location,
    params: Params,
    *,
    submission: Location | None = None,
    run_file: Location | None = None,
) -> dict[str, Any]:
    """Scores the model on the splits of `params.evaluate`; writes `out`/metrics.json, confusion.csv, report.png.

    submission: folder for predictions and targets in the official file format, so that the official scorer can
    confirm the numbers. run_file: run.json of the training, whose MLflow run is continued; None does not track.
    Returns the metrics. Raises SceneError, ModelError, ParamsError, StorageError.
    """
    unclassified_as = _unclassified_class(params.evaluate, submission)
    with ExitStack() as stack:
        give = stack.enter_context
        folder = give(local_output(out))
        files = None if submission is None else give(local_output(submission, replaces=_is_submission_file))
        # A wrong run ends the step before the work, not after it.
        run = None if run_file is None else _find_run(give(local_input(run_file)))
        directory, scenes = give(local_input(model)), give(local_input(data))
        metrics = _evaluate(scenes, directory, folder, params.evaluate, unclassified_as, files)
        if run is not None:
            _track(run, folder, metrics, scenes)
    return metrics


def _evaluate(
    data: Path, model: Path, out: Path, params: EvaluateParams, unclassified_as: int | None, submission: Path | None
) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from model.inference import Predictor, load_model
    from model.metric import joint_counts, xview2_score
    from model.report import Picture, draw_predictions
    from xbd.dataset import Scenes
    from xbd.folders import new_folder
    from xbd.scenes import describe

    scenes = Scenes(data, params.splits)
    predictor = Predictor(load_model(model).to("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"evaluate {', '.join(params.splits)}: {describe(scenes.records)}")

    counts: dict[tuple[str, str], Tensor] = defaultdict(lambda: torch.zeros(2, 5, 5, dtype=torch.int64))
    # Spread over the index and not the first ones, which are all of one disaster.
    shown = {len(scenes) * i // params.pictures for i in range(params.pictures)}
    pictures = []
    pairs = zip(tqdm(scenes.records, "evaluate", disable=None), DataLoader(scenes, batch_size=1), strict=True)
    with nullcontext() if submission is None else new_folder(submission, _is_submission_file) as folder:
        writer = _SubmissionWriter(folder, unclassified_as)
        for number, (record, sample) in enumerate(pairs):
            localization, damage = (part.cpu() for part in predictor(sample.pre, sample.post))
            added = joint_counts(localization, damage, sample.mask, unclassified_as)
            for group in (("", ""), ("per_split", record.split), ("per_disaster", record.disaster)):
                counts[group] += added
            writer.add(record, localization[0], damage[0], sample.mask[0])
            if number in shown:
                pre, post = (part[0].permute(1, 2, 0).numpy() for part in (sample.pre, sample.post))
                pictures.append(Picture(record.scene, pre, post, sample.mask[0].numpy(), damage[0].numpy()))

    metrics: dict[str, Any] = {key: float(value) for key, value in xview2_score(counts["", ""]).items()}
    for kind in ("per_disaster", "per_split"):
        metrics[kind] = {
            name: {key: float(value) for key, value in xview2_score(group).items()}
            for (of, name), group in sorted(counts.items(), key=lambda item: item[0])
            if of == kind
        }
    out.mkdir(parents=True, exist_ok=True)
    draw_predictions(pictures, out / "report.png")
    _write_confusion(out / "confusion.csv", counts["", ""])
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


class _SubmissionWriter:
    """Predictions and targets as the challenge's scorer reads them; does nothing without a folder."""

    def __init__(self, folder: Path | None, unclassified_as: int | None) -> None:
        self.folder, self.unclassified_as = folder, unclassified_as
        self.numbers: dict[str, int] = defaultdict(int)

    def add(self, record: "SceneRecord", localization: "Tensor", damage: "Tensor", target: "Tensor") -> None:
        """Writes the four files of a scene; numbers count up from 0 within each split, in the index's order."""
        if self.folder is None:
            return
        from xbd.images import encode_png
        from xbd.labels import UNCLASSIFIED

        number = self.numbers[record.split]
        self.numbers[record.split] += 1
        assert self.unclassified_as is not None  # refused at the door, see _unclassified_class
        official = target.clone()
        official[target == UNCLASSIFIED] = self.unclassified_as
        for kind, masks in (
            ("prediction", (localization, damage)),
            ("target", ((official > 0).to(official.dtype), official)),
        ):
            (self.folder / f"{kind}s").mkdir(exist_ok=True)
            for name, mask in zip(("localization", "damage"), masks, strict=True):
                path = self.folder / f"{kind}s" / f"{record.split}_{name}_{number:05}_{kind}.png"
                path.write_bytes(encode_png(mask.numpy()))


def _is_submission_file(path: Path) -> bool:
    return path.parent.name in ("predictions", "targets") and path.stem.endswith(("_prediction", "_target"))


def _unclassified_class(params: EvaluateParams, submission: Location | None) -> int | None:
    if params.unclassified_as != "ignore":
        return params.unclassified_as
    if submission is not None:
        raise ParamsError(
            "evaluate.unclassified_as: found 'ignore' with --submission: the official files cannot say 'ignore'. "
            "Set a class from 0 to 4."
        )
    return None


def _write_confusion(path: Path, counts: "Tensor") -> None:
    """Pixels of each target class by predicted class, and as a share of the target class."""
    from model.metric import confusion
    from xbd.overview import COLOURS

    matrix = confusion(counts).tolist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted", "pixels", "share"])
        for actual, row in enumerate(matrix):
            for predicted, pixels in enumerate(row):
                share = round(pixels / max(1, sum(row)), 4)
                writer.writerow([COLOURS[actual][0], COLOURS[predicted][0], pixels, share])


def _find_run(run_file: Path) -> "Run":
    from components import tracking

    return tracking.read_run(run_file)


def _track(run: "Run", out: Path, metrics: dict[str, Any], data: Path) -> None:
    from components import tracking
    from xbd.scenes import data_version

    tracking.log_metrics(run, {f"test_{key}": value for key, value in metrics.items() if isinstance(value, float)})
    for name in ("metrics.json", "confusion.csv", "report.png"):
        tracking.log_file(run, out / name)
    tracking.tag_run(run, {"evaluated_data_version": data_version(data)})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("evaluate", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--data", required=True, metavar="LOCATION", help="prepared scenes")
    parser.add_argument("--model", required=True, metavar="LOCATION", help="model directory")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="metrics.json and more are written here")
    parser.add_argument("--submission", metavar="LOCATION", help="also write the official scorer's files here")
    parser.add_argument("--run", metavar="LOCATION", help="run.json of train: go on with its MLflow run")
    a = parser.parse_args(argv)
    with errors_in_one_line():
        metrics = evaluate(a.data, a.model, a.out, read_params(a), submission=a.submission, run_file=a.run)
    print("\n".join(f"{key:24} {value:.4f}" for key, value in metrics.items() if isinstance(value, float)))


if __name__ == "__main__":
    main()

"""Step evaluate: a model directory and prepared scenes to the xView2 score, with all that stands behind it."""

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.access import unreadable
from base.errors import InputError, printable
from components.cli import errors_in_one_line, read_params, step_parser
from components.params import EvaluateParams, Params, ParamsError
from components.storage.locations import LOCATIONS, Location, local_input, local_output
from components.storage.prepared import local_scenes

if TYPE_CHECKING:
    import torch

    from components.tracking.runs import Run
    from model.judge.evaluation import Evaluation, SceneResult


class EvaluateError(InputError):
    """A file of the training that the report cannot use."""


def evaluate(
    data: Location | Sequence[Location],
    model: Location,
    out: Location,
    params: Params,
    *,
    submission: Location | None = None,
    run_file: Location | None = None,
    history: Location | None = None,
) -> dict[str, Any]:
    """Scores the model on the splits of `params.evaluate`, in the scenes of one location or several.

    Writes `out`/metrics.json, confusion.csv, scenes.csv and report.html.
    submission: folder for predictions and targets in the official file format, so that the official scorer can
    confirm the numbers. run_file: run.json of the training, whose MLflow run is continued; None does not track.
    history: history.csv of the training, for the report's curves.
    Returns the metrics. Raises SceneError, ModelError, ParamsError, EvaluateError, StorageError, DeviceError.
    """
    from model.device import choose_device
    from model.judge.submission import is_submission_file

    unclassified_as = _unclassified_class(params.evaluate, submission)
    device = choose_device()
    with ExitStack() as stack:
        give = stack.enter_context
        folder = give(local_output(out))
        files = None if submission is None else give(local_output(submission, replaces=is_submission_file))
        # A wrong file ends the step before the work, not after it.
        run = None if run_file is None else _find_run(give(local_input(run_file)))
        curves = [] if history is None else _find_history(give(local_input(history)))
        directory, scenes = give(local_input(model)), give(local_scenes(data))
        metrics = _evaluate(scenes, directory, folder, params.evaluate, unclassified_as, files, curves, device)
        if run is not None:
            _track(run, folder, metrics, params.evaluate)
    return metrics


def _evaluate(
    data: Path,
    model: Path,
    out: Path,
    params: EvaluateParams,
    unclassified_as: int | None,
    submission: Path | None,
    history: Sequence[Mapping[str, float]],
    device: "torch.device",
) -> dict[str, Any]:
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from base.files import new_folder
    from model.device import describe_device
    from model.inference import Prediction, Predictor, Probabilities, load_model
    from model.judge.evaluation import Evaluation, describe_absence, vote
    from model.judge.report import choose, show, thumbnail, write_report
    from model.judge.submission import SubmissionWriter, is_submission_file
    from xbd.dataset import Sample, Scenes
    from xbd.scenes import describe, prepared_version

    scenes = Scenes(data, params.splits)
    predictor = Predictor(load_model(model).to(device), params.views)
    what = f"{', '.join(params.splits)}: {describe(scenes.records)}"
    print(f"evaluate {what}\n{describe_device(device)}")

    def predict(sample: Sample) -> tuple[Prediction, Probabilities]:
        prediction, probabilities = predictor.probabilities(sample.pre, sample.post)
        return Prediction(*(part.cpu() for part in prediction)), Probabilities(*(part.cpu() for part in probabilities))

    evaluation = Evaluation(params.per_building == "vote", unclassified_as, predictor.temperatures)
    thumbnails = []
    pairs = zip(tqdm(scenes.records, "evaluate", disable=None), DataLoader(scenes, batch_size=1), strict=True)
    with nullcontext() if submission is None else new_folder(submission, is_submission_file) as folder:
        writer = None if folder is None or unclassified_as is None else SubmissionWriter(folder, unclassified_as)
        for record, sample in pairs:
            scored = evaluation.add(record, *predict(sample), sample.mask)
            if writer is not None:
                writer.add(record, scored, sample.mask)
            thumbnails.append(thumbnail(sample.post[0].permute(1, 2, 0).numpy(), scored))

    # Which scenes are shown is known at the end only; predicting these few again keeps no image in memory until then.
    shown = []
    for why, number in choose(evaluation.scenes, params.pictures):
        sample = Sample(*(part[None] for part in scenes[number]))
        prediction, probabilities = predict(sample)
        grading = vote(prediction, probabilities)
        pre, post = (part[0].permute(1, 2, 0).numpy() for part in (sample.pre, sample.post))
        scored = evaluation.scored(prediction, grading)
        shown.append(show(why, evaluation.scenes[number], pre, post, sample.mask[0].numpy(), scored, grading))

    # Scores compare only where both are equal. How many pictures are drawn changes no score.
    measured = {
        "prepared_version": prepared_version(data),
        # A setting that came later and stands at its default leaves earlier scores what they were.
        "evaluate_settings": params.model_dump(mode="json", exclude={"pictures"}, exclude_defaults=True),
    }
    metrics = evaluation.metrics() | measured
    if absence := describe_absence(metrics):
        print(absence)
    out.mkdir(parents=True, exist_ok=True)
    write_report(out / "report.html", f"Evaluation on {what}", evaluation, thumbnails, shown, history)
    _write_confusion(out / "confusion.csv", evaluation)
    _write_scenes(out / "scenes.csv", evaluation.scenes)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def _unclassified_class(params: EvaluateParams, submission: Location | None) -> int | None:
    if params.unclassified_as != "ignore":
        return params.unclassified_as
    if submission is not None:
        raise ParamsError(
            "evaluate.unclassified_as: found 'ignore' with --submission: the official files cannot say 'ignore'. "
            "Set a class from 0 to 4."
        )
    return None


def _write_confusion(path: Path, evaluation: "Evaluation") -> None:
    """Pixels of each target class by predicted class, and as a share of the target class."""
    from base.grades import LEGEND
    from model.score import confusion

    pixels, shares = confusion(evaluation.counts).tolist(), evaluation.confusion_shares()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted", "pixels", "share"])
        for actual, predicted in product(range(len(pixels)), repeat=2):
            names = LEGEND[actual][0], LEGEND[predicted][0]
            writer.writerow([*names, pixels[actual][predicted], round(shares[actual][predicted], 4)])


def _write_scenes(path: Path, scenes: Sequence["SceneResult"]) -> None:
    """A line for each scene: its own scores, and its pixels of each target class (t) by predicted class (p)."""
    from model.judge.evaluation import GROUPS

    scores = ("score", "localization_f1", "damage_f1")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scene", *GROUPS, *scores, *(f"t{t}_p{p}" for t in range(5) for p in range(5))])
        for scene in scenes:
            found = [""] * len(scores) if scene.scores is None else [scene.scores[key] for key in scores]
            groups = (getattr(scene.record, column) for column in GROUPS)
            writer.writerow([scene.record.scene, *groups, *found, *scene.confusion.flatten().tolist()])


def _find_run(run_file: Path) -> "Run":
    from components.tracking import runs

    return runs.read_run(run_file)


def _find_history(path: Path) -> list[dict[str, float]]:
    """The records of a history.csv; raises EvaluateError where it is none."""
    from model.judge.report import read_history

    try:
        return read_history(path)
    except OSError as error:
        raise EvaluateError(f"{path}: {unreadable(path, error, ', expected history.csv of train.')}") from error
    except ValueError as error:
        found = "is no text" if isinstance(error, UnicodeError) else printable(str(error))
        raise EvaluateError(f"{path}: {found}, expected history.csv of train. Give the one of this model.") from error


def _track(run: "Run", out: Path, metrics: dict[str, Any], params: EvaluateParams) -> None:
    """Logs under names that carry the splits, so that one evaluation of a run leaves those of other splits alone."""
    from components.tracking import runs

    for split, scores in metrics["per_split"].items():
        runs.log_metrics(run, runs.of_splits([split], scores))
    runs.log_metrics(run, runs.of_splits(params.splits, metrics))
    prefix = runs.prefix_of(params.splits)
    for name in ("metrics.json", "confusion.csv", "scenes.csv", "report.html"):
        runs.log_file(run, out / name, folder=prefix)
    tags = {
        "prepared_version": metrics["prepared_version"],
        "evaluate_settings": json.dumps(metrics["evaluate_settings"], sort_keys=True),
        "absent_grades": ", ".join(metrics["absent_grades"]) or "none",
    }
    runs.tag_run(run, {f"{prefix}_{key}": value for key, value in tags.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("evaluate", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--data", required=True, nargs="+", metavar="LOCATION", help="prepared scenes")
    parser.add_argument("--model", required=True, metavar="LOCATION", help="model directory")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="metrics.json and more are written here")
    parser.add_argument("--submission", metavar="LOCATION", help="also write the official scorer's files here")
    parser.add_argument("--run", metavar="LOCATION", help="run.json of train: go on with its MLflow run")
    parser.add_argument("--history", metavar="LOCATION", help="history.csv of train: its curves in the report")
    a = parser.parse_args(argv)
    with errors_in_one_line():
        files = {"submission": a.submission, "run_file": a.run, "history": a.history}
        metrics = evaluate(a.data, a.model, a.out, read_params(a), **files)
    print("\n".join(f"{key:30} {value:.4f}" for key, value in metrics.items() if isinstance(value, float)))


if __name__ == "__main__":
    main()

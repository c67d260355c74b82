"""Moves the grades of a finished model as `train.logit_adjustment` does, without training it again.

python -m model.calibration --model DIR --data PREPARED --logit-adjustment 1 --out NEW
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from base.command_line import Parser
from base.errors import InputError, errors_in_one_line
from base.files import new_folder
from model.calibration.afterwards import calibrate_on_validation
from model.calibration.offsets import count_grades, grade_offsets
from model.inference import CONFIG, FILES, load_model, read_origin
from xbd.scenes import prepared_version, read_index

LARGEST = 10.0  # as of `train.logit_adjustment`


def adjust(directory: Path, data: Path, strength: float, out: Path) -> None:
    """Writes the model directory with other offsets of the grades, and temperatures that fit these, to `out`.

    data: the prepared data set that the model was trained on. Raises InputError where it is another one, ModelError and
    SceneError where model or data cannot be read.
    """
    model, trained_on, version = load_model(directory), read_origin(directory).prepared_version, prepared_version(data)
    if trained_on is not None and trained_on != version:
        raise InputError(
            f"{data}: is version {version[:12]} of prepared data, and {directory} was trained on {trained_on[:12]}, "
            "whose shares of the grades count. Give the data set of its training."
        )
    model.grade_offsets = grade_offsets(count_grades(data, read_index(data, ["train"])), strength)
    model.temperatures = None  # they fit the logits as they were
    model.temperatures = calibrate_on_validation(data, model, lambda: None)
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    for name, found in (("temperatures", model.temperatures), ("grade_offsets", model.grade_offsets)):
        config.pop(name, None)
        if found is not None:
            config[name] = asdict(found)
    with new_folder(out, lambda path: str(path) in FILES) as folder:
        for name in FILES:
            if (directory / name).exists():
                shutil.copyfile(directory / name, folder / name)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Gives a trained model other offsets of the grades: the weights stay as they are."""
    parser = Parser(prog="python -m model.calibration", description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a model directory")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the prepared scenes of its training")
    parser.add_argument(
        "--logit-adjustment", type=_strength, required=True, metavar="S", help="as in train; 0 takes the offsets away"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the model directory")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        adjust(arguments.model, arguments.data, arguments.logit_adjustment, arguments.out)
        print(f"model: {arguments.out}")


def _strength(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"found {value}, expected a number from 0 to {LARGEST:g}")
    return number


if __name__ == "__main__":
    main()

"""Weights of the published Dual-HRNet to a model directory, which evaluate, register and predict read."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from components.cli import errors_in_one_line


def import_weights(checkpoint: Path, out: Path) -> None:
    """Writes a published checkpoint as the model directory `out`; prints what was found.

    Raises WeightsError where the checkpoint cannot be used, InputError where `out` holds other files.
    """
    from model.inference import save_model
    from model.weights import load_published

    model = load_published(checkpoint)
    save_model(model, out)
    a, parameters = model.architecture, sum(parameter.numel() for parameter in model.parameters())
    print(f"{checkpoint}: Dual-HRNet of width {a.width}, modules {list(a.modules)}, {parameters:,} parameters")
    print(f"model: {out}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = argparse.ArgumentParser(prog="python -m components.import_weights", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="published weight.pth")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model directory is written here")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        import_weights(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()

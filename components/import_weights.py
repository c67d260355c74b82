"""Weights of the published Dual-HRNet to a model directory, which evaluate, register and predict read."""

from collections.abc import Sequence

from base.command_line import Parser
from components.cli import errors_in_one_line
from components.storage.locations import LOCATIONS, Location, local_input, local_output


def import_weights(checkpoint: Location, out: Location) -> None:
    """Writes a published checkpoint as the model directory `out`; prints what was found.

    Raises WeightsError where the checkpoint cannot be used, InputError where `out` holds other files, StorageError.
    """
    from model.inference import FILES, save_model
    from model.published import load_published

    with local_input(checkpoint) as path:
        model = load_published(path)
    with local_output(out, replaces=lambda path: str(path) in FILES) as directory:
        save_model(model, directory)
    a, parameters = model.architecture, sum(parameter.numel() for parameter in model.parameters())
    print(f"{checkpoint}: Dual-HRNet of width {a.width}, modules {list(a.modules)}, {parameters:,} parameters")
    print(f"model: {out}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.import_weights", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--checkpoint", required=True, metavar="LOCATION", help="published weight.pth")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the model directory is written here")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        import_weights(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()

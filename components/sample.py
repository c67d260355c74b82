"""Step sample: writes the synthetic data set, so that every other step runs without xBD."""

from collections.abc import Sequence

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import SampleParams
from components.storage.locations import LOCATIONS, Location, local_output


def sample(out: Location, params: SampleParams) -> None:
    """Writes the sample of `params` in the raw xBD layout to `out`; see `xbd.sample.synthetic.write_sample`."""
    from xbd.sample.synthetic import PREFIX, write_sample

    with local_output(out, replaces=lambda path: path.name.startswith(PREFIX)) as folder:
        write_sample(folder, train=params.train, test=params.test, size=params.size, seed=params.seed)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("sample", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--out", required=True, metavar="LOCATION", help="raw scenes are written here")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        sample(arguments.out, read_params(arguments).sample)


if __name__ == "__main__":
    main()

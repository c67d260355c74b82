"""Step assess: a map and what people judged of it to numbers that hold, and to a map that is adapted to the event."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from base.command_line import Parser
from components.cli import errors_in_one_line
from components.storage.locations import LOCATIONS, Location, local_input, local_output

if TYPE_CHECKING:
    from imagery.assessing.assessment import Assessment


def assess(
    map_folder: Location, judgements: Sequence[Location], out: Location, *, areas: Location | None = None,
    add_missed: bool = False,
) -> "Assessment":  # fmt: skip
    """Reads a map of predict and judgements of its buildings, and writes `imagery.assessing.outputs.FILES` into `out`.

    judgements: files that the map's page gave, of one or several people. areas: a vector file of areas to estimate for.
    add_missed: also tell the totals with the buildings that the map missed.
    Prints what became of the map, and warnings. Raises MapError, JudgementError, DrawError, VectorError, StorageError,
    and InputError where `out` holds something else.
    """
    import sys
    from hashlib import sha256

    from base.files import refuse_to_replace_others
    from imagery.assessing.assessment import assess_map, sit
    from imagery.assessing.judged_map import read_map
    from imagery.assessing.outputs import is_ours, write_assessment
    from imagery.read.vectors import read_polygons
    from imagery.sampling.judgements_file import read_counts, read_judgements

    with ExitStack() as stack:
        folder = stack.enter_context(local_output(out, replaces=is_ours))
        refuse_to_replace_others(folder, is_ours)
        given = read_map(stack.enter_context(local_input(map_folder)))
        files = {str(place): stack.enter_context(local_input(place)) for place in judgements}
        sitting = sit(
            {name: read_judgements(path, given.draw, given.ids) for name, path in files.items()},
            [read_counts(path, given.draw, given.squares) for path in files.values()],
        )
        polygons = None if areas is None else read_polygons(stack.enter_context(local_input(areas)))
        found = assess_map(given, sitting, polygons, add_missed=add_missed)
        hashes = {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        write_assessment(folder, given, found, {"judgements": hashes})
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.assess", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--map", required=True, metavar="LOCATION", help="folder of a map that predict made")
    parser.add_argument(
        "--judgements", required=True, nargs="+", metavar="LOCATION", help="judgements.geojson of one or several people"
    )
    parser.add_argument("--out", required=True, metavar="LOCATION", help="results are written here")
    parser.add_argument("--areas", metavar="LOCATION", help="vector file of areas to estimate for, besides the whole")
    parser.add_argument(
        "--with-missed",
        action="store_true",
        help="add the buildings that the map missed, from the squares in the judgements",
    )
    a = parser.parse_args(argv)
    with errors_in_one_line():
        found = assess(a.map, a.judgements, a.out, areas=a.areas, add_missed=a.with_missed)
        print(found.said)
        if found.missed is not None:
            print(found.missed)
        for name, own in found.together.items():
            print(f"{name}, with those that the map missed: {own}")
        print(f"{found.headline}; wrote assessment.html, estimates.csv, buildings.gpkg and more to {a.out}")


if __name__ == "__main__":
    main()

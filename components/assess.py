"""Step assess: a map and what people judged of it to numbers that hold, and to a map that is adapted to the event."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from base.command_line import Parser
from components.cli import errors_in_one_line
from components.events.names import check_name
from components.storage.locations import LOCATIONS, Location, local_input, local_output

if TYPE_CHECKING:
    from imagery.assessing.assessment import Assessment


def assess(
    map_folder: Location, judgements: Sequence[Location], out: Location, *, areas: Location | None = None,
    add_missed: bool = False, event: str | None = None, model: Location | None = None,
) -> "Assessment":  # fmt: skip
    """Reads a map of predict and judgements of its buildings, and writes `imagery.assessing.outputs.FILES` into `out`.

    judgements: files that the map's page gave, of one or several people. areas: a vector file of areas to estimate for.
    add_missed: also tell the totals with the buildings that the map missed. event: the name under which the event's
    model is registered, where the map takes its grades; without a name nothing goes to MLflow. model: where the model
    that made the map is, if not where the map says.
    Prints warnings, and what was registered. Raises MapError, JudgementError, DrawError, VectorError, StorageError,
    InputError where `out` holds something else, and of registering EventError, ModelError, TrackingError; the results
    then stay in `out`, if that is a path.
    """
    import sys
    from hashlib import sha256

    from base.files import refuse_to_replace_others
    from imagery.assessing.assessment import assess_map, sit
    from imagery.assessing.judged_map import read_map
    from imagery.assessing.outputs import is_ours, write_assessment
    from imagery.read.vectors import read_polygons
    from imagery.sampling.judgements_file import read_counts, read_judgements

    if event is not None:
        from components.tracking.connection import reach

        check_name(event)
        reach()
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
        write_assessment(folder, given, found, {"judgements": hashes, "base": given.location, "event": event})
        for warning in found.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if event is not None:
            print(_registered(folder, found, event, model))
    return found


def _registered(folder: Path, found: "Assessment", event: str, model: Location | None) -> str:
    if found.adapted is None or found.adapted.keeps:
        return "nothing is registered, as no model of the event gives the grades"
    from components.events.registering import register_event

    version = register_event(folder, model)
    return (
        f"{version.name} version {version.version} is the model of {event}; to have it stand for the event: python -m "
        f"components.promote --model {version.name} --version {version.version}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.assess", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--map", required=True, metavar="LOCATION", help="folder of a map that predict made")
    parser.add_argument(
        "--judgements", required=True, nargs="+", metavar="LOCATION", help="judgements.geojson of one or several people"
    )
    parser.add_argument("--out", required=True, metavar="LOCATION", help="results are written here")
    parser.add_argument("--areas", metavar="LOCATION", help="vector file of areas to estimate for, besides the whole")
    parser.add_argument("--event", metavar="NAME", help="register the model of the event under this name in MLflow")
    parser.add_argument(
        "--model", metavar="LOCATION", help="with --event: the model that made the map, if not where the map says"
    )
    parser.add_argument(
        "--with-missed",
        action="store_true",
        help="add the buildings that the map missed, from the squares in the judgements",
    )
    a = parser.parse_args(argv)
    if a.model is not None and a.event is None:
        parser.error("--model is for --event")
    with errors_in_one_line():
        found = assess(
            a.map, a.judgements, a.out, areas=a.areas, add_missed=a.with_missed, event=a.event, model=a.model
        )
        print(found.said)
        if found.missed is not None:
            print(found.missed)
        for name, own in found.together.items():
            print(f"{name}, with those that the map missed: {own}")
        print(f"{found.headline}; wrote assessment.html, estimates.csv, buildings.gpkg and more to {a.out}")


if __name__ == "__main__":
    main()

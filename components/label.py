"""Step label: a map, its images and what people judged of it to scenes to train on, in the raw xBD layout."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from base.command_line import Parser
from components.cli import errors_in_one_line
from components.storage.locations import LOCATIONS, Location, local_input, local_output

if TYPE_CHECKING:
    from pathlib import Path

    from imagery.labelling.scenes import Cut


def label(
    map_folder: Location, judgements: Sequence[Location], pre: Sequence[Location], post: Sequence[Location],
    out: Location, *, event: str, disaster_type: str | None = None, trust: float | None = None,
) -> "Cut":  # fmt: skip
    """Writes the scenes of `imagery.labelling.scenes.write_scenes` to `out`.

    map_folder: of predict. judgements: files that its page gave, or one GeoPackage of its buildings that a person
    edited. pre, post: the images that the map was made of. event: the disaster's name. trust: a building that nobody
    judged has the map's grade where its confidence is so much or more; None: it is un-classified.
    Prints warnings. Raises EventError, MapError, JudgementError, DrawError, VectorError, RasterError, StorageError,
    and InputError where `out` holds something else.
    """
    from hashlib import sha256

    from base.files import refuse_to_replace_others
    from imagery.give.names import GEOJSON, hash_of
    from imagery.labelling.classes import read_labelled
    from imagery.labelling.images import open_images
    from imagery.labelling.scenes import Event, is_ours, write_scenes

    disaster = Event(event, disaster_type)
    with ExitStack() as stack:

        def local(location: Location) -> "Path":
            return stack.enter_context(local_input(location))

        folder = stack.enter_context(local_output(out, replaces=lambda path: is_ours(event, path)))
        refuse_to_replace_others(folder, lambda path: is_ours(event, path))
        given = local(map_folder)
        files = {str(place): local(place) for place in judgements}
        labelled = read_labelled(given, [*files.values()], trust)
        names = [" ".join(map(str, images)) for images in (pre, post)]
        pair = stack.enter_context(open_images(given, [*map(local, pre)], [*map(local, post)], names))
        hashes = {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        about = {"judgements": hashes, "trust": trust}
        cut = write_scenes(folder, pair, labelled, disaster, hash_of(given / GEOJSON), about)
    for note in labelled.notes:
        print(f"warning: {note}", file=sys.stderr)
    return cut


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.label", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--map", required=True, metavar="LOCATION", help="folder of a map that predict made")
    parser.add_argument(
        "--judgements", required=True, nargs="+", metavar="LOCATION",
        help="judgements.geojson of one or several people, or the map's buildings.gpkg, edited",
    )  # fmt: skip
    parser.add_argument("--pre", required=True, nargs="+", metavar="LOCATION", help="image before, as predict had it")
    parser.add_argument("--post", required=True, nargs="+", metavar="LOCATION", help="image after")
    parser.add_argument("--event", required=True, metavar="NAME", help="of the disaster, such as socal-fire")
    parser.add_argument("--disaster-type", metavar="TYPE", help="in xBD's words, such as fire, flooding, wind")
    parser.add_argument(
        "--trust", type=_share, metavar="CONFIDENCE",
        help="a building that nobody judged has the map's grade from this confidence on (it is un-classified)",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="LOCATION", help="raw scenes are written here")
    a = parser.parse_args(argv)
    with errors_in_one_line():
        from imagery.labelling.scenes import describe_background

        cut = label(
            a.map, a.judgements, a.pre, a.post, a.out, event=a.event, disaster_type=a.disaster_type, trust=a.trust
        )
        counts = ", ".join(f"{count} {name}" for name, count in cut.drawn.items() if count)
        print(f"{len(cut.scenes)} scenes in {a.out}; buildings in them: {counts}")
        print(describe_background(cut))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number from 0 to 1")
    return value


if __name__ == "__main__":
    main()

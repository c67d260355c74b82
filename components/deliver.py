"""Step deliver: a map with everything of it to one place, with a STAC item, and its numbers to a run in MLflow.

Ends with 0 where the map is complete, with 3 where it is partial.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from base.times import read_time
from components.cli import errors_in_one_line, read_params, step_parser
from components.merge import PARTIAL
from components.storage.locations import LOCATIONS, Location, local_input, local_output


class Delivery(NamedTuple):
    """state: "complete" or "partial". numbers: of the map, see `imagery.delivered.Delivered`. run: the id of
    the run in MLflow.
    """

    state: str
    numbers: Mapping[str, float]
    run: str


def deliver(
    map_folder: Location, out: Location, experiment: str, *, name: str | None = None, taken: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Delivery:  # fmt: skip
    """Copies a map of `components.predict` or `components.merge` to `out` and adds stac.json, which comes last; then
    records its numbers in a run of the experiment.

    The same map in the same place is one run, however often it is delivered. name: of item and run, by default the last
    part of `out`. taken: when the image from after the disaster was, by ISO 8601, if not what the map says. tags: more
    tags of the run. Raises DeliveryError, StorageError, TrackingError, and InputError where `out` holds something else;
    a map that is there stays there if MLflow fails.
    """
    from base.files import copy_anew, new_folder
    from base.stac import ITEM
    from components.events.sources import describe_source
    from components.tracking.connection import reach
    from components.tracking.deliveries import record_delivery
    from imagery.delivered import read_delivered
    from imagery.formats.stac import Taken, write_item
    from imagery.give.names import GEOJSON, hash_of
    from imagery.give.outputs import is_ours
    from imagery.give.summary import SUMMARY_FILES

    name = name or Path(str(out).rstrip("/")).name
    after = None if taken is None else read_time("--taken", taken)
    reach()
    with ExitStack() as stack:
        source = stack.enter_context(local_input(map_folder))
        found = read_delivered(source)
        with local_output(out, replaces=is_ours) as folder, new_folder(folder, is_ours) as new:
            copy_anew(source, new)
            made_by = describe_source(found.facts["model"]) if "model" in found.facts else None  # of earlier versions
            item = write_item(new, made_by, datetime.now(UTC), Taken(after=after), name).read_bytes()
        known = {"state": found.state, "map": hash_of(source / GEOJSON), "delivered_to": str(out), **found.facts}
        missing = {"left_out": ", ".join(each["what"] for each in found.left_out)} if found.left_out else {}
        texts = {SUMMARY_FILES[1]: (source / SUMMARY_FILES[1]).read_bytes(), ITEM: item}
        run = record_delivery(experiment, name, {**known, **missing, **(tags or {})}, found.numbers, texts)
    print(f"{found.said}\n{name}: {out}, run {run} of the experiment {experiment}")
    return Delivery(found.state, found.numbers, run)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("deliver", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--map", required=True, metavar="LOCATION", help="folder of the map")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the map goes here, with all of its files")
    parser.add_argument("--name", metavar="NAME", help="of the STAC item and the run (default: last part of --out)")
    text = "when the image from after the disaster was, such as 2018-10-13T16:48:00Z; it is the item's datetime"
    parser.add_argument("--taken", metavar="TIME", help=text)
    a = parser.parse_args(argv)
    with errors_in_one_line():
        experiment = read_params(a).tracking.experiment
        found = deliver(a.map, a.out, experiment, name=a.name, taken=a.taken)
        if found.state != "complete":
            sys.exit(PARTIAL)


if __name__ == "__main__":
    main()

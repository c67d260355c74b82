"""Step plan: files of images before and after, to a plan by which a map is made in shards, each on its own machine."""

import argparse
import posixpath
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from base.command_line import Parser, whole_number
from base.times import read_time
from components.cli import errors_in_one_line
from components.events.sources import local_source, refuse_another_network
from components.storage.locations import LOCATIONS, Location, files_at, local_input, local_output
from imagery.options import add_reading, refuse_two, taken
from imagery.settings import ALIGN, RASTERS, Reading, Windows

if TYPE_CHECKING:
    from imagery.shards.items import Image
    from imagery.shards.plan import Plan
    from model.inference import Views

MOST = 10_000  # shards
COLLECTION = (".json", ".geojson")  # of STAC items


def plan(
    model: Location, pre: Sequence[Location], post: Sequence[Location], out: Location, shards: int, *,
    reading: Reading | None = None, windows: Windows | None = None, align: str = ALIGN, features: bool = True,
    views: "Views" = 1, event: str | None = None, footprints: Location | None = None,
) -> "Plan":  # fmt: skip
    """Writes plan.json into `out`, by which `components.predict` makes each shard and `components.merge` the map.

    pre, post: files, folders of them, of which all rasters are taken, or collections of STAC items, .json. event: when
    the disaster was, by ISO 8601: of collections what was taken before it is in pre, and what after in post. What
    cannot be used is left out, printed, and kept in the plan. The rest: see `components.predict.predict_imagery`.
    Raises EventError, EventModelError, ModelError, OutputError, PlanError, RasterError, VectorError, StorageError,
    TrackingError.
    """
    from imagery.mapping import stated_by
    from imagery.predict.inference import identity_of
    from imagery.shards.items import choose
    from imagery.shards.plan import PLAN
    from imagery.shards.planning import PlannedModel, make_plan
    from model.calibration.domain import read_domain
    from model.inference import load_model, read_origin

    with ExitStack() as stack:

        def load() -> PlannedModel:
            source = stack.enter_context(local_source(model))  # of an alias the version that it names now
            directory, learned = source.directory, source.event
            identity, stated = identity_of(directory), stated_by(load_model(directory))
            if learned is not None:
                refuse_another_network(model, identity, learned.network)
            places = _lasting(source.location), _lasting(source.fetched)
            origin, domain = read_origin(directory), read_domain(directory)
            return PlannedModel(*places, identity, origin, domain, learned, stated)

        folder = stack.enter_context(local_output(out))
        when = None if event is None else read_time("--event", event)
        (before, after), taken = choose(_files(pre, stack), _files(post, stack), when)
        made = make_plan(
            load, before, after, lambda location: stack.enter_context(local_input(location)), shards,
            reading=reading or Reading(), windows=windows or Windows(), features=features, views=views, align=align,
            names={"before": [*map(str, pre)], "after": [*map(str, post)]}, taken=taken,
            footprints=None if footprints is None else (str(footprints), _lasting(footprints)),
        )  # fmt: skip
        made.write(folder / PLAN)
    return made


def _files(locations: Sequence[Location], stack: ExitStack) -> list["Image"]:
    """The files themselves, the rasters of folders, and the images of collections."""
    from imagery.shards.items import Image, read_items

    found: list[Image] = []
    for location in locations:
        files = [_lasting(file) for file in files_at(location)]
        if files != [_lasting(location)]:
            found += [Image(file, None) for file in files if file.lower().endswith(RASTERS)]
        elif files[0].lower().endswith(COLLECTION):
            items = read_items(stack.enter_context(local_input(location)))
            found += [Image(_beside(files[0], item.href), item) for item in items]
        else:
            found.append(Image(files[0], None))
    return found


def _beside(collection: str, href: str) -> str:
    """An asset's location: what is not whole is relative to the collection."""
    if ":/" in href or href.startswith("/"):
        return href
    scheme, separator, path = collection.rpartition("://")
    return scheme + separator + posixpath.normpath(posixpath.join(posixpath.dirname(path), href))


def _lasting(location: Location) -> str:
    """The location as another process finds it, wherever that works."""
    return str(location) if ":/" in str(location) else str(Path(location).absolute())


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.plan", description=__doc__, epilog=LOCATIONS)
    text = "model directory, or models:/NAME@ALIAS, also of an event"
    parser.add_argument("--model", required=True, metavar="LOCATION", help=text)
    text = "GeoTIFFs {} the disaster, folders of them, or collections of STAC items (.json)"
    parser.add_argument("--pre", required=True, nargs="+", metavar="LOCATION", help=text.format("before"))
    parser.add_argument("--post", required=True, nargs="+", metavar="LOCATION", help=text.format("after"))
    parser.add_argument("--out", required=True, metavar="LOCATION", help="folder to write plan.json to")
    parser.add_argument("--shards", required=True, type=whole_number(1, MOST), metavar="N", help="parts of the map")
    text = "when the disaster was, such as 2018-09-28T10:02:00Z, which parts the items of collections"
    parser.add_argument("--event", metavar="TIME", help=text)
    text = "vector file of buildings to grade, not those found"
    parser.add_argument("--footprints", metavar="LOCATION", help=text)
    parser.add_argument("--views", type=int, choices=(1, 4, 8), default=1, help="as of components.predict")
    group = parser.add_argument_group("reading", argument_default=argparse.SUPPRESS)
    names = [option.dest for option in add_reading(group)]
    a = parser.parse_args(argv)
    given = {name: value for name, value in vars(a).items() if name in names}
    with errors_in_one_line():
        refuse_two(given, ("percentiles", "value_range"))
        reading, windows = taken(Reading, given), taken(Windows, given)
        made = plan(
            a.model,
            a.pre,
            a.post,
            a.out,
            a.shards,
            reading=reading,
            windows=windows,
            views=a.views,
            event=a.event,
            footprints=a.footprints,
            **given,
        )
        left = f", {len(made.left_out)} files left out" if made.left_out else ""
        print(f"wrote plan.json of {len(made.shards)} shards to {a.out}{left}")


if __name__ == "__main__":
    main()

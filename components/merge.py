"""Step merge: the shards of a plan to one map, the same as one machine makes.

Ends with 0 where the map is complete, with 3 where it is partial: files or shards are missing, and named in
summary.json and report.html.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from base.command_line import Parser, whole_number
from base.errors import InputError
from components.cli import errors_in_one_line
from components.events.sources import describe_source
from components.storage.locations import (
    LOCATIONS,
    Location,
    folders_in,
    join,
    local_input,
    local_output,
    scratch_for,
)
from imagery.options import add_formats, refuse_two
from imagery.settings import CELL, LARGEST

if TYPE_CHECKING:
    from imagery.give.summary import Summary

PARTIAL = 3  # exit code
WORKERS = 2


def merge(
    plan: Location, shards: Location, out: Location, *, areas: Location | None = None, cell: float = CELL,
    formats: Sequence[str] = (), failed: Mapping[str, str] | None = None, workers: int = WORKERS,
) -> tuple["Summary", str]:  # fmt: skip
    """Writes the map of the shards that lie in the folder `shards` into `out`, with the files of
    `components.predict.predict_imagery`; returns the summary, and "complete" or "partial".

    plan: of `components.plan`. A shard that is not there, of another plan or damaged is left out, as are the files that
    the plan leaves out; the summary and the report name them. failed: why shards have failed, by the names of their
    folders; they are left out. areas, cell, formats: see `components.predict.predict_imagery`. workers: processes that
    share the work on many buildings.
    Raises PlanError where no shard is left, RasterError, VectorError, OutputError, StorageError, LostProcessError.
    """
    from imagery.give.outputs import check_outputs, crew_of
    from imagery.read.vectors import read_polygons
    from imagery.shards.merging import merge_shards
    from imagery.shards.plan import LeftOut, read_plan
    from imagery.shards.stored import StoredShard, name_of, read_shard

    scratch = scratch_for(out, "merge")
    with ExitStack() as stack, crew_of(workers) as crew:
        folder = stack.enter_context(local_output(out))
        check_outputs(folder, cell)
        made = read_plan(stack.enter_context(local_input(plan)))
        polygons = None if areas is None else read_polygons(stack.enter_context(local_input(areas))).named(str(areas))
        there, found, missing = folders_in(shards), list[StoredShard](), list[LeftOut]()
        known = failed or {}
        for number in range(len(made.shards)):
            name = name_of(number)
            try:
                if name in known:
                    raise InputError(f"{join(shards, name)}: {known[name]}")
                if name not in there:
                    raise InputError(f"{join(shards, name)}: is not there: it was not predicted, or failed.")
                found.append(read_shard(stack.enter_context(local_input(join(shards, name))), made, number))
            except InputError as error:
                missing.append(LeftOut(what=name, why=str(error)))
        made_by = describe_source(made.network) if "stac" in formats else None
        summary, state = merge_shards(
            made, found, missing, lambda location: stack.enter_context(local_input(location)), folder, scratch,
            areas=polygons, cell=cell, formats=formats, made_by=made_by, crew=crew,
        )  # fmt: skip
    shutil.rmtree(scratch)
    return summary, state


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.merge", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--plan", required=True, metavar="LOCATION", help="plan.json of components.plan")
    parser.add_argument("--shards", required=True, metavar="LOCATION", help="folder of the predicted shards")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="the map is written here")
    group = parser.add_argument_group("summary", argument_default=argparse.SUPPRESS)
    group.add_argument("--areas", metavar="LOCATION", help="vector file of areas to sum up by, and not by squares")
    group.add_argument("--cell", type=float, help=f"metres of the summary's squares ({CELL:g})")
    add_formats(group)
    parser.add_argument(
        "--workers", type=whole_number(1, LARGEST["workers"]), default=WORKERS,
        help=f"processes that share the work on many buildings ({WORKERS})",
    )  # fmt: skip
    a = parser.parse_args(argv)
    given = {name: value for name, value in vars(a).items() if name in ("areas", "cell", "formats")}
    with errors_in_one_line():
        refuse_two(given, ("cell", "areas"))
        summary, state = merge(a.plan, a.shards, a.out, workers=a.workers, **given)
        buildings = "1 building" if len(summary) == 1 else f"{len(summary)} buildings"
        print(f"{state}: {buildings}; wrote damage.tif, buildings.gpkg, report.html and more to {a.out}")
        if state != "complete":
            sys.exit(PARTIAL)


if __name__ == "__main__":
    main()

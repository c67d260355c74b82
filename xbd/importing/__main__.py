"""Imports the official xBD archives (train, tier3, test, hold), or a folder unpacked from them, as raw data."""

import sys
from collections.abc import Sequence
from pathlib import Path

from base.command_line import Parser
from base.errors import errors_in_one_line
from base.tables import aligned
from xbd.importing.archive import Imported, import_archives


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the import."""
    parser = Parser(prog="python -m xbd.importing", description=__doc__)
    meaning = "archives, a folder with archives, or a folder with train/, tier3/, test/ or hold/ in it"
    parser.add_argument("--archives", type=Path, nargs="+", required=True, metavar="PATH", help=meaning)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="raw data, such as data/xbd")
    parser.add_argument("--no-verify", action="store_true", help="accept archives that are not the published ones")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        from xbd.importing.inventory import describe_inventory, take_inventory

        imported = import_archives(
            arguments.archives,
            arguments.out,
            verify=not arguments.no_verify,
            tell=lambda line: print(line, file=sys.stderr),
        )
        print(_describe(imported), describe_inventory(take_inventory(arguments.out)), sep="\n\n")
        print(f"\nNext:\n  dvc add {arguments.out}\n  dvc push\n  in params.yaml, data.root: {arguments.out}")


def _describe(imported: Sequence[Imported]) -> str:
    """A table of the sources: how far they were verified, files of the layout, files that were skipped."""
    rows = [[one.name, one.check, str(len(one.files)), str(one.skipped)] for one in imported]
    return aligned([["source", "SHA-1", "files", "skipped"], *rows])


if __name__ == "__main__":
    main()

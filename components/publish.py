"""Step publish: makes a raw version the latest of its DVC remote, which scheduled runs take from then on."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from components.cli import errors_in_one_line
from components.storage.dvc import DvcFile, Hash, find_version
from components.storage.latest import write_latest


def publish(source: DvcFile | Hash, remote: str) -> str:
    """Makes the raw version that `source` names the latest of the DVC remote at this URL; returns DVC's hash of it.

    Raises FetchError where the remote has not the whole version, or cannot be written to.
    """
    version = find_version(source, remote)
    write_latest(version)
    return version.md5


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = argparse.ArgumentParser(prog="python -m components.publish", description=__doc__)
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--dvc-file", type=Path, metavar="FILE", help=".dvc file that names the version")
    sources.add_argument("--version", metavar="MD5", help="DVC's hash of the data, as a .dvc file names it")
    parser.add_argument("--remote", required=True, metavar="URL", help="DVC remote, such as s3://bucket/prefix")
    arguments = parser.parse_args(argv)
    source = Hash(arguments.version) if arguments.dvc_file is None else DvcFile(arguments.dvc_file)
    with errors_in_one_line():
        print(f"latest of {arguments.remote}: {publish(source, arguments.remote)}")


if __name__ == "__main__":
    main()

"""Known buildings in shards: their file, held against its checksum, and the votes of all shards added up."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from base.access import unreadable
from imagery.find.footprints import Footprints, place_footprints
from imagery.find.pixels import Flags, Numbers
from imagery.find.votes import Votes
from imagery.read.grid import Grid
from imagery.read.vectors import read_footprints
from imagery.shards.indexing import Fetch
from imagery.shards.plan import Plan, PlanError, PlannedFootprints
from imagery.shards.reading import refuse_changed

_REMEDY = "Bring the file back, or make the plan again."
# Endings of what belongs to a vector file of the same name: of a Shapefile, of MapInfo, of GML and of CSV.
_BESIDE = (".shx", ".dbf", ".prj", ".cpg", ".dat", ".map", ".id", ".xsd", ".csvt")


class Graded(NamedTuple):
    """What the pixels of a shard say of footprints. numbers: [K] of those of which they say something; votes: [K, 2, 4]
    and partly: [K] of these, see `Footprints`.
    """

    numbers: Numbers
    votes: Votes
    partly: Flags

    @classmethod
    def of(cls, graded: Footprints) -> "Graded":
        """What there is to say."""
        numbers = np.flatnonzero(graded.votes[:, 1].any(1) | graded.partly)
        return cls(numbers, graded.votes[numbers], graded.partly[numbers])

    @property
    def seen(self) -> Numbers:
        """The numbers of those for which pixels voted, whose features the shard keeps."""
        return self.numbers[self.votes[:, 1].any(1)]


def index_footprints(name: str, location: str, fetch: Fetch, grid: Grid) -> PlannedFootprints:
    """A file of buildings for a plan, which can be used. name: as it was given. Raises VectorError, PlanError, and what
    `fetch` raises.
    """
    path = fetch(location)
    place_footprints(read_footprints(path), grid)
    return PlannedFootprints(name=name, location=location, sha256=_checksum(path))


def planned_footprints(plan: Plan, fetch: Fetch) -> Footprints | None:
    """The buildings of the plan's file, before any pixel voted; None where it has none.

    Raises PlanError where the file is another one than the plan was made of, VectorError, and what `fetch` raises.
    """
    if plan.footprints is None:
        return None
    name, location, sha256 = (value for _, value in plan.footprints)
    path = fetch(location)
    refuse_changed(location, _checksum(path), sha256)
    return place_footprints(read_footprints(path).named(name), plan.grid.grid)


def join_footprints(placed: Footprints, shards: Iterable[Graded]) -> tuple[Footprints, Numbers]:
    """The buildings as all shards together grade them; and the numbers of those that were seen in one shard after the
    other.
    """
    votes, partly, parts = placed.votes.copy(), placed.partly.copy(), [np.zeros(0, np.int64)]
    for shard in shards:
        votes[shard.numbers] += shard.votes
        partly[shard.numbers] |= shard.partly
        parts.append(shard.seen)
    return placed._replace(votes=votes, partly=partly), np.concatenate(parts)


def _checksum(path: Path) -> str:
    """SHA-256 of a file and of those beside it that belong to it, or of all files of a folder."""
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        else:
            near = (file for file in path.parent.iterdir() if file.stem == path.stem)
            files = {"": path} | {file.suffix: file for file in near if file.suffix.lower() in _BESIDE}
        for name in sorted(files):
            with files[name].open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise PlanError(f"{path}: {unreadable(path, error, f'. {_REMEDY}')}") from error
    return digest.hexdigest()

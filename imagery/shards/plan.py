"""The plan of a map that is made in shards: what all of them must see alike, as one JSON file."""

import hashlib
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np
from affine import Affine
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from base.access import unreadable
from base.errors import InputError
from base.files import write_file
from base.problems import first_problem
from imagery.adapting.names import MODEL_FILES
from imagery.adapting.saved import EventModelError
from imagery.give.event import Event, read_event, write_event
from imagery.predict.blending import BLOCK
from imagery.read.alignment import Alignment
from imagery.read.bands import Bands
from imagery.read.grid import Grid
from imagery.read.image import Range
from imagery.settings import Reading, Windows
from model.calibration.domain import Domain

PLAN = "plan.json"
_REMEDY = "Make the plan again with components.plan."


class PlanError(InputError):
    """A plan that cannot be made or used, or what no longer is what it says."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64"
    )


class PlannedFile(_Part):
    """sha256: of its bytes and of those of the files beside it that belong to it. extent: west, south, east, north in
    degrees, as text. box: left, top, right, bottom of what it covers, in pixels of the grid, also some beside it; None
    for a file that lies elsewhere.
    """

    location: str
    sha256: str
    crs: str
    gsd_m: float
    extent: str
    box: tuple[int, int, int, int] | None


class LeftOut(_Part):
    """What the map is made without, and why."""

    what: str
    why: str


class PlannedImage(_Part):
    """One of the two images. vrt: of its files, by their locations; None for a single file that is read as it is."""

    name: str
    files: tuple[PlannedFile, ...] = Field(min_length=1)
    bands: Bands
    vrt: str | None


class PlannedFootprints(_Part):
    """A file of buildings to be graded. name: as it was given; sha256: see `PlannedFile`."""

    name: str
    location: str
    sha256: str


class PlannedEvent(_Part):
    """The model of an event that grades the buildings. version: the registered one; files: MODEL_FILES."""

    version: str | None
    files: tuple[bytes, bytes]

    @classmethod
    def of(cls, event: Event) -> Self:
        """The event's model, to be written."""
        with TemporaryDirectory() as folder:
            write_event(event, Path(folder))
            model, tensors = (Path(folder, name).read_bytes() for name in MODEL_FILES)
        return cls(version=event.version, files=(model, tensors))

    @cached_property
    def event(self) -> Event:
        """The event's model, to grade by."""
        with TemporaryDirectory() as folder:
            for name, content in zip(MODEL_FILES, self.files, strict=True):
                Path(folder, name).write_bytes(content)
            try:
                return read_event(Path(folder), self.version)
            except EventModelError as error:  # which names a file that nobody has
                raise ValueError("holds no model of an event") from error

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _ = self.event
        return self


class PlannedGrid(_Part):
    """crs: as WKT; transform: the six numbers of a row of `affine.Affine`."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    width: int = Field(ge=1)
    height: int = Field(ge=1)

    @classmethod
    def of(cls, grid: Grid) -> Self:
        """The grid, to be written."""
        return cls(crs=grid.crs.to_wkt(), transform=tuple(grid.transform)[:6], width=grid.width, height=grid.height)

    @cached_property
    def grid(self) -> Grid:
        """The grid, to be used."""
        return Grid(CRS.from_wkt(self.crs), Affine(*self.transform), self.width, self.height)


class PlannedAlignment(_Part):
    """See `imagery.read.alignment.Alignment`."""

    mode: str
    x: float
    y: float
    certainty: float
    found: bool
    compared: bool
    places: list[list[list[float]]] | None
    rows: tuple[float, ...]
    columns: tuple[float, ...]

    @classmethod
    def of(cls, alignment: Alignment) -> Self:
        """The alignment, to be written."""
        places = None if alignment.places is None else alignment.places.tolist()
        return cls(**{**alignment._asdict(), "places": places})

    @property
    def alignment(self) -> Alignment:
        """The alignment, to be used."""
        places = None if self.places is None else np.array(self.places, np.float32)
        return Alignment(**{**dict(self), "places": places})


class PlannedDomain(_Part):
    """See `model.calibration.domain.Domain`: its numbers, float32, as bytes."""

    features: bytes
    colours: bytes
    gsd: bytes
    off_nadir: bytes

    @classmethod
    def of(cls, domain: Domain) -> Self:
        """The domain, to be written."""
        return cls(**{name: value.astype("<f4").tobytes() for name, value in vars(domain).items()})

    @cached_property
    def domain(self) -> Domain:
        """The domain, to be compared with."""
        features, colours, gsd, off_nadir = (np.frombuffer(own, "<f4") for _, own in self)
        scenes = len(gsd)
        return Domain(
            features.reshape(scenes, len(features) // max(1, scenes)), colours.reshape(scenes, 12), gsd,
            off_nadir.reshape(scenes),
        )  # fmt: skip

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _ = self.domain
        return self


class Shard(_Part):
    """A part of the grid, in pixels. It begins at the corner of a block, and ends with one or with the grid."""

    column: int = Field(ge=0)
    row: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)

    @property
    def window(self) -> Window:
        """The same for rasterio."""
        return Window(self.column, self.row, self.width, self.height)


class Plan(_Part):
    """model: its location, as the map names it; network: where shards get it; identity: see
    `imagery.predict.inference.identity_of`; domain: what it was trained on looked like, None where that is not known;
    event: the model of an event that grades the buildings, if any. tile, overlap: of the windows. features: whether
    those of the buildings are kept. footprints: of buildings that are graded, None where they are found. facts: for
    summary and report, see `imagery.mapping.align_pair`.
    Of what is not said here: `imagery.settings`, `imagery.read.raster`.
    """

    version: Literal[1] = 1
    model: str
    network: str
    identity: str
    domain: PlannedDomain | None
    event: PlannedEvent | None
    views: Literal[1, 4, 8]
    reading: Reading
    tile: int
    overlap: int
    features: bool
    footprints: PlannedFootprints | None
    pre: PlannedImage
    post: PlannedImage
    grid: PlannedGrid
    ranges: tuple[Range | None, Range | None]
    alignment: PlannedAlignment
    facts: dict[str, Any]
    shards: tuple[Shard, ...] = Field(min_length=1)
    left_out: tuple[LeftOut, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        Windows(self.tile, self.overlap)
        try:
            width, height = self.grid.grid.width, self.grid.grid.height
        except CRSError as error:
            raise ValueError(f"grid.crs: {error}") from error
        seen = np.zeros((-(-height // BLOCK), -(-width // BLOCK)), np.int64)
        for shard in self.shards:
            ends = (shard.column + shard.width, width), (shard.row + shard.height, height)
            begins = shard.column % BLOCK == shard.row % BLOCK == 0
            if not begins or any(end > size or (end < size and end % BLOCK) for end, size in ends):
                raise ValueError(f"shards: {shard} does not fit the grid")
            seen[tuple(slice(part.start // BLOCK, -(-part.stop // BLOCK)) for part in shard.window.toslices())] += 1
        if (seen != 1).any():
            raise ValueError("shards: do not cover each block once")
        return self

    @cached_property
    def digest(self) -> str:
        """What tells the plan from others."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def as_json(self) -> str:
        """The content of its file."""
        return self.model_dump_json(indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Writes the file, which appears whole."""
        write_file(path, self.as_json())

    def shard(self, number: int) -> Shard:
        """Raises PlanError where there is none of the number, from 0."""
        if not 0 <= number < len(self.shards):
            raise PlanError(f"--shard: found {number}, expected 0 to {len(self.shards) - 1}: so many has the plan.")
        return self.shards[number]


def read_plan(path: Path) -> Plan:
    """Reads a plan; raises PlanError."""
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: {unreadable(path, error, f'. {_REMEDY}')}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: is no text (byte {error.start}). {_REMEDY}") from error
    except ValidationError as error:
        place, said, _ = first_problem(error)
        what = f"{place}: " if place else ""
        raise PlanError(f"{path}: {what}{said.rstrip('.')[:200]}, expected a plan. {_REMEDY}") from error
    except InputError as error:  # of the settings within
        raise PlanError(f"{path}: {str(error).rstrip('.')}. {_REMEDY}") from error

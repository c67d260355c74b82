"""What a later step needs to grade the buildings of a map anew, as a Parquet file beside them.

A row for each building, in the order of buildings.geojson; read it by pandas or pyarrow. Its metadata have, under
`METADATA`, JSON that says which model and which map it belongs to, and what the numbers of `features` are.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from base.grades import KEYS
from imagery.find.features import Means
from imagery.find.pixels import Flags
from imagery.find.votes import CERTAIN, Votes
from imagery.give.look import Read
from imagery.give.names import GEOJSON, METADATA, PROBABILITY, VECTORS
from imagery.give.table import Table
from imagery.predict.tile_features import Scale, TileFeatures, channels_of

ROWS = 8192  # of a group: what is in memory at once
# Numbers of which hardly two are equal: a dictionary of them would be a tenth larger, their upper and lower bytes apart
# are a tenth smaller.
_ENCODING: dict[str, Any] = {
    "compression": "zstd", "use_dictionary": False, "use_byte_stream_split": [f"{VECTORS}.list.element"],
}  # fmt: skip


class Kept(NamedTuple):
    """tiles: the features of the pixels; model: what tells the network from others, see
    `imagery.predict.inference.identity_of`; location: where that was; read: the images, for pictures of the buildings
    to judge.
    """

    tiles: TileFeatures
    model: str
    location: str
    read: Read


class Judged(NamedTuple):
    """What people judge a map with: `model`, `location` and `read` of `Kept`."""

    model: str
    location: str
    read: Read


class Seen(NamedTuple):
    """What is known of the buildings of a table, beside it. votes: [N, 2, 4], see `imagery.find.votes.count_votes`;
    at_edge, partly: [N], see below. scales: of the features of the network, none where it has none or none were kept;
    means: the features of all buildings that have pixels, as they come.
    """

    votes: Votes
    at_edge: Flags
    partly: Flags
    scales: Sequence[Scale] = ()
    means: Iterable[Means] = ()


class StoredMeans:
    """The mean of the features over each building's pixels, in a file: they come in another order, and may be too many
    for memory.
    """

    def __init__(
        self, rows: IO[bytes], pixels: npt.NDArray[np.int64], channels: int, written: Callable[[], None]
    ) -> None:
        """pixels: [N], of each building. written: waits until all are in the file, and raises what went wrong."""
        self._rows, self._pixels, self._channels, self._written = rows, pixels, channels, written

    def __call__(self, start: int, stop: int) -> npt.NDArray[np.float16]:
        """Of the buildings from `start` to before `stop`, [stop - start, channels], NaN without pixels."""
        self._written()
        found = np.zeros((stop - start, self._channels), np.float16)
        self._rows.seek(start * self._channels * found.itemsize)
        content = self._rows.read(found.nbytes)  # less where the last buildings have none
        found.reshape(-1)[: len(content) // found.itemsize] = np.frombuffer(content, np.float16)
        found[self._pixels[start:stop] == 0] = np.nan
        return found


@contextmanager
def mean_over_pixels(folder: Path, seen: Seen) -> Iterator[StoredMeans | None]:
    """The means in a file that is gone in the end, and is written while others go on; None where there are no features.
    folder: of a disk with room.
    """
    if not seen.scales:
        yield None
        return
    with TemporaryFile(dir=folder) as rows, ThreadPoolExecutor(1) as beside:
        writing = beside.submit(_write_means, rows, seen.means)
        yield StoredMeans(rows, seen.votes[:, 1].sum(1), channels_of(seen.scales), writing.result)


def _write_means(rows: IO[bytes], means: Iterable[Means]) -> None:
    for numbers, found in means:
        order = np.argsort(numbers)
        cuts = np.flatnonzero(np.diff(numbers[order]) != 1) + 1
        for run in np.split(order, cuts) if len(order) else ():
            own = found[run]
            rows.seek(int(numbers[run[0]]) * own[0].nbytes)
            rows.write(own.tobytes())


@contextmanager
def features_written(
    path: Path, judged: Judged, table: Table, seen: Seen, means: StoredMeans | None
) -> Iterator[Callable[[str], None]]:
    """Writes the Parquet file while others go on. Gives what completes it and raises what went wrong, given the hash of
    the GeoJSON of the same buildings, which stands in the metadata.

    Columns: id, that of the building; probability_..., the sums over its pixels of the probabilities of the grades;
    pixels, how many these are; area_m2 and confidence as in the GeoJSON; at_edge, whether it touches the edge of the
    images or reaches beyond it; partly_without_data, whether pixels of it have no data, or those beside it where it was
    found and not given; features, float16 [channels], the mean over its pixels of what the head of damage reads, NaN
    without pixels. The last one is missing where the network offers no features.
    """
    columns = {
        "id": table.ids,
        **{f"{PROBABILITY}{name}": seen.votes[:, 0, n] / CERTAIN for n, name in enumerate(KEYS)},
        "pixels": seen.votes[:, 1].sum(1),
        "area_m2": table.ours("area_m2"),
        "confidence": table.ours("confidence"),
        "at_edge": seen.at_edge,
        "partly_without_data": seen.partly,
    }
    known = pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
    channels, schema = channels_of(seen.scales), known.schema
    if channels:
        schema = schema.append(pa.field(VECTORS, pa.list_(pa.float16(), channels)))

    def write() -> None:
        for start in range(0, len(known), ROWS):
            part = known[start : start + ROWS]
            if means is not None:
                flat = pa.array(means(start, start + len(part)).reshape(-1))
                part = part.append_column(schema.field(VECTORS), pa.FixedSizeListArray.from_arrays(flat, channels))
            writer.write_table(part)

    with pq.ParquetWriter(path, schema, **_ENCODING) as writer, ThreadPoolExecutor(1) as beside:
        writing = beside.submit(write)

        def complete(map_hash: str) -> None:
            writing.result()
            facts = {
                "model": judged.model,
                "location": judged.location,
                "map": {"file": GEOJSON, "sha256": map_hash},
                "features": [{"stride": scale.pixels, "channels": scale.channels} for scale in seen.scales],
            }
            writer.add_key_value_metadata({METADATA: json.dumps(facts)})
            writer.close()

        yield complete

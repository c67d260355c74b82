"""What a map is given out as: rasters and vectors for map programs, and a summary for people."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import rasterio
from pyproj import Transformer

from base.files import new_folder, refuse_to_replace_others
from base.processes import ALONE, Crew
from imagery.give.event import Event, grade_by_event
from imagery.give.features import Judged, Kept, features_written, mean_over_pixels
from imagery.give.found import Found, find
from imagery.give.look import Look
from imagery.give.names import FEATURES, GEOJSON, GEOPACKAGE, STYLE, hash_of, is_requested
from imagery.give.page.judging import Judging, draw_as_text, draw_table
from imagery.give.page.report import REPORT, write_report
from imagery.give.page.report import is_ours as is_of_report
from imagery.give.page.squares import squares_of
from imagery.give.rasters import CONFIDENCE, DAMAGE, write_rasters
from imagery.give.style import add_style, qgis_style
from imagery.give.summary import SUMMARY_FILES, Summary, by_areas, by_cells
from imagery.give.table import Table
from imagery.give.writing import OutputError, write_errors
from imagery.read.grid import WGS84
from imagery.read.vectors import Polygons, through_geopackage, write_geojson
from imagery.sampling.judgements_file import JUDGE
from imagery.settings import CACHE, CELL, CELLS

FILES = (DAMAGE, CONFIDENCE, GEOPACKAGE, GEOJSON, STYLE, REPORT, *SUMMARY_FILES, FEATURES, JUDGE)
MANY = 1 << 26  # pixels, whose rasters take some seconds to write
Further = Callable[[Path, Table], None]


def crew_of(workers: int) -> Crew:
    """Processes to share the work of `write_outputs` and `give_out`."""
    return Crew(workers, __name__)


def write_outputs(
    classes: Path, out: Path, look: Look, *, footprints: Polygons | None = None, areas: Polygons | None = None,
    cell: float = CELL, kept: Kept | None = None, event: Event | None = None, further: Further | None = None,
    crew: Crew = ALONE,
) -> Summary:  # fmt: skip
    """Finds the buildings of `classes`, or grades the `footprints`, with whatever their file says of them, and gives
    them out, see `give_out`. kept: of the same pair's tiles.

    classes: see `imagery.predict.inference`. Raises VectorError where no footprint lies in the imagery, and what
    `check_outputs` does.
    """
    judged = None if kept is None else Judged(kept.model, kept.location, kept.read)
    finding = partial(find, classes, footprints, None if kept is None else kept.tiles, crew)
    return give_out(
        classes, finding, out, look, areas=areas, cell=cell, judged=judged, event=event, further=further, crew=crew
    )


def give_out(
    classes: Path, finding: Callable[[], Found], out: Path, look: Look, *, areas: Polygons | None = None,
    cell: float = CELL, judged: Judged | None = None, event: Event | None = None, further: Further | None = None,
    crew: Crew = ALONE,
) -> Summary:  # fmt: skip
    """Writes FILES into the folder `out`, which appears with all of them; those it holds already are replaced. FEATURES
    and JUDGE are not written, and nobody can judge in the report, where nothing is `judged`.

    classes, finding: the pixels of a map, and what finds its buildings, beside which the rasters are written. look: of
    the same pair, for the report. areas: polygons to sum up by, in any CRS, instead of squares of `cell` metres. event:
    grades the buildings, by their features where it reads these; the rasters are the network's all the same. further:
    writes more of the same map into the folder, with the names of `imagery.give.names.is_requested`. crew: shares the
    work. Raises what `check_outputs` and `finding` do, and LostProcessError.
    """
    check_outputs(out, cell)
    with new_folder(out, is_ours) as folder, crew.settled():
        judging, means = None, None
        with write_errors(out), ExitStack() as stack:
            rasters = crew.begin(_write_rasters, (classes, folder), is_long=_pixels(classes) > MANY)
            table, seen, notes, are_given = finding()
            if judged is not None:
                means = stack.enter_context(mean_over_pixels(folder, seen))
            if event is not None:
                table = grade_by_event(table, event, seen.votes, means if event.reads_features else None)
            if areas is None:
                summary = by_cells(table, cell, _middle(classes), notes)
            else:
                summary = by_areas(table, areas, notes)
            summary = replace(summary, scene=dict(look.facts))
            style = qgis_style(table.columns["damage"])
            if judged is not None:
                complete = stack.enter_context(features_written(folder / FEATURES, judged, table, seen, means))
            # Each part is written here as the one, while processes write earlier parts as the other.
            write_geojson(through_geopackage(table.frames(), folder / GEOPACKAGE), folder / GEOJSON, crew)
            add_style(folder / GEOPACKAGE, style)
            rasters()
            if judged is not None:
                map_hash = hash_of(folder / GEOJSON)
                draw = draw_table(map_hash, table, seen.votes, _middle(classes))
                judging = Judging(draw, judged.read, None if are_given else squares_of(folder / DAMAGE, map_hash))
                (folder / JUDGE).write_text(draw_as_text(judging) + "\n", encoding="utf-8")
            (folder / STYLE).write_text(style, encoding="utf-8")
            write_report(folder, classes, look, table, summary, judging, crew)
            summary.write(folder)
            if judged is not None:
                complete(map_hash)
            if further is not None:
                further(folder, table)
    return summary


def check_outputs(out: Path, cell: float) -> None:
    """Raises OutputError where squares of `cell` metres cannot be, and InputError where `out` holds something else than
    FILES: what a run should know before its work.
    """
    if not CELLS[0] <= cell <= CELLS[1]:
        raise OutputError(
            f"--cell: found {cell:g}, expected metres of a square's side from {CELLS[0]:.0f} to {CELLS[1]:.0f}."
        )
    refuse_to_replace_others(out, is_ours)


def is_ours(path: Path) -> bool:
    """Whether a file, by its path in a map's folder, is one of a map."""
    return str(path) in FILES or is_of_report(path) or is_requested(path)


def _write_rasters(given: tuple[Path, Path]) -> None:
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        write_rasters(*given)


def _pixels(classes: Path) -> int:
    with rasterio.open(classes) as dataset:
        return int(dataset.width * dataset.height)


def _middle(classes: Path) -> tuple[float, float]:
    """Longitude and latitude of the map's middle."""
    with rasterio.open(classes) as dataset:
        x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
        longitude, latitude = Transformer.from_crs(dataset.crs, WGS84, always_xy=True).transform(x, y)
    return float(longitude), float(latitude)

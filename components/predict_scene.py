"""Step predict for scenes: two GeoTIFFs of any size, or tiles of them, to maps of the buildings and their damage."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from components.storage.locations import Location, local_input, local_output, scratch_for
from imagery.settings import ALIGNMENTS, CACHE, Sources, Windows

ENDINGS = (".tif", ".tiff", ".vrt")


def is_scene(images: Sequence[str]) -> bool:
    """Whether these are GeoTIFFs, and not a pair of plain images."""
    return len(images) > 2 or any(str(image).lower().endswith(ENDINGS) for image in images)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of scenes."""
    group = parser.add_argument_group("GeoTIFF scenes", "post may have another CRS, resolution or extent.")
    group.add_argument("--resample-to", type=float, metavar="GSD", help="metres of a pixel to predict at")
    more = "values that become black and white, in images of more than 8 bits"
    group.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=f"{more}; else --percentiles")
    group.add_argument("--percentiles", type=float, nargs=2, default=Sources.percentiles, metavar=("LOW", "HIGH"))
    shift = "correct the shift of post: of the whole scene, or also from place to place (%(default)s)"
    group.add_argument("--align", choices=ALIGNMENTS, default="global", help=shift)
    group.add_argument("--tile", type=int, default=Windows.tile, help="pixels of a window (%(default)s)")
    group.add_argument("--overlap", type=int, default=Windows.overlap, help="pixels that windows share (%(default)s)")
    group.add_argument("--batch", type=int, default=Windows.batch, help="windows at once (%(default)s)")
    group.add_argument("--workers", type=int, default=Windows.workers, help="threads that read ahead (%(default)s)")
    group.add_argument("--footprints", metavar="LOCATION", help="vector file of buildings to grade, not those found")
    group.add_argument("--areas", metavar="LOCATION", help="vector file of areas to sum up by, and not by squares")
    group.add_argument("--cell", type=float, default=500.0, help="metres of the summary's squares (%(default)s)")
    group.add_argument("--resume", action="store_true", help="go on with the windows that an interrupted run finished")


def run(a: argparse.Namespace) -> str:
    """Predicts the scene that the command line names; returns what to tell of it.

    Raises ModelError, RasterError, SettingsError, VectorError, OutputError, StorageError.
    """
    import rasterio
    import torch

    from components.predict import find_model
    from imagery.find.footprints import onto_scene
    from imagery.give.look import look_at
    from imagery.give.outputs import check_outputs, write_outputs
    from imagery.predict.inference import identity_of, predict_scene
    from imagery.read.raster import ScenePair, warn_of_resolution
    from imagery.read.registration import register
    from imagery.read.vectors import read_polygons
    from model.fast.allocator import give_back_freed_memory, share_one_heap
    from model.inference import Predictor, load_model

    share_one_heap()
    files = {name: path for name, path in (("footprints", a.footprints), ("areas", a.areas)) if path is not None}
    windows = Windows(a.tile, a.overlap, a.batch, a.workers)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        folder, work = stack.enter_context(local_output(a.out)), scratch_for(a.out, "tiles")
        check_outputs(folder, a.cell)
        given = {name: read_polygons(stack.enter_context(local_input(path))) for name, path in files.items()}
        pre, post = (tuple(_local(stack, images)) for images in (a.pre, a.post))
        value_range = None if a.range is None else (a.range[0], a.range[1])
        sources = Sources(pre, post, value_range, (a.percentiles[0], a.percentiles[1]), a.resample_to)
        pair = stack.enter_context(ScenePair(sources))
        print(f"scene of {pair.grid.width} x {pair.grid.height} pixels of {pair.grid.gsd:.2f} m")
        warn_of_resolution(pair)
        if "footprints" in given:
            onto_scene(given["footprints"], pair.grid)
        directory = stack.enter_context(local_input(find_model(a.model)))
        predictor = Predictor(load_model(directory).to("cuda" if torch.cuda.is_available() else "cpu"))
        pair.align(register(pair, a.align))
        alignment = pair.alignment.facts(pair.grid.gsd)
        print(f"alignment {alignment['said']}", flush=True)
        look = look_at(pair, {"before": [*map(str, a.pre)], "after": [*map(str, a.post)], "alignment": alignment})
        classes = predict_scene(predictor, identity_of(directory), pair, work, windows, resume=a.resume)
        del predictor  # whose memory the list of buildings takes
        give_back_freed_memory()
        summary = write_outputs(classes, folder, look, cell=a.cell, **given)
        shutil.rmtree(work)
        for note in summary.notes:
            print(f"warning: {note}", file=sys.stderr)
    return f"{len(summary)} buildings; wrote damage.tif, buildings.gpkg, report.html and more to {a.out}"


def _local(stack: ExitStack, images: Sequence[Location]) -> list[Path]:
    return [stack.enter_context(local_input(image)) for image in images]

"""Step predict for scenes: two GeoTIFFs of any size, or tiles of them, to maps of the buildings and their damage."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from components.storage import Location, local_input, local_output

ENDINGS = (".tif", ".tiff", ".vrt")
SEEN_GSD = (0.3, 0.8)  # metres: what the images of xBD have, and so what a model of it has seen


def is_scene(images: Sequence[str]) -> bool:
    """Whether these are GeoTIFFs, and not a pair of plain images."""
    return len(images) > 2 or any(str(image).lower().endswith(ENDINGS) for image in images)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of scenes."""
    group = parser.add_argument_group("GeoTIFF scenes", "post may have another CRS, resolution or extent.")
    group.add_argument("--resample-to", type=float, metavar="GSD", help="metres of a pixel to predict at")
    more = "values that become black and white, in images of more than 8 bits"
    group.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=f"{more}; else --percentiles")
    group.add_argument("--percentiles", type=float, nargs=2, default=(2.0, 98.0), metavar=("LOW", "HIGH"))
    group.add_argument("--tile", type=int, default=1024, help="pixels of a window (%(default)s)")
    group.add_argument("--overlap", type=int, default=256, help="pixels that windows share (%(default)s)")
    group.add_argument("--batch", type=int, default=1, help="windows at once (%(default)s)")
    group.add_argument("--workers", type=int, default=1, help="processes that read ahead (%(default)s)")
    group.add_argument("--footprints", metavar="LOCATION", help="vector file of buildings to grade, not those found")
    group.add_argument("--areas", metavar="LOCATION", help="vector file of areas to sum up by, and not by squares")
    group.add_argument("--cell", type=float, default=500.0, help="metres of the summary's squares (%(default)s)")
    group.add_argument("--resume", action="store_true", help="go on with the windows that an interrupted run finished")


def run(a: argparse.Namespace) -> str:
    """Predicts the scene that the command line names; returns what to tell of it.

    Raises ModelError, RasterError, MosaicError, WindowsError, VectorError, OutputError, StorageError.
    """
    import torch

    from components.predict import find_model
    from model.inference import Predictor, load_model
    from scene.alignment import Alignment
    from scene.inference import Windows, identity_of, predict_scene
    from scene.look import look_at
    from scene.outputs import write_outputs
    from scene.raster import ScenePair, Sources

    files = {name: path for name, path in (("footprints", a.footprints), ("areas", a.areas)) if path is not None}
    windows = Windows(a.tile, a.overlap, a.batch, a.workers)
    with ExitStack() as stack:
        folder = stack.enter_context(local_output(a.out))
        pre, post = (tuple(_local(stack, images)) for images in (a.pre, a.post))
        value_range = None if a.range is None else (a.range[0], a.range[1])
        sources = Sources(pre, post, value_range, (a.percentiles[0], a.percentiles[1]), a.resample_to)
        with ScenePair(sources) as pair:
            print(f"scene of {pair.grid.width} x {pair.grid.height} pixels of {pair.grid.gsd:.2f} m")
            if not SEEN_GSD[0] <= round(pair.grid.gsd, 2) <= SEEN_GSD[1]:
                print(
                    f"warning: {pre[0]}: pixels are {pair.grid.gsd:.2f} m large, the model has seen {SEEN_GSD[0]} to "
                    f"{SEEN_GSD[1]} m: try --resample-to 0.5",
                    file=sys.stderr,
                )
            facts = {"before": [*map(str, a.pre)], "after": [*map(str, a.post)], "alignment": Alignment().facts(0)}
            look = look_at(pair, facts)
        directory = stack.enter_context(local_input(find_model(a.model)))
        predictor = Predictor(load_model(directory).to("cuda" if torch.cuda.is_available() else "cpu"))
        # Beside the results, which appear all at once, and on the same disk.
        work = folder.parent / f".{folder.name}.tiles"
        classes = predict_scene(predictor, identity_of(directory), sources, work, windows, resume=a.resume)
        given = {name: stack.enter_context(local_input(path)) for name, path in files.items()}
        summary = write_outputs(classes, folder, look, cell=a.cell, **given)
        shutil.rmtree(work)
        for note in summary.notes:
            print(f"warning: {note}", file=sys.stderr)
    return f"{len(summary)} buildings; wrote damage.tif, buildings.gpkg, summary.csv and more to {a.out}"


def _local(stack: ExitStack, images: Sequence[Location]) -> list[Path]:
    return [stack.enter_context(local_input(image)) for image in images]

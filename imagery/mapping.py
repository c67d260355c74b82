"""From two images to a map of the damaged buildings: all of imagery, in the order in which it is done."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import rasterio
import torch

from imagery.find.footprints import onto_scene
from imagery.give.look import look_at
from imagery.give.outputs import check_outputs, write_outputs
from imagery.give.summary import Summary
from imagery.predict.inference import identity_of, predict_scene
from imagery.read.raster import ScenePair, warn_of_resolution
from imagery.read.registration import register
from imagery.read.vectors import read_polygons
from imagery.settings import CACHE, Sources, Windows, Wishes
from model.fast.allocator import give_back_freed_memory, share_one_heap
from model.inference import Predictor, load_model


@dataclass(frozen=True)
class Work:
    """Where the map goes and what is kept on the way.

    out: the folder of the map. tiles: the folder of finished windows, by which `resume` goes on after a kill.
    """

    out: Path
    tiles: Path
    resume: bool = False


def make_map(
    sources: Sources,
    align: str,
    windows: Windows,
    wishes: Wishes,
    work: Work,
    model: Callable[[], Path],
    names: tuple[list[str], list[str]],
) -> Summary:
    """Writes the map of two images into `work.out`, which appears complete or not at all; tells what it does.

    align: one of `imagery.settings.ALIGNMENTS`. model: gives the model directory; called when everything else that can
    be wrong was looked at. names: of the images before and after, for the report.
    Raises ModelError, RasterError, SettingsError, VectorError, OutputError.
    """
    share_one_heap()
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        check_outputs(work.out, wishes.cell)
        footprints, areas = (
            None if path is None else read_polygons(path) for path in (wishes.footprints, wishes.areas)
        )
        with ScenePair(sources) as pair:
            print(f"scene of {pair.grid.width} x {pair.grid.height} pixels of {pair.grid.gsd:.2f} m")
            warn_of_resolution(pair)
            if footprints is not None:
                onto_scene(footprints, pair.grid)
            directory = model()
            predictor = Predictor(load_model(directory).to("cuda" if torch.cuda.is_available() else "cpu"))
            pair.align(register(pair, align))
            alignment = pair.alignment.facts(pair.grid.gsd)
            print(f"alignment {alignment['said']}", flush=True)
            look = look_at(pair, {"before": names[0], "after": names[1], "alignment": alignment})
            classes = predict_scene(predictor, identity_of(directory), pair, work.tiles, windows, resume=work.resume)
            del predictor  # whose memory the list of buildings takes
            give_back_freed_memory()
            summary = write_outputs(classes, work.out, look, footprints=footprints, areas=areas, cell=wishes.cell)
        shutil.rmtree(work.tiles)
    return summary

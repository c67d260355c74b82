"""From two georeferenced images of any size, or tiles of them, to maps of the buildings and their damage."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import rasterio

from imagery.find.footprints import onto_grid
from imagery.formats.stac import MadeBy
from imagery.formats.writing import Formats, check_formats
from imagery.give.event import Event
from imagery.give.features import Kept
from imagery.give.look import Look, look_at
from imagery.give.outputs import check_outputs, crew_of, write_outputs
from imagery.give.summary import Summary
from imagery.give.writing import OutputError
from imagery.predict.domain import UNKNOWN, Likeness, compare, look_at_parts
from imagery.predict.inference import predict_classes
from imagery.predict.tile_features import TileFeatures
from imagery.read.raster import ImagePair, doubts, refuse_unused_range, tell_how_read, warn_of_resolution
from imagery.read.registration import register
from imagery.read.vectors import Polygons
from imagery.settings import ALIGN, CACHE, CELL, Sources, Windows
from model.calibration.domain import Domain
from model.fast.allocator import give_back_freed_memory, share_one_heap
from model.inference import Origin, Predictor
from model.networks.pair_network import PairNetwork


class Loaded(NamedTuple):
    """A network, what tells it from others (`imagery.predict.inference.identity_of`), what it was trained on, what that
    looked like, None where that is not known, where it was, with its STAC item, and the model of an event that grades
    its buildings.
    """

    predictor: Predictor
    identity: str
    origin: Origin
    domain: Domain | None
    made_by: MadeBy
    event: Event | None


def make_map(
    load: Callable[[], Loaded], sources: Sources, out: Path, work: Path, *,
    names: Mapping[str, Sequence[str]], windows: Windows, features: bool, align: str = ALIGN,
    footprints: Polygons | None = None, areas: Polygons | None = None, cell: float = CELL, resume: bool = False,
    formats: Collection[str] = (),
) -> Summary:  # fmt: skip
    """Predicts the pair of `sources` and writes `imagery.give.outputs.FILES` into the folder `out`.

    load: gives the network; it is called when everything else was found good, and the network is let go before the
    buildings are listed. work: a folder for finished windows, which the caller removes when the result is safe. names:
    what the report calls the images, by "before" and "after". align: one of `imagery.settings.ALIGNMENTS`. footprints,
    areas, cell: see `imagery.give.outputs.write_outputs`. features: write features.parquet, too. resume: go on with the
    windows in `work`. formats: of `imagery.settings.FORMATS`, to write the map as these, too.
    Prints what it works on. Raises RasterError, VectorError, OutputError, and what `load` raises.
    """
    share_one_heap()
    check_outputs(out, cell)
    with rasterio.Env(GDAL_CACHEMAX=CACHE), ImagePair(sources) as pair:
        look_over(pair)
        check_formats(formats, pair.grid)
        if footprints is not None:
            onto_grid(footprints, pair.grid)
        predictor, identity, origin, domain, made_by, event = load()
        if event is not None:
            tell_event(event, features=features)
        facts = align_pair(pair, align, origin, stated_by(predictor))
        facts["model"] |= {"location": made_by.location, "identity": identity}
        facts["event"] = None if event is None else event.facts
        look = look_at(pair, {**names, **facts})
        classes = predict_classes(predictor, identity, pair, work, windows, features=features, resume=resume)
        del predictor  # whose memory the list of buildings takes
        give_back_freed_memory()
        tiles = TileFeatures(work, pair.grid.width, pair.grid.height, windows)
        likeness = None if domain is None else compare(domain, pair.grid.gsd, look_at_parts(pair, tiles))
        look = tell_likeness(look, likeness)
        kept = Kept(tiles, identity, made_by.location, pair.read) if features else None
        with crew_of(windows.workers) as crew:
            summary = write_outputs(
                classes, out, look, footprints=footprints, areas=areas, cell=cell, kept=kept, event=event,
                further=Formats(formats, pair.read, made_by).write, crew=crew,
            )  # fmt: skip
    for note in summary.notes:
        print(f"warning: {note}", file=sys.stderr)
    return summary


def tell_likeness(look: Look, likeness: Likeness | None) -> Look:
    """Prints how like the imagery is to the training data, where that is known; returns the look that says it, too."""
    if likeness is not None and likeness.unlike:
        print(f"warning: the imagery: {likeness}", file=sys.stderr, flush=True)
    else:
        print(f"the imagery: {likeness or UNKNOWN}", flush=True)
    return look.with_likeness(likeness)


def look_over(pair: ImagePair) -> None:
    """Prints what the pair is, and warnings; raises SettingsError where a setting would change nothing of it."""
    refuse_unused_range(pair)
    print(f"imagery of {pair.grid.width} x {pair.grid.height} pixels of {pair.grid.gsd:.2f} m")
    tell_how_read(pair)
    warn_of_resolution(pair)


def tell_event(event: Event, *, features: bool) -> None:
    """Prints which event's model grades the buildings; raises OutputError where it reads features and none are kept."""
    if event.reads_features and not features:
        raise OutputError(
            "--no-features: is not used with an event's model that reads the features of each building. Leave it out."
        )
    print(event, flush=True)


def stated_by(model: PairNetwork | Predictor) -> dict[str, bool]:
    """calibrated: whether its logits are divided by temperatures; adjusted: whether those of rare grades are raised."""
    return {"calibrated": model.temperatures is not None, "adjusted": model.grade_offsets is not None}


def align_pair(pair: ImagePair, align: str, origin: Origin, stated: Mapping[str, bool]) -> dict[str, Any]:
    """Aligns the pair, see `register`, and says how; returns what is known of how the images are read and of the model
    that reads them, fit for JSON. stated: see `stated_by`.
    """
    if origin.doubt:
        print(f"warning: {origin.doubt}", file=sys.stderr, flush=True)
    pair.align(register(pair, align))
    alignment = pair.alignment.facts(pair.grid.gsd)
    print(f"alignment {alignment['said']}", flush=True)
    return {
        "reading": pair.sources.facts(),
        "bands": {"before": str(pair.pre.bands), "after": str(pair.post.bands)},
        "alignment": alignment,
        "model": {**asdict(origin), "said": str(origin), **stated},
        "event": None,
        "doubts": [*doubts(pair), *([origin.doubt] if origin.doubt else [])],
    }

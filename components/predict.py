"""Step predict: image pairs to damage masks and a picture of them, or a pair of GeoTIFFs to maps of its buildings."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.command_line import Parser
from base.errors import InputError
from base.files import write_file
from components.cli import errors_in_one_line
from components.events.sources import local_source, refuse_another_network
from components.storage.locations import LOCATIONS, Location, join, local_input, local_output, scratch_for
from imagery.options import add_formats, add_reading, option_of, refuse_two, taken
from imagery.settings import ALIGN, CELL, RASTERS, Reading, Sources, Windows
from xbd.names import IMAGE, MOMENTS, few, file_name, nearly_scene_files, other_ending, scene_file, scene_files

if TYPE_CHECKING:
    import torch

    from imagery.give.summary import Summary
    from imagery.mapping import Loaded
    from model.inference import Predictor, Views

PRE, POST = (file_name("", moment) for moment in MOMENTS)
PLAIN = (".png", ".jpg", ".jpeg", ".webp")  # images that lie nowhere; whatever else there is, GDAL is asked to read
Pair = tuple[str, Path, Path]  # prefix of the output names, pre image, post image


class PredictError(InputError):
    """Images that cannot be predicted, or not with the options given."""


def predict_pairs(model: Location, pairs: Sequence[Pair], out: Location, *, views: "Views" = 1) -> None:
    """Predicts image pairs of any size, large ones in the windows of imagery.

    model: location of a model directory, or a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`; not an
    event's model. views: see `Predictor`.
    Writes for each pair `out`/PREFIXlocalization.png and PREFIXdamage.png (uint8, 0-4) and PREFIXpicture.png.
    Raises ModelError, ImageError, PredictError, StorageError, DeviceError; pairs before the failing one stay
    written in a path.
    """
    from tqdm import tqdm

    from base.images import encode_png, read_image
    from imagery.predict.arrays import predict_arrays
    from model.device import choose_device
    from model.judge.picture import Picture, draw_predictions

    device = choose_device()
    with local_output(out) as folder, local_source(model) as source:
        if source.event is not None:
            raise PredictError(
                f"--model {model}: grades the buildings of a map by the model of an event, found plain images, which "
                f"become no map. Give --pre and --post as GeoTIFFs, or the network alone: {source.location}."
            )
        predictor = _predictor(source.directory, device, views)
        for prefix, pre_path, post_path in tqdm(pairs, "predict", disable=None):
            pre, post = read_image(pre_path), read_image(post_path)
            if pre.shape != post.shape:
                sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pre, post)]
                raise PredictError(
                    f"{post_path}: is {sizes[1]} pixels, {pre_path} {sizes[0]}, expected one size. Cut both to "
                    "the same area."
                )
            damage = predict_arrays(predictor, pre, post)
            write_file(folder / f"{prefix}localization.png", encode_png((damage > 0).astype("uint8")))
            write_file(folder / f"{prefix}damage.png", encode_png(damage))
            draw_predictions([Picture(pre_path.name, pre, post, None, damage)], folder / f"{prefix}picture.png")


def predict_imagery(
    model: Location, pre: Sequence[Location], post: Sequence[Location], out: Location, *,
    reading: Reading | None = None, windows: Windows | None = None, align: str = ALIGN,
    footprints: Location | None = None, areas: Location | None = None, cell: float = CELL, features: bool = True,
    resume: bool = False, views: "Views" = 1, formats: Sequence[str] = (),
) -> "Summary":  # fmt: skip
    """Predicts a pair of georeferenced images, or of tiles of them, and writes maps of it into `out`.

    model, views: as for `predict_pairs`, and the model of an event, which grades the buildings. footprints, areas:
    vector files of buildings to grade instead of those found, and of areas to sum up by instead of squares of `cell`
    metres. The rest: see `imagery.mapping.make_map`. Raises EventError, EventModelError, ModelError, RasterError,
    VectorError, OutputError, StorageError, DeviceError.
    """
    from imagery.formats.stac import read_made_by
    from imagery.give.outputs import check_outputs
    from imagery.mapping import Loaded, make_map
    from imagery.predict.inference import identity_of
    from imagery.read.vectors import Polygons, read_footprints, read_polygons
    from model.calibration.domain import read_domain
    from model.device import choose_device
    from model.inference import read_origin

    device, scratch = choose_device(), scratch_for(out, "tiles")
    with ExitStack() as stack:

        def local(location: Location) -> Path:
            return stack.enter_context(local_input(location))

        def polygons(location: Location | None, read: Callable[[Path], Polygons]) -> Polygons | None:
            return None if location is None else read(local(location)).named(str(location))

        def load() -> "Loaded":
            source = stack.enter_context(local_source(model))
            directory, event = source.directory, source.event
            predictor, identity = _predictor(directory, device, views), identity_of(directory)
            if event is not None:
                refuse_another_network(model, identity, event.network)
            made_by = read_made_by(directory, source.location, source.address)
            return Loaded(predictor, identity, read_origin(directory), read_domain(directory), made_by, event)

        folder = stack.enter_context(local_output(out))
        check_outputs(folder, cell)
        vectors = {"footprints": polygons(footprints, read_footprints), "areas": polygons(areas, read_polygons)}
        sources = Sources(tuple(map(local, pre)), tuple(map(local, post)), **vars(reading or Reading()))
        summary = make_map(
            load, sources, folder, scratch, windows=windows or Windows(), align=align, cell=cell,
            features=features, names={"before": [*map(str, pre)], "after": [*map(str, post)]}, resume=resume,
            formats=formats, **vectors,
        )  # fmt: skip
    shutil.rmtree(scratch)  # not before the result is where it belongs: the upload may fail
    return summary


def predict_shard(plan: Location, number: int, out: Location, *, windows: Windows | None = None) -> Location:
    """Predicts a shard of a plan of `components.plan` into a folder of its own in `out`, and returns that.

    windows: whose batch and workers are taken. Goes on with the windows that an interrupted call left on this machine.
    Raises PlanError, also where an image or the model has changed since the plan was made; ModelError, RasterError,
    StorageError, DeviceError.
    """
    from imagery.predict.inference import identity_of
    from imagery.shards import predicting
    from imagery.shards.plan import read_plan
    from imagery.shards.stored import is_ours, name_of
    from model.device import choose_device

    device, place = choose_device(), join(out, name_of(number))
    scratch, windows = scratch_for(place, "tiles"), windows or Windows()
    with ExitStack() as stack:
        made = read_plan(stack.enter_context(local_input(plan)))

        def load() -> "tuple[Predictor, str]":
            directory = stack.enter_context(local_source(made.network)).directory
            return _predictor(directory, device, made.views), identity_of(directory)

        folder = stack.enter_context(local_output(place, replaces=is_ours))
        predicting.predict_shard(
            made, number, load, lambda location: stack.enter_context(local_input(location)), folder, scratch,
            batch=windows.batch, workers=windows.workers,
        )  # fmt: skip
    shutil.rmtree(scratch)
    return place


def find_pairs(folder: Path) -> list[Pair]:
    """The pairs of a folder of xBD images, by name; raises PredictError where one half is missing.

    Hidden files are passed over, such as the `._NAME` that macOS leaves beside each file.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise PredictError(f"{folder}: {found}, expected a folder of pairs NAME{PRE} and NAME{POST}. Correct --images.")
    names = sorted({found.scene for found in scene_files(folder)})
    others = [path.name for path in folder.iterdir() if scene_file(path.name) is None]
    nearly = nearly_scene_files(others)
    if not names:
        rasters = sorted(name for name in others if name.lower().endswith(RASTERS))
        found = f"has {few(nearly or rasters)}, but no image pair" if nearly or rasters else "has no image pair"
        remedy = "Give GeoTIFFs by --pre and --post." if rasters and not nearly else "Rename or convert the images."
        raise PredictError(f"{folder}: {found}, expected NAME{PRE} and NAME{POST}. {remedy}")
    if nearly:
        print(f"warning: {folder}: passed over are {few(nearly)}, expected the ending {IMAGE}", file=sys.stderr)
    pairs = [(f"{name}_", folder / file_name(name, "pre"), folder / file_name(name, "post")) for name in names]
    for path in (path for _, *paths in pairs for path in paths if not path.exists()):
        other = other_ending(path) or "its other half is there. Bring it or remove the other half."
        raise PredictError(f"{path}: is missing, {other}")
    return pairs


def _predictor(directory: Path, device: "torch.device", views: "Views") -> "Predictor":
    from model.device import describe_device
    from model.inference import Predictor, load_model

    print(describe_device(device))
    return Predictor(load_model(directory).to(device), views)


def _is_imagery(images: Sequence[str]) -> bool:
    """Whether these are GeoTIFFs or the like, and not a pair of plain images."""
    return len(images) > 2 or not all(image.lower().endswith(PLAIN) for image in images)


def _add_imagery_options(parser: Parser) -> list[str]:
    """Adds the options of GeoTIFFs, which are set only where they are given; returns their names in the namespace."""
    group = parser.add_argument_group(
        "GeoTIFFs", "post may have another CRS, resolution or extent.", argument_default=argparse.SUPPRESS
    )
    options = [
        *add_reading(group),
        group.add_argument("--batch", type=int, help=f"windows at once ({Windows.batch})"),
        group.add_argument(
            "--workers",
            type=int,
            help=f"threads that read, processes that list buildings ({Windows.workers})",
        ),
        group.add_argument(
            "--footprints", metavar="LOCATION", help="vector file of buildings to grade, not those found"
        ),
        group.add_argument("--areas", metavar="LOCATION", help="vector file of areas to sum up by, and not by squares"),
        group.add_argument("--cell", type=float, help=f"metres of the summary's squares ({CELL:g})"),
        add_formats(group),
        group.add_argument("--resume", action="store_true", help="go on with the windows of an interrupted run"),
    ]
    return [option.dest for option in options]


def _refuse_unused(given: dict[str, Any], *, imagery: bool) -> None:
    """Raises PredictError or SettingsError that names the options which would change nothing."""
    if given and not imagery:
        raise PredictError(
            f"{', '.join(map(option_of, given))}: is for GeoTIFFs alone, found plain images. Leave it out, or give "
            "--pre and --post as .tif or .vrt."
        )
    refuse_two(given, ("cell", "areas"), ("percentiles", "value_range"))


def _found(names: Sequence[str]) -> str:
    return f", found {', '.join(map(option_of, names))}" if names else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.predict", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--model", metavar="LOCATION", help="model directory, or models:/NAME@ALIAS, also of an event")
    parser.add_argument("--pre", nargs="+", metavar="LOCATION", help="image before the disaster; GeoTIFFs may be tiles")
    parser.add_argument("--post", nargs="+", metavar="LOCATION", help="image after the disaster")
    parser.add_argument("--images", metavar="LOCATION", help=f"folder of pairs NAME{PRE} and NAME{POST}")
    parser.add_argument(
        "--plan", metavar="LOCATION", help="plan.json of components.plan, of which --shard is predicted"
    )
    parser.add_argument(
        "--shard", type=int, metavar="K", help="number of a shard, from 0; only --batch and --workers go with it"
    )
    parser.add_argument("--out", required=True, metavar="LOCATION", help="results are written here")
    parser.add_argument(
        "--views", type=int, choices=(1, 4, 8), default=1,
        help="take the mean over each image and its flips (4), and quarter turns (8); as many times as slow",
    )  # fmt: skip
    names = _add_imagery_options(parser)
    a = parser.parse_args(argv)
    given = {name: value for name, value in vars(a).items() if name in names}
    if a.plan is not None or a.shard is not None:
        odd = [name for name in ("model", "pre", "post", "images") if getattr(a, name) is not None]
        odd += [name for name in given if name not in ("batch", "workers")] + (["views"] if a.views != 1 else [])
        if odd or a.plan is None or a.shard is None:
            parser.error(f"give --plan and --shard, and besides only --out, --batch and --workers{_found(odd)}")
        with errors_in_one_line():
            print(f"wrote {predict_shard(a.plan, a.shard, a.out, windows=taken(Windows, given))}")
        return
    if (a.images is None) == (a.pre is None) or (a.pre is None) != (a.post is None):
        parser.error("give either --pre and --post, or --images, or --plan and --shard")
    if a.model is None:
        parser.error("the following arguments are required: --model")
    imagery = a.images is None and _is_imagery([*a.pre, *a.post])
    with errors_in_one_line(), ExitStack() as stack:
        _refuse_unused(given, imagery=imagery)
        if imagery:
            reading, windows = taken(Reading, given), taken(Windows, given)
            summary = predict_imagery(
                a.model, a.pre, a.post, a.out, views=a.views, reading=reading, windows=windows, **given
            )
            buildings = "1 building" if len(summary) == 1 else f"{len(summary)} buildings"
            print(f"{buildings}; wrote damage.tif, buildings.gpkg, report.html and more to {a.out}")
            return
        if a.images is not None:
            pairs = find_pairs(stack.enter_context(local_input(a.images)))
        else:
            pre, post = (stack.enter_context(local_input(image)) for image in (*a.pre, *a.post))
            pairs = [("", pre, post)]
        predict_pairs(a.model, pairs, a.out, views=a.views)
        print(f"wrote {3 * len(pairs)} files to {a.out}")


if __name__ == "__main__":
    main()

"""Step predict: image pairs to damage masks and a picture of them, or a pair of GeoTIFFs to maps of its buildings."""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.command_line import Parser
from base.errors import InputError
from base.files import write_file
from components.cli import errors_in_one_line
from components.events.sources import local_source, refuse_another_network
from components.storage.locations import LOCATIONS, Location, local_input, local_output, scratch_for
from imagery.settings import ALIGN, ALIGNMENTS, CELL, PERCENTILES, Reading, Sources, Windows
from xbd.names import IMAGE, MOMENTS, few, file_name, nearly_scene_files, other_ending, scene_file, scene_files

if TYPE_CHECKING:
    import torch

    from imagery.give.summary import Summary
    from imagery.mapping import Loaded
    from model.inference import Predictor, Views

PRE, POST = (file_name("", moment) for moment in MOMENTS)
PLAIN = (".png", ".jpg", ".jpeg", ".webp")  # images that lie nowhere; whatever else there is, GDAL is asked to read
RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".ntf", ".img")  # that people put where pairs of PNGs are asked for
AUTO = "auto"  # what the file says
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
    resume: bool = False, views: "Views" = 1,
) -> "Summary":  # fmt: skip
    """Predicts a pair of georeferenced images, or of tiles of them, and writes maps of it into `out`.

    model, views: as for `predict_pairs`, and the model of an event, which grades the buildings. footprints, areas:
    vector files of buildings to grade instead of those found, and of areas to sum up by instead of squares of `cell`
    metres. The rest: see `imagery.mapping.make_map`. Raises EventError, EventModelError, ModelError, RasterError,
    VectorError, OutputError, StorageError, DeviceError.
    """
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
            return None if location is None else read(local(location))

        def load() -> "Loaded":
            source = stack.enter_context(local_source(model))
            directory, event = source.directory, source.event
            predictor, identity = _predictor(directory, device, views), identity_of(directory)
            if event is not None:
                refuse_another_network(model, identity, event.network, "Assess a map of the network that is there.")
            return Loaded(predictor, identity, read_origin(directory), read_domain(directory), source.location, event)

        folder = stack.enter_context(local_output(out))
        check_outputs(folder, cell)
        vectors = {"footprints": polygons(footprints, read_footprints), "areas": polygons(areas, read_polygons)}
        sources = Sources(tuple(map(local, pre)), tuple(map(local, post)), **vars(reading or Reading()))
        summary = make_map(
            load, sources, folder, scratch, windows=windows or Windows(), align=align, cell=cell,
            features=features, names={"before": [*map(str, pre)], "after": [*map(str, post)]}, resume=resume, **vectors,
        )  # fmt: skip
    shutil.rmtree(scratch)  # not before the result is where it belongs: the upload may fail
    return summary


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
    two: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    more = "values that become black and white, in images of more than 8 bits"
    each = f"two are pre's and post's, {AUTO}: as the file says"
    low, high = PERCENTILES
    shift = f"correct the shift of post: of the whole image, or also from place to place ({ALIGN})"
    options = [
        group.add_argument("--resample-to", type=float, metavar="GSD", help="metres of a pixel to predict at"),
        group.add_argument("--range", dest="value_range", help=f"{more}; else --percentiles", **two),
        group.add_argument("--percentiles", help=f"of each band, without --range ({low:g} {high:g})", **two),
        group.add_argument(
            "--bands", nargs="+", type=_bands, metavar="R,G,B", help=f"numbers of these bands, such as 3,2,1; {each}"
        ),
        group.add_argument(
            "--nodata", nargs="+", type=_value, metavar="V", help=f"value of pixels without data; {each}"
        ),
        group.add_argument("--align", choices=ALIGNMENTS, help=shift),
        group.add_argument("--tile", type=int, help=f"pixels of a window ({Windows.tile})"),
        group.add_argument("--overlap", type=int, help=f"pixels that windows share ({Windows.overlap})"),
        group.add_argument("--batch", type=int, help=f"windows at once ({Windows.batch})"),
        group.add_argument("--workers", type=int, help=f"threads that read ahead ({Windows.workers})"),
        group.add_argument(
            "--footprints", metavar="LOCATION", help="vector file of buildings to grade, not those found"
        ),
        group.add_argument("--areas", metavar="LOCATION", help="vector file of areas to sum up by, and not by squares"),
        group.add_argument("--cell", type=float, help=f"metres of the summary's squares ({CELL:g})"),
        group.add_argument(
            "--no-features",
            dest="features",
            action="store_false",
            help="do not keep, for each building, what the network sees of it (features.parquet)",
        ),
        group.add_argument("--resume", action="store_true", help="go on with the windows of an interrupted run"),
    ]
    return [option.dest for option in options]


def _bands(text: str) -> tuple[int, ...] | None:
    if text == AUTO:
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3}){2}", text):
        raise argparse.ArgumentTypeError(f"found {text}, expected the numbers of three bands, such as 3,2,1, or {AUTO}")
    return tuple(map(int, text.split(",")))


def _value(text: str) -> float | None:
    try:
        return None if text == AUTO else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number, or {AUTO}") from None


def _refuse_unused(given: dict[str, Any], *, imagery: bool) -> None:
    """Raises PredictError that names the options which would change nothing."""
    named = {"value_range": "--range", "features": "--no-features"}
    option = {name: named.get(name, f"--{name.replace('_', '-')}") for name in given}
    if given and not imagery:
        raise PredictError(
            f"{', '.join(option.values())}: is for GeoTIFFs alone, found plain images. Leave it out, or give "
            "--pre and --post as .tif or .vrt."
        )
    for unused, by in (("cell", "areas"), ("percentiles", "value_range")):
        if unused in given and by in given:
            raise PredictError(f"{option[unused]}: is not used with {option[by]}. Give one of the two.")


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    """What is given of the options of GeoTIFFs, as `predict_imagery` takes it; raises SettingsError."""
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}

    def taken(kind: type[Any]) -> Any:
        return kind(**{field.name: rest.pop(field.name) for field in fields(kind) if field.name in rest})

    return {"reading": taken(Reading), "windows": taken(Windows), **rest}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = Parser(prog="python -m components.predict", description=__doc__, epilog=LOCATIONS)
    parser.add_argument(
        "--model", required=True, metavar="LOCATION", help="model directory, or models:/NAME@ALIAS, also of an event"
    )
    parser.add_argument("--pre", nargs="+", metavar="LOCATION", help="image before the disaster; GeoTIFFs may be tiles")
    parser.add_argument("--post", nargs="+", metavar="LOCATION", help="image after the disaster")
    parser.add_argument("--images", metavar="LOCATION", help=f"folder of pairs NAME{PRE} and NAME{POST}")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="results are written here")
    parser.add_argument(
        "--views", type=int, choices=(1, 4, 8), default=1,
        help="take the mean over each image and its flips (4), and quarter turns (8); as many times as slow",
    )  # fmt: skip
    names = _add_imagery_options(parser)
    a = parser.parse_args(argv)
    if (a.images is None) == (a.pre is None) or (a.pre is None) != (a.post is None):
        parser.error("give either --pre and --post, or --images")
    given = {name: value for name, value in vars(a).items() if name in names}
    imagery = a.images is None and _is_imagery([*a.pre, *a.post])
    with errors_in_one_line(), ExitStack() as stack:
        _refuse_unused(given, imagery=imagery)
        if imagery:
            summary = predict_imagery(a.model, a.pre, a.post, a.out, views=a.views, **_typed(given))
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

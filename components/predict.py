"""Step predict: image pairs to damage masks and a picture of them, or a pair of GeoTIFFs to a map of its buildings."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.errors import InputError
from base.files import write_file
from components.cli import errors_in_one_line
from components.storage.locations import LOCATIONS, Location, local_input, local_output, scratch_for
from imagery.settings import ALIGNMENTS, Sources, Windows, Wishes

if TYPE_CHECKING:
    from imagery.give.summary import Summary

PRE, POST = "_pre_disaster.png", "_post_disaster.png"
GEOTIFFS = (".tif", ".tiff", ".vrt")
ALIGN = "global"


class PredictError(InputError):
    """Images or options that cannot be predicted with."""


def predict_pairs(model: Location, pairs: Sequence[tuple[str, Path, Path]], out: Location) -> None:
    """Predicts image pairs (prefix of the output names, pre image, post image) of any size.

    model: location of a model directory, or a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
    Writes for each pair `out`/PREFIXlocalization.png and PREFIXdamage.png (uint8, 0-4) and PREFIXpicture.png.
    Raises ModelError, ImageError, PredictError, StorageError; pairs before the failing one stay written in a path.
    """
    import torch
    from tqdm import tqdm

    from base.images import encode_png, read_image
    from model.inference import Predictor, load_model
    from model.judge.picture import Picture, draw_predictions

    with local_output(out) as folder, local_input(find_model(model)) as directory:
        predictor = Predictor(load_model(directory).to("cuda" if torch.cuda.is_available() else "cpu"))
        folder.mkdir(parents=True, exist_ok=True)
        for prefix, pre_path, post_path in tqdm(pairs, "predict", disable=None):
            pre, post = read_image(pre_path), read_image(post_path)
            if pre.shape != post.shape:
                sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pre, post)]
                raise PredictError(
                    f"{post_path}: is {sizes[1]} pixels, {pre_path} {sizes[0]}: expected one size. Cut both to "
                    "the same area."
                )
            batch = (torch.from_numpy(image.transpose(2, 0, 1).copy())[None] for image in (pre, post))
            localization, damage = (part[0].cpu().numpy() for part in predictor(*batch))
            write_file(folder / f"{prefix}localization.png", encode_png(localization))
            write_file(folder / f"{prefix}damage.png", encode_png(damage))
            draw_predictions([Picture(pre_path.name, pre, post, None, damage)], folder / f"{prefix}picture.png")


def predict_imagery(
    model: Location,
    pre: Sequence[Location],
    post: Sequence[Location],
    out: Location,
    *,
    value_range: tuple[float, float] | None = None,
    percentiles: tuple[float, float] = Sources.percentiles,
    resample_to: float | None = None,
    align: str = ALIGN,
    windows: Windows | None = None,
    footprints: Location | None = None,
    areas: Location | None = None,
    cell: float = Wishes.cell,
    resume: bool = False,
) -> "Summary":
    """Predicts a pair of georeferenced images of any size, each one file or several tiles, to a map of its buildings.

    model: as in `predict_pairs`. value_range, percentiles, resample_to, windows, footprints, areas, cell: see
    `imagery.settings`, whose ALIGNMENTS are what `align` may be. resume: go on with the windows that an interrupted run
    finished. Returns the buildings summed up.
    Raises ModelError, RasterError, SettingsError, VectorError, OutputError, StorageError.
    """
    from imagery.mapping import Work, make_map

    with ExitStack() as stack:

        def bring(location: Location) -> Path:
            return stack.enter_context(local_input(location))

        work = Work(stack.enter_context(local_output(out)), scratch_for(out, "tiles"), resume)
        given = [None if location is None else bring(location) for location in (footprints, areas)]
        sources = Sources(tuple(map(bring, pre)), tuple(map(bring, post)), value_range, percentiles, resample_to)
        return make_map(
            sources,
            align,
            windows or Windows(),
            Wishes(given[0], given[1], cell),
            work,
            lambda: bring(find_model(model)),
            ([str(image) for image in pre], [str(image) for image in post]),
        )


def find_pairs(folder: Path) -> list[tuple[str, Path, Path]]:
    """The pairs of a folder of xBD images, by name; raises PredictError where one half is missing."""
    names = {path.name.removesuffix(ending) for ending in (PRE, POST) for path in folder.glob(f"*{ending}")}
    if not names:
        raise PredictError(f"{folder}: has no image pair: expected NAME{PRE} and NAME{POST}.")
    pairs = [(f"{name}_", folder / f"{name}{PRE}", folder / f"{name}{POST}") for name in sorted(names)]
    for path in (path for _, *paths in pairs for path in paths if not path.exists()):
        raise PredictError(f"{path}: is missing, its other half is there. Bring it or remove the other half.")
    return pairs


def find_model(model: Location) -> Location:
    """The location of a model directory, where `model` may be a registered one; raises TrackingError."""
    if not str(model).startswith("models:/"):
        return model
    from components.tracking import registry

    return registry.download_model(str(model))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser, options = _parser()
    given = vars(parser.parse_args(argv))
    model, pre, post, images, out = (given.pop(name) for name in ("model", "pre", "post", "images", "out"))
    if (images is None) == (pre is None) or (pre is None) != (post is None):
        parser.error("give either --pre and --post, or --images")
    with errors_in_one_line(), ExitStack() as stack:
        if pre is not None and _are_geotiffs([*pre, *post]):
            summary = predict_imagery(model, pre, post, out, **_options_of_imagery(given))
            for note in summary.notes:
                print(f"warning: {note}", file=sys.stderr)
            print(f"{len(summary)} buildings; wrote damage.tif, buildings.gpkg, report.html and more to {out}")
            return
        for name in given:
            raise PredictError(f"{options[name]}: is for GeoTIFFs, found other images. Leave it out.")
        if images is not None:
            pairs = find_pairs(stack.enter_context(local_input(images)))
        else:
            before, after = (stack.enter_context(local_input(image)) for image in (*pre, *post))
            pairs = [("", before, after)]
        predict_pairs(model, pairs, out)
        print(f"wrote {3 * len(pairs)} files to {out}")


def _are_geotiffs(images: Sequence[str]) -> bool:
    return len(images) > 2 or any(image.lower().endswith(GEOTIFFS) for image in images)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, str]]:
    """The parser, and the options of GeoTIFFs by the names of their values, which are there only if they are given."""
    parser = argparse.ArgumentParser(prog="python -m components.predict", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--model", required=True, metavar="LOCATION", help="model directory, or models:/NAME@ALIAS")
    parser.add_argument("--pre", nargs="+", metavar="LOCATION", help="image before the disaster; GeoTIFFs may be tiles")
    parser.add_argument("--post", nargs="+", metavar="LOCATION", help="image after the disaster")
    parser.add_argument("--images", metavar="LOCATION", help=f"folder of pairs NAME{PRE} and NAME{POST}")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="results are written here")
    group = parser.add_argument_group("GeoTIFFs", "post may have another CRS, resolution or extent.")
    options = {}

    def add(name: str, help: str, **more: Any) -> None:
        action = group.add_argument(name, default=argparse.SUPPRESS, help=help, **more)
        options[action.dest] = name

    low, high = Sources.percentiles
    pair = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    add("--resample-to", "metres of a pixel to predict at (as --pre)", type=float, metavar="GSD")
    add("--range", "values that become black and white, in images of more than 8 bits", **pair)
    add("--percentiles", f"the same as shares of the values, in percent ({low:g} {high:g})", **pair)
    add("--align", f"correct the shift of post, as a whole or also from place to place ({ALIGN})", choices=ALIGNMENTS)
    add("--tile", f"pixels of a window ({Windows.tile})", type=int)
    add("--overlap", f"pixels that windows share ({Windows.overlap})", type=int)
    add("--batch", f"windows at once ({Windows.batch})", type=int)
    add("--workers", f"threads that read ahead ({Windows.workers})", type=int)
    add("--footprints", "vector file of buildings to grade, instead of those found", metavar="LOCATION")
    add("--areas", "vector file of areas to sum up by, instead of squares", metavar="LOCATION")
    add("--cell", f"metres of these squares ({Wishes.cell:g})", type=float)
    add("--resume", "go on with the windows that an interrupted run finished", action="store_true")
    return parser, options


def _options_of_imagery(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `predict_imagery` takes them; raises PredictError where one rules out another."""
    for one, other in (("range", "percentiles"), ("areas", "cell")):
        if one in given and other in given:
            raise PredictError(f"--{other}: is not used with --{one}. Give one of them.")
    values = dict(given)
    windows = Windows(**{field.name: values.pop(field.name) for field in fields(Windows) if field.name in values})
    for name, parameter in (("range", "value_range"), ("percentiles", "percentiles")):
        if name in values:
            low, high = values.pop(name)
            values[parameter] = (low, high)
    return {"windows": windows, **values}


if __name__ == "__main__":
    main()

"""Step predict: image pairs to damage masks and a picture of them, or a scene of GeoTIFFs to maps of its buildings."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from base.errors import InputError
from base.files import write_file
from components.cli import errors_in_one_line
from components.storage.locations import LOCATIONS, Location, local_input, local_output

PRE, POST = "_pre_disaster.png", "_post_disaster.png"


class PredictError(InputError):
    """Image pairs that cannot be predicted."""


def predict(model: Location, pairs: Sequence[tuple[str, Path, Path]], out: Location) -> None:
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
    from components import predict_scene

    parser = argparse.ArgumentParser(prog="python -m components.predict", description=__doc__, epilog=LOCATIONS)
    parser.add_argument("--model", required=True, metavar="LOCATION", help="model directory, or models:/NAME@ALIAS")
    parser.add_argument("--pre", nargs="+", metavar="LOCATION", help="image before the disaster; GeoTIFFs may be tiles")
    parser.add_argument("--post", nargs="+", metavar="LOCATION", help="image after the disaster")
    parser.add_argument("--images", metavar="LOCATION", help=f"folder of pairs NAME{PRE} and NAME{POST}")
    parser.add_argument("--out", required=True, metavar="LOCATION", help="results are written here")
    predict_scene.add_options(parser)
    a = parser.parse_args(argv)
    if (a.images is None) == (a.pre is None) or (a.pre is None) != (a.post is None):
        parser.error("give either --pre and --post, or --images")
    with errors_in_one_line(), ExitStack() as stack:
        if a.images is not None:
            pairs = find_pairs(stack.enter_context(local_input(a.images)))
        elif predict_scene.is_scene([*a.pre, *a.post]):
            print(predict_scene.run(a))
            return
        else:
            pre, post = (stack.enter_context(local_input(image)) for image in (*a.pre, *a.post))
            pairs = [("", pre, post)]
        predict(a.model, pairs, a.out)
        print(f"wrote {3 * len(pairs)} files to {a.out}")


if __name__ == "__main__":
    main()

"""What training will see, for people: a picture of samples as two pipelines change them.

python -m xbd.augmentation DIR --picture FILE [--geometry strong] [--photometry strong]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from base.command_line import Parser, whole_number
from base.errors import InputError, errors_in_one_line
from base.yaml_file import YamlError, parse_yaml
from xbd.dataset import SceneCrops
from xbd.overview import colour, draw_grid

PRESETS = ("none", "paper", "strong")


def draw_samples(crops: SceneCrops, path: Path, count: int) -> None:
    """Writes a PNG of the first `count` samples, two in a row: before, after and mask of each."""
    rows = []
    for first in range(0, count, 2):
        panels = {}
        for index in range(first, min(first + 2, count)):
            sample = crops[index]
            panels[f"before {index}"], panels[f"after {index}"] = (
                image.permute(1, 2, 0).numpy() for image in (sample.pre, sample.post)
            )
            panels[f"mask {index}"] = colour(sample.mask.numpy())
        rows.append((" and ".join(crops.scene_of(index) for index in range(first, min(first + 2, count))), panels))
    draw_grid(rows, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Draws samples of the train split as training would see them."""
    parser = Parser(prog="python -m xbd.augmentation", description=main.__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="prepared scenes")
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE", help="the PNG to write")
    for name in ("geometry", "photometry"):
        parser.add_argument(
            f"--{name}", default="paper", metavar="NAME|FILE",
            help=f"{', '.join(PRESETS)}, or a file that albumentations.save wrote (default: paper)",
        )  # fmt: skip
    parser.add_argument("--crop-size", type=whole_number(32, 1024), default=256, metavar="PIXELS")
    parser.add_argument("--count", type=whole_number(1, 64), default=16, metavar="N", help="samples (default: 16)")
    parser.add_argument("--seed", type=whole_number(0, 2**32), default=1, metavar="N")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        augmentation = {name: _pipeline(name, getattr(arguments, name)) for name in ("geometry", "photometry")}
        crops = SceneCrops(
            arguments.root, crop_size=arguments.crop_size, seed=arguments.seed, augmentation=augmentation
        )
        draw_samples(crops, arguments.picture, arguments.count)
        print(f"picture: {arguments.picture}")


def _pipeline(name: str, given: str) -> str | dict[str, Any]:
    if given in PRESETS:
        return given
    try:
        form = parse_yaml(Path(given).read_text(encoding="utf-8"))  # JSON is YAML, too
    except FileNotFoundError:
        raise InputError(f"--{name}: found {given}, expected {', '.join(PRESETS)}, or a file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--{name}: {given} is no text. Write it by albumentations.save.") from error
    except YamlError as error:
        raise InputError(f"--{name}: {given} {error}. Write it by albumentations.save.") from error
    if not isinstance(form, dict):
        raise InputError(f"--{name}: {given} holds a {type(form).__name__}, expected what albumentations.save writes.")
    return form


if __name__ == "__main__":
    main()

"""What a prepared data set holds, for people: a table by split and disaster, and a picture of some scenes.

python -m xbd.overview DIR [--picture FILE]
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from base.command_line import Parser, whole_number
from base.errors import InputError, errors_in_one_line
from base.files import new_file
from base.grades import KEYS, LEGEND
from xbd.scenes import MASK, POST, PRE, SKIPPED, SPLITS, SceneRecord, open_scene, read_index

Image = npt.NDArray[np.uint8]

_SIDE = 512  # pixels of a picture in the grid


def table(records: Sequence[SceneRecord]) -> str:
    """Scenes, buildings of each grade, GSD in metres and off-nadir angle in degrees (medians) by split and disaster."""
    import pandas as pd  # here: it takes half a second, and who only draws does without

    frame = pd.DataFrame([asdict(record) for record in records])
    # In the order of SPLITS, which is that of the work, and skipped scenes last.
    frame["split"] = pd.Categorical(frame["split"], [*SPLITS, SKIPPED])
    columns = {
        "scenes": ("scene", "count"),
        **{name: (name, "sum") for name in (*KEYS, "unclassified")},
        "GSD": ("gsd", "median"),
        "off-nadir": ("off_nadir_angle", "median"),
    }
    groups = ["split", "disaster", "disaster_type"]
    by_disaster = frame.groupby(groups, observed=True).agg(**columns).reset_index()
    by_split = frame.groupby("split", observed=True).agg(**columns).reset_index()
    by_split = by_split.assign(disaster="all", disaster_type="")
    # Each split's sum below its disasters.
    rows = pd.concat([by_disaster, by_split]).sort_values("split", kind="stable")
    rows = rows.rename(columns=lambda name: name.replace("_", " "))
    return str(rows.to_string(index=False, float_format=lambda number: f"{number:.2f}", na_rep="-"))


def draw_scenes(root: Path, records: Sequence[SceneRecord], path: Path, count: int) -> None:
    """Writes a picture of `count` scenes, spread over the index: before, after, mask, and the mask over the image."""
    chosen = [record for record in records if record.split != SKIPPED]
    chosen = [chosen[len(chosen) * number // count] for number in range(min(count, len(chosen)))]
    rows = []
    for record in chosen:
        scene = open_scene(root, record)
        pre, post, mask = scene[..., PRE], scene[..., POST], scene[..., MASK]
        title = f"{record.scene} ({record.split})"
        rows.append((title, {"before": pre, "after": post, "mask": colour(mask), "mask on before": overlay(pre, mask)}))
    draw_grid(rows, path)


def colour(mask: Image) -> Image:
    """Classes uint8 [H, W] to uint8 RGB [H, W, 3]."""
    table = np.zeros((256, 3), np.uint8)
    for value, (_, rgb) in LEGEND.items():
        table[value] = rgb
    return table[mask]


def overlay(image: Image, mask: Image) -> Image:
    """Outlines of the mask's classes, in their colours and two pixels wide, on the image [H, W, 3]."""
    drawn = np.array(image)
    for value, (_, rgb) in LEGEND.items():
        if value != 0:
            outlines, _ = cv2.findContours((mask == value).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(drawn, outlines, -1, rgb, 2)
    return drawn


def draw_grid(rows: Sequence[tuple[str, dict[str, Image]]], path: Path) -> None:
    """Writes rows of titled pictures, uint8 [H, W, 3], as one PNG with a legend of the classes."""
    columns = max(len(panels) for _, panels in rows)
    figure = Figure(figsize=(3.4 * columns, 3.7 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (title, panels) in zip(axes, rows, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, (name, image) in zip(row, panels.items(), strict=False):
            axis.set_title(name if axis is not row[0] else f"{title}\n{name}", fontsize=8, loc="left")
            axis.imshow(_thumbnail(image))
    figure.legend(
        handles=[
            Patch(facecolor=f"#{bytes(rgb).hex()}", edgecolor="black", label=name) for name, rgb in LEGEND.values()
        ],
        loc="outside lower center",
        ncols=len(LEGEND),
        fontsize=8,
        frameon=False,
    )
    with new_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def _thumbnail(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what a prepared data set holds, and draws some of its scenes."""
    parser = Parser(prog="python -m xbd.overview", description=main.__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="prepared scenes")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw scenes with their masks to this PNG")
    count = whole_number(1, 100)
    parser.add_argument("--count", type=count, default=6, metavar="N", help="scenes in the picture (default: 6)")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        if arguments.picture is not None and arguments.picture.suffix != ".png":
            raise InputError(f"--picture: found {arguments.picture}, expected a file that ends in .png.")
        records = read_index(arguments.root, (*SPLITS, SKIPPED))
        print(table(records))
        if arguments.picture is not None:
            draw_scenes(arguments.root, records, arguments.picture, arguments.count)
            print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()

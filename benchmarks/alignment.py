"""What correcting the shift between the two images is worth: the score on the test scenes with each --align.

python -m benchmarks.alignment --data PREPARED --model DIR

Each test scene is written as a pair of GeoTIFFs and predicted as a scene. Prints a table, and the shifts found.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rasterio
import torch
from affine import Affine

from benchmarks.demonstration import write_tile
from imagery.predict.blending import NODATA
from imagery.predict.inference import predict_classes
from imagery.read.raster import ImagePair
from imagery.read.registration import register
from imagery.settings import ALIGNMENTS, Sources, Windows
from model.inference import Predictor, load_model
from model.score import joint_counts, xview2_score
from xbd.dataset import Scenes

PLACE = "EPSG:32633", Affine(0.5, 0, 5e5, 0, -0.5, 4e6)  # as good as any other
SHOWN = ("score", "localization_f1", "damage_f1")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared scenes")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a model directory")
    arguments = parser.parse_args(argv)
    predictor = Predictor(load_model(arguments.model))
    counts = {mode: torch.zeros(2, 5, 5, dtype=torch.int64) for mode in ALIGNMENTS}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        scenes = Scenes(arguments.data, ["test"])
        for number, record in enumerate(scenes.records):
            sample = scenes[number]
            pre, post = (
                write_tile(work / f"{name}.tif", image.numpy(), *PLACE)
                for name, image in (("pre", sample.pre), ("post", sample.post))
            )
            sources = Sources((pre,), (post,))
            for mode in ALIGNMENTS:
                with ImagePair(sources) as pair:
                    pair.align(register(pair, mode))
                    said = pair.alignment.facts(pair.grid.gsd)["said"]
                    classes = predict_classes(predictor, "", pair, work / "tiles", Windows())
                with rasterio.open(classes) as dataset:
                    damage = torch.from_numpy(dataset.read(1))
                damage[damage == NODATA] = 0  # beyond the border of post, where it was moved
                counts[mode] += joint_counts(damage, damage, sample.mask)
            print(f"{record.scene}: {said}", flush=True)
    print("\n| --align | " + " | ".join(SHOWN) + " |\n" + "|---" * (1 + len(SHOWN)) + "|")
    for mode, own in counts.items():
        score = xview2_score(own)
        print(f"| {mode} | " + " | ".join(f"{float(score[key]):.4f}" for key in SHOWN) + " |")


if __name__ == "__main__":
    main()

"""Small images with many blocks: they are long, and low."""

from pathlib import Path

import numpy as np

from tests.imagery.geotiff import moved, noise, write_tif

WIDTH = 4224  # pixels: five blocks in a row


def long_images(folder: Path) -> Path:
    """Makes the folders pre and post, with an image each in two files; returns `folder`."""
    for seed, name in enumerate(("pre", "post"), start=1):
        image = noise(12, WIDTH // 8, seed).repeat(8, axis=1).repeat(8, axis=2)
        (folder / name).mkdir()
        for left, right in ((0, 2000), (2000, WIDTH)):
            part = np.ascontiguousarray(image[:, :, left:right])
            write_tif(folder / name / f"{left:04}.tif", part, transform=moved(left, 0))
    return folder

"""A pair of images in memory to classes, by the windows in which imagery is predicted, so that a large one takes the
network no more memory than a small one.
"""

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from imagery.predict.blending import BLOCK, put_together
from imagery.predict.tile_store import Logits, Mask
from imagery.predict.windows import plan
from imagery.read.grid import blocks
from imagery.settings import Windows
from model.inference import Predictor

Image = npt.NDArray[np.uint8]


def predict_arrays(predictor: Predictor, pre: Image, post: Image, windows: Windows | None = None) -> Image:
    """The damage of a pair, uint8 [H, W], 0 background, 1-4 the grades. pre, post: uint8 RGB [H, W, 3] of one size.

    A pair that is no larger than one window is given to the network as a whole.
    """
    windows = windows or Windows()
    height, width = pre.shape[:2]
    tiles = plan(width, height, windows.tile, windows.overlap)
    if len(tiles) == 1:
        return np.asarray(predictor(_batch(pre), _batch(post)).damage[0].cpu().numpy())
    done: list[tuple[Logits, Mask]] = []
    for tile in tqdm(tiles, "predict", unit="tile", leave=False, disable=None):
        part = np.s_[tile.row_off : tile.row_off + tile.height, tile.col_off : tile.col_off + tile.width]
        logits = torch.cat(list(predictor.logits(_batch(pre[part]), _batch(post[part]))), dim=1)[0]
        done.append((logits.cpu().numpy(), np.broadcast_to(np.True_, (tile.height, tile.width))))
    damage, numbered = np.zeros((height, width), np.uint8), dict(enumerate(tiles))
    for block in blocks(width, height, BLOCK):
        part = np.s_[block.row_off : block.row_off + block.height, block.col_off : block.col_off + block.width]
        damage[part] = put_together(block, (height, width), numbered, done.__getitem__)[0]
    return damage


def _batch(image: Image) -> torch.Tensor:
    """A batch of one, [1, 3, H, W]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None]

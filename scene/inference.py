"""A pair of rasters of any size to classes and probabilities. Memory is that of a tile, not of the scene: first every
tile's logits go to a file, then blocks of the result are put together from the tiles that overlap there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from model.inference import Predictor
from scene.blending import compose
from scene.grid import Grid
from scene.raster import ScenePair, Sources
from scene.tile_store import TileStore
from scene.windows import ALIGN, plan
from xbd.errors import InputError


class WindowsError(InputError):
    """Windows that cannot be used."""


@dataclass(frozen=True)
class Windows:
    """How a scene is taken apart. tile, overlap: pixels, multiples of 32; batch: tiles that are predicted at once;
    workers: processes that read ahead.
    """

    tile: int = 1024
    overlap: int = 256
    batch: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if self.tile % ALIGN or self.overlap % ALIGN or not 0 <= self.overlap <= self.tile // 2 or self.tile < 64:
            raise WindowsError(
                f"--tile {self.tile} --overlap {self.overlap}: expected multiples of {ALIGN}, a tile of 64 pixels or "
                "more and at most half of it as overlap."
            )
        if self.batch < 1 or self.workers < 0:
            raise WindowsError(f"--batch {self.batch} --workers {self.workers}: expected 1 or more, and 0 or more.")


def predict_scene(
    predictor: Predictor, identity: str, sources: Sources, work: Path, windows: Windows, *, resume: bool = False
) -> Path:
    """Predicts the scene; returns `work`/classes.tif, a tiled GeoTIFF of six uint8 bands on the grid of the pair.

    Its bands: damage (0 background, 1-4, 255 where one of the images has no data), confidence (255 x probability of
    that class), and 255 x the probability of each grade. identity: what tells the model from others. resume: go on
    with the tiles in `work`, if they are of the same scene, model and windows; else they are removed first.
    Raises RasterError, MosaicError.
    """
    with ScenePair(sources) as pair:
        grid = pair.grid
    tiles = plan(grid.width, grid.height, windows.tile, windows.overlap)
    store = TileStore(work, _plan(identity, sources, grid, windows), resume=resume)
    _predict_tiles(predictor, sources, tiles, store, windows)
    return compose(grid, tiles, store)


Item = tuple[int, Tensor, Tensor, npt.NDArray[np.bool_]]


class _Tiles(Dataset[Item | InputError]):
    """Tiles to predict, each with its number, or why one cannot be read: an error that a loader's process raises comes
    out as its traceback. Every process opens the rasters for itself.
    """

    def __init__(self, sources: Sources, tiles: dict[int, Window]) -> None:
        self._sources, self._numbers, self._tiles = sources, list(tiles), tiles
        self._pair: ScenePair | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Item | InputError:
        number = self._numbers[index]
        try:
            if self._pair is None:
                self._pair = ScenePair(self._sources)
            tile = self._pair.read(self._tiles[number])
        except InputError as error:
            return error
        return number, torch.from_numpy(tile.pre), torch.from_numpy(tile.post), tile.valid


def _plan(identity: str, sources: Sources, grid: Grid, windows: Windows) -> str:
    """What tiles are of, as text that is equal only where they fit together."""
    files = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in (*sources.pre, *sources.post)}
    settings = {key: str(value) for key, value in asdict(sources).items()}
    place = [grid.crs.to_wkt(), *grid.transform, grid.width, grid.height]
    return json.dumps([identity, files, settings, place, windows.tile, windows.overlap], indent=1)


def _predict_tiles(
    predictor: Predictor, sources: Sources, tiles: list[Window], store: TileStore, windows: Windows
) -> None:
    left = {number: tile for number, tile in enumerate(tiles) if number not in store}
    bar = tqdm(total=len(tiles), initial=len(tiles) - len(left), desc="predict", unit="tile", disable=None)
    waiting: list[Item] = []

    def flush() -> None:
        if waiting:
            numbers, pre, post, valid = zip(*waiting, strict=True)
            logits = torch.cat(list(predictor.logits(torch.stack(pre), torch.stack(post))), dim=1).cpu().numpy()
            for number, own, mask in zip(numbers, logits, valid, strict=True):
                store.save(number, own, mask)
            bar.update(len(waiting))
            waiting.clear()

    loader = DataLoader(
        _Tiles(sources, left), batch_size=None, num_workers=min(windows.workers, len(left)), persistent_workers=False
    )
    with bar:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            number, pre, post, valid = item
            if not np.asarray(valid).any():  # nothing to see, and nothing to compute
                store.save(number, None, np.asarray(valid))
                bar.update()
                continue
            waiting.append((number, pre, post, np.asarray(valid)))
            if len(waiting) == windows.batch:
                flush()
        flush()


def identity_of(model: Path) -> str:
    """What tells a model directory from others: the hash of its files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.iterdir() if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()

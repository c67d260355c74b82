"""A pair of rasters of any size to classes and probabilities. Memory is that of a tile, not of the images: first every
tile's logits and, where they are asked for, features go to a file, then blocks of the result are put together from the
tiles that overlap there.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from tqdm import tqdm

from imagery.errors import RasterError
from imagery.predict.blending import compose, reaching
from imagery.predict.tile_features import LARGEST
from imagery.predict.tile_store import TileStore
from imagery.predict.windows import plan
from imagery.read.raster import ImagePair, Tile
from imagery.settings import Windows
from model.inference import CONFIG, WEIGHTS, Predictor


def predict_classes(
    predictor: Predictor, identity: str, pair: ImagePair, work: Path, windows: Windows, *, features: bool = False,
    resume: bool = False,
) -> Path:  # fmt: skip
    """Predicts the pair; see `predict_part`.

    identity: what tells the model from others, see `identity_of`. resume: go on with the tiles in `work`, if they are
    of the same images, model and windows, with features or without; else they are removed first.
    Raises RasterError, also where no pixel has data in both images.
    """
    whole = Window(0, 0, pair.grid.width, pair.grid.height)
    of = _describe(identity, predictor.views, pair, windows, features=features)
    store, tiles = _predict(predictor, of, pair, whole, work, windows, features=features, resume=resume)
    if not store.has_data():
        store.clear()
        raise RasterError(
            f"{pair.post.name}: has no data where {pair.pre.name} has some, though their frames overlap. Give "
            "two images of the same place."
        )
    return compose(pair.grid, whole, tiles, store)


def predict_part(
    predictor: Predictor, of: str, pair: ImagePair, part: Window, work: Path, windows: Windows, *, features: bool,
    resume: bool,
) -> Path:  # fmt: skip
    """Predicts a part of the pair, a window of its grid; returns `work`/classes.tif, a tiled BigTIFF of six uint8 bands
    on the grid of the part.

    Its bands: damage (0 background, 1-4, 255 where one of the images has no data), confidence (255 x the probability
    of that class: of background, or of a building of that grade), and 255 x the probability of each grade; 0 without
    data. The same bytes whatever windows.batch and windows.workers are, and the same pixels whatever the part.
    of: what tells the tiles from those of other images, models or windows. work: a folder of this function alone.
    features: keep those of the tiles there, for `imagery.predict.tile_features`. resume: go on with the tiles in it, if
    they are of the same; else they are removed first. Raises RasterError.
    """
    store, tiles = _predict(predictor, of, pair, part, work, windows, features=features, resume=resume)
    return compose(pair.grid, part, tiles, store)


def _predict(
    predictor: Predictor, of: str, pair: ImagePair, part: Window, work: Path, windows: Windows, *, features: bool,
    resume: bool,
) -> tuple[TileStore, dict[int, Window]]:  # fmt: skip
    """The tiles that a part is put together from."""
    size = pair.grid.height, pair.grid.width
    tiles = reaching(part, size, plan(pair.grid.width, pair.grid.height, windows.tile, windows.overlap))
    store = TileStore(work)
    store.begin(of, resume=resume)
    with ExitStack() as stack:
        others = [stack.enter_context(ImagePair(pair.sources, pair.known)) for _ in range(windows.workers - 1)]
        try:
            _predict_tiles(predictor, [pair, *others], tiles, store, windows, features=features)
        except RasterError:
            store.clear()  # no run goes on with these images
            raise
    return store, tiles


def identity_of(model: Path) -> str:
    """What tells a network's directory from others: the hash of its files, whatever else lies beside them."""
    digest = hashlib.sha256()
    for path in (model / name for name in sorted((CONFIG, WEIGHTS))):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _describe(identity: str, views: int, pair: ImagePair, windows: Windows, *, features: bool) -> str:
    """What tiles are of, as text that is equal only where they fit together."""
    files = [
        [file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns]
        for file in (*pair.pre.known.files, *pair.post.known.files)
    ]
    settings = {name: str(value) for name, value in asdict(pair.sources).items()}
    grid = [pair.grid.crs.to_wkt(), *pair.grid.transform, pair.grid.width, pair.grid.height]
    lies = [value.tolist() if isinstance(value, np.ndarray) else value for value in pair.alignment]
    return json.dumps(
        [identity, views, files, settings, grid, pair.ranges, lies, windows.tile, windows.overlap, features], indent=1
    )


def _predict_tiles(
    predictor: Predictor, pairs: Sequence[ImagePair], tiles: Mapping[int, Window], store: TileStore, windows: Windows,
    *, features: bool,
) -> None:  # fmt: skip
    left = {number: tile for number, tile in tiles.items() if number not in store}
    bar = tqdm(total=len(tiles), initial=len(tiles) - len(left), desc="predict", unit="tile", disable=None)
    full: list[tuple[int, Tile]] = []  # of one size, to be predicted at once
    saving = deque[Future[None]]()  # beside the prediction of the next batch

    def finish() -> None:
        if full:
            pre, post = (torch.stack([torch.from_numpy(tile[side]) for _, tile in full]) for side in (0, 1))
            parts, maps = predictor.with_features(pre, post)
            logits = torch.cat(list(parts), dim=1).cpu().numpy()
            while saving:  # of the batch before
                saving.popleft().result()
            saving.append(writer.submit(save, full.copy(), logits, maps if features else []))
            full.clear()

    def save(batch: Sequence[tuple[int, Tile]], logits: npt.NDArray[np.float32], maps: Sequence[torch.Tensor]) -> None:
        kept = [_halved(part) for part in maps]
        for place, (number, tile) in enumerate(batch):
            store.save(number, logits[place], tile.valid, [part[place] for part in kept])
        bar.update(len(batch))

    with bar, ThreadPoolExecutor(1, "save") as writer:
        for number, tile in _read_ahead(pairs, left, windows.workers + windows.batch):
            if not tile.valid.any():
                store.save(number, None, tile.valid)
                bar.update()
                continue
            if full and full[0][1].valid.shape != tile.valid.shape:  # one that ends with the images
                finish()
            full.append((number, tile))
            if len(full) == windows.batch:
                finish()
        finish()
        while saving:
            saving.popleft().result()


def _halved(features: torch.Tensor) -> npt.NDArray[np.float16]:
    """[B, C, h, w] to [B, h, w, C], what float16 cannot hold as the largest number that it can."""
    halved: npt.NDArray[np.float16] = features.clamp(-LARGEST, LARGEST).half().permute(0, 2, 3, 1).cpu().numpy()
    return halved


def _read_ahead(pairs: Sequence[ImagePair], tiles: Mapping[int, Window], ahead: int) -> Iterator[tuple[int, Tile]]:
    """The tiles in their order, read by one thread for each pair while earlier ones are worked on; at most `ahead`
    of them wait in memory.
    """
    free: SimpleQueue[ImagePair] = SimpleQueue()
    for pair in pairs:
        free.put(pair)

    def read(window: Window) -> Tile:
        pair = free.get()
        try:
            return pair.read(window)
        finally:
            free.put(pair)

    waiting: deque[tuple[int, Future[Tile]]] = deque()
    with ThreadPoolExecutor(len(pairs), "read") as pool:
        try:
            for number, window in tiles.items():
                waiting.append((number, pool.submit(read, window)))
                if len(waiting) == ahead:
                    number, first = waiting.popleft()
                    yield number, first.result()
            while waiting:
                number, first = waiting.popleft()
                yield number, first.result()
        finally:
            pool.shutdown(cancel_futures=True)

"""Maps of made events, written by what predict writes maps with, and judgements as the page gives them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imagery.give.features import Kept
from imagery.predict.tile_features import TileFeatures
from imagery.predict.tile_store import TileStore
from imagery.predict.windows import plan
from imagery.sampling.draw import Draw
from imagery.sampling.judgements_file import read_draw
from imagery.settings import Windows
from tests.imagery.predicted import black, give_out, write_classes

PITCH, SIDE = 16, 8  # pixels between the corners of buildings, and of their sides
ROWS, COLUMNS = 20, 15
WINDOWS = Windows(tile=128, overlap=32)
CHANNELS = 12


class Made(NamedTuple):
    """truth: [N] of JUDGEMENTS, in the map's rows."""

    folder: Path
    truth: npt.NDArray[np.int64]
    draw: Draw


def make_map(folder: Path, *, sharp: float, telling: float, seed: int = 0) -> Made:
    """A map of 300 buildings, half of them damaged. sharp: how well its grades are told, telling: how well the features
    tell them.
    """
    generator = np.random.default_rng(seed)
    count = ROWS * COLUMNS
    truth = generator.choice([0, 1, 2, 3, 4, 255], count, p=[0.04, 0.46, 0.2, 0.1, 0.17, 0.03])
    hot = (truth[:, None] == np.arange(1, 5)).astype(np.float64)
    evidence = generator.normal(0, 1, (count, 4)) + sharp * hot
    probabilities = np.exp(evidence) / np.exp(evidence).sum(1, keepdims=True)
    inside = np.zeros((PITCH, PITCH), bool)
    inside[4 : 4 + SIDE, 4 : 4 + SIDE] = True
    owners = np.arange(count).reshape(ROWS, COLUMNS).repeat(PITCH, 0).repeat(PITCH, 1)
    building = np.tile(inside, (ROWS, COLUMNS))
    grades = np.rint(255 * probabilities[owners]).transpose(2, 0, 1)
    damage = np.where(building, grades.argmax(0) + 1, 0)
    classes = write_classes(folder / "classes.tif", damage, grades=grades)
    features = generator.normal(0, 1, (count, CHANNELS)) + telling * hot @ generator.normal(0, 1, (4, CHANNELS))
    tiles = _write_tiles(folder / "tiles", features[owners][::4, ::4])
    give_out(classes, folder / "map", kept=Kept(tiles, "a network", "a folder", black))
    return Made(folder / "map", truth, read_draw(folder / "map" / "judge.json"))


def _write_tiles(folder: Path, features: npt.NDArray[np.float64]) -> TileFeatures:
    """features: [H / 4, W / 4, C]."""
    height, width = (4 * side for side in features.shape[:2])
    store = TileStore(folder)
    store.begin("plan", resume=False)
    for number, tile in enumerate(plan(width, height, WINDOWS.tile, WINDOWS.overlap)):
        rows, columns = (slice(start // 4, (start + side) // 4) for start, side in (
            (tile.row_off, tile.height), (tile.col_off, tile.width)
        ))  # fmt: skip
        own = features[rows, columns]
        padding = [(0, -(-side // 8) * 8 - side) for side in own.shape[:2]]
        maps = np.pad(own, (*padding, (0, 0))).astype(np.float16)
        store.save(number, np.zeros((6, 1, 1), np.float32), np.ones((1, 1), bool), [maps])
    return TileFeatures(folder, width, height, WINDOWS)


def write_judgements(
    path: Path, made: Made, ranks: Iterable[int], picked: Iterable[int] = (), given: Mapping[int, int] | None = None
) -> Path:
    """Judgements by the truth. ranks: in the order; picked: rows; given: by their row, those of a person who errs."""
    judged = [(int(made.draw.order[rank]), rank, int(made.draw.strata[rank])) for rank in ranks]
    features: list[dict[str, Any]] = []
    for row, rank, stratum in (*judged, *((row, None, None) for row in picked)):
        properties = {
            "id": row + 1, "row": row, "judgement": (given or {}).get(row, int(made.truth[row])), "rank": rank,
            "stratum": stratum, "judge": path.stem, "map": made.draw.map_hash, "seconds": 3.5,
        }  # fmt: skip
        features.append({"type": "Feature", "geometry": None, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path

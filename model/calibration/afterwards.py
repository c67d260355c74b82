"""What is found out about a trained model from its data set: temperatures, and what the data look like."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Subset

from model.calibration import domain
from model.calibration.temperature import SCENES, calibrate
from model.networks.pair_network import PairNetwork, Temperatures
from xbd.dataset import Scenes
from xbd.scenes import SceneError


def calibrate_on_validation(data: Path, model: PairNetwork, alive: Callable[[], None]) -> Temperatures | None:
    """Those of the scenes to validate on; None, which is said, where there are none. alive: called after each."""
    try:
        scenes = Scenes(data, ["validation"])
    except SceneError:
        print("not calibrated: there are no validation scenes; what the model is sure of is not how often it is right")
        return None
    chosen = Subset(scenes, _spread(len(scenes), SCENES))
    found = calibrate(model, DataLoader(chosen), alive)
    print(f"calibrated on {len(chosen)} validation scenes: {found}", flush=True)
    return found.temperatures


def summarize_training(data: Path, model: PairNetwork, alive: Callable[[], None]) -> domain.Domain:
    """What the training data look like to the model, by which predict tells imagery that is unlike them."""
    scenes = Scenes(data, ["train"])
    chosen = _spread(len(scenes), domain.SCENES)
    records = [scenes.records[place] for place in chosen]
    pixels, off_nadir = ([getattr(record, name) for record in records] for name in ("pixel_metres", "off_nadir_angle"))
    return domain.summarize(model, DataLoader(Subset(scenes, chosen)), pixels, off_nadir, alive)


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` of so many places, evenly spread over them."""
    return [int(place) for place in np.unique(np.linspace(0, count - 1, most).round())]

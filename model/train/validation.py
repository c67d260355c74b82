"""The xView2 score of a model on whole scenes during training, over all processes."""

from pathlib import Path

from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from base.errors import InputError
from model.inference import Predictor
from model.networks.pair_network import PairNetwork
from model.score import joint_counts, no_counts, xview2_score
from model.train.distributed import World
from model.train.history import Record
from model.train.pulse import Pulse
from xbd.dataset import Scenes
from xbd.scenes import SceneError, read_index


def validation_scenes(data: Path) -> Scenes:
    """The scenes of the split validation; raises InputError where there are none."""
    read_index(data)  # where nothing was prepared, more validation scenes are no remedy
    try:
        return Scenes(data, ["validation"])
    except SceneError as error:
        raise InputError(f"{error} Raise prepare.validation_share, or set train.validate_every to 0.") from error


def validate(model: PairNetwork, scenes: Scenes, world: World, pulse: Pulse) -> Record:
    """xView2 score of the model on whole scenes; the model itself stays as it is.

    Each process takes every world.size-th scene, so that none is left out or counted twice; the counts of pixels are
    added over the processes and give exactly the score of one process.
    """
    predictor, counts = Predictor(model), no_counts(world.device)
    share = Subset(scenes, range(world.rank, len(scenes), world.size))
    hidden = None if world.is_main else True
    for sample in tqdm(DataLoader(share, batch_size=1), desc="validate", disable=hidden, leave=False):
        localization, damage = predictor(sample.pre, sample.post)
        counts += joint_counts(localization, damage, sample.mask.to(world.device))
        pulse.alive()
    return {key: float(value) for key, value in xview2_score(world.reduce_sum(counts)).items()}

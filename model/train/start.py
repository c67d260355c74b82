"""What a training starts from, a model or the weights of another network, and what of the network stays as it is."""

from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from base.errors import InputError
from model.inference import WEIGHTS, Origin, load_model, read_origin
from model.networks.by_name import build
from model.networks.pair_network import NetworkError, PairNetwork
from model.settings import TrainSettings

# Fields of a network that may differ from those of the model: they change no tensor, and nothing in prediction.
FREE = ("batch_norm_momentum",)


class FreezeError(InputError):
    """Parts that a training cannot hold."""


class Start(NamedTuple):
    """A model to go on from. name: what records call it; origin: what it was trained on."""

    network: PairNetwork
    origin: Origin
    name: str


def read_start(directory: Path, name: str, settings: TrainSettings) -> Start:
    """Reads the model directory that the training of these settings starts from.

    Raises ModelError, and NetworkError where it holds another network than `settings.network`.
    """
    network = load_model(directory)
    wanted, found = (_fields(one) for one in (settings.network, network.architecture))
    changes = [f"{key}: {found.get(key)}" for key in found | wanted if wanted.get(key) != found.get(key)]
    if changes:
        raise NetworkError(
            f"train.network: is not that of train.start_from {name}, expected {', '.join(changes)}. Set these, or "
            "start from another model."
        )
    return Start(network, read_origin(directory), name)


def hash_of(directory: Path) -> str:
    """The beginning of the SHA-256 of a model directory's weights. Raises OSError."""
    with (directory / WEIGHTS).open("rb") as file:
        return sha256(file.read()).hexdigest()[:12]


def make_network(settings: TrainSettings, pretrained: Path | None, start: Start | None, *, says: bool) -> PairNetwork:
    """The network with the weights that a training begins with, and only those to train asking for gradients.

    says: print where they come from. Raises WeightsError, NetworkError, and FreezeError where nothing is left to train.
    """
    model = build(settings.network)
    said = ""
    if start is not None:
        model.load_state_dict(start.network.state_dict())
        said = f"starts from {start.name}: {start.origin}"
    elif pretrained is not None:
        said = model.load_pretrained(pretrained)
    for module in _still(model, settings):
        module.requires_grad_(False)
    count = {
        trains: sum(part.numel() for part in model.parameters() if part.requires_grad == trains)
        for trains in (True, False)
    }
    if not count[True]:
        raise FreezeError("train.freeze: holds the whole network, expected a part that trains. Take one out.")
    if says and said:
        print(said)
    if says and count[False]:
        print(f"{count[True]:,} weights are trained, {count[False]:,} stay as they are")
    return model


def set_training(model: PairNetwork, settings: TrainSettings) -> None:
    """Training mode, but for the batch norms that keep their statistics: in eval mode they normalize by these."""
    model.train()
    for module in _still(model, settings):
        for norm in _norms(module):
            norm.eval()


def _still(model: PairNetwork, settings: TrainSettings) -> Iterator[nn.Module]:
    """What neither learns nor gathers statistics."""
    for name in settings.freeze:
        yield from model.part(name)
    if settings.freeze_batch_norm:
        yield from _norms(model)


def _norms(module: nn.Module) -> Iterator[nn.Module]:
    return (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))


def _fields(architecture: Any) -> dict[str, Any]:
    """What decides a network, as JSON has it."""
    fields = {"name": architecture.name, **asdict(architecture)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if key not in FREE}

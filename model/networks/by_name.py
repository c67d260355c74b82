"""The networks by name. `train.network.name` of params.yaml and `model` of a model's config.json select one.

A new network is a file in this folder and a line here; pair_network.py has what it must offer.
"""

from typing import Any

from model.dual_hrnet import DualHRNet
from model.networks.pair_network import NetworkError, PairNetwork
from model.networks.siamese_unet import SiameseUNet

NETWORKS: dict[str, type[PairNetwork]] = {
    "dual-hrnet": DualHRNet,
    "siamese-unet": SiameseUNet,
}


def find_network(name: Any) -> type[PairNetwork]:
    """The network of this name; raises NetworkError."""
    if not isinstance(name, str) or name not in NETWORKS:
        raise NetworkError(f"{name!r} is no network of this project, expected one of {', '.join(sorted(NETWORKS))}.")
    return NETWORKS[name]


def build(settings: Any) -> PairNetwork:
    """The network that these settings, an instance of its `Settings`, describe; with random weights."""
    return find_network(settings.name)(settings)

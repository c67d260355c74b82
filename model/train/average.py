"""An exponential moving average of a model's weights, which is judged and kept in their place.

It smooths the last steps of a noisy training. Source: Tarvainen and Valpola, https://arxiv.org/abs/1703.01780.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.networks.by_name import build
from model.networks.pair_network import PairNetwork
from model.settings import TrainSettings


class Average:
    """The average over the steps so far. Each process has its own, and all are equal, as the weights are.

    decay: what is left of the average after a step. In the first steps it is (1 + steps) / (10 + steps), if that is
    less, so that the random weights of the start are soon forgotten. Running statistics of batch norm are averaged as
    weights are, because they belong to them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                floats[0].append(self.tensors[name])
                floats[1].append(tensor)
            else:
                self.tensors[name].copy_(tensor)
        get_ema_multi_avg_fn(decay)(*floats, self.steps)  # type: ignore[no-untyped-call]

    def model(self, settings: TrainSettings, device: torch.device) -> PairNetwork:
        """A network of these weights."""
        model = build(settings.network)
        model.load_state_dict(self.tensors)
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

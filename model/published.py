"""Published Dual-HRNet checkpoints as our network.

Names and layouts: https://github.com/SIAnalytics/dual-hrnet (models/dual_hrnet.py).
"""

from pathlib import Path

import torch

from model.dual_hrnet import DualHRNet
from model.weights import WeightsError, misfits, published_architecture, read_state


def load_published(path: Path) -> DualHRNet:
    """A checkpoint of the published code (see `model.weights.read_state`) as a float32 model in eval mode, on the CPU.

    The sizes of the network are read off the tensors.
    Raises WeightsError where the file is no Dual-HRNet, or has missing, unknown or misshapen tensors.
    """
    state = read_state(path)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    architecture = published_architecture(path, found)
    with torch.device("meta"):  # no random weights that nobody needs
        model = DualHRNet(architecture)
    ours = model.state_dict()
    odd = misfits({name: tuple(tensor.shape) for name, tensor in ours.items()}, found)
    if odd:
        raise WeightsError(
            f"{path}: does not fit the published Dual-HRNet of width {architecture.width}: {odd}. Fetch the file "
            "again; checkpoints with another head, FPN or fusion kernel cannot be imported."
        )
    # Copies, because tensors of a safetensors file are windows on it, which someone may replace.
    values = {
        name: state[name].to(like.dtype, copy=True, memory_format=torch.contiguous_format)
        if name in state
        else torch.zeros_like(like, device="cpu")
        for name, like in ours.items()
    }
    model.load_state_dict(values, assign=True)
    return model.eval()

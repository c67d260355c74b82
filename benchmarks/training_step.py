"""A training step of W32 on two 512 x 512 pairs: a plain eager NCHW float32 step against ours.

python -m benchmarks.training_step
"""

import functools
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Work, side_by_side, table
from components.params import load_params
from model.dual_hrnet import DualHRNet, DualLogits
from model.fast.allocator import keep_freed_memory
from model.hrnet import Head, resize
from model.inference import normalize
from model.losses import dual_loss

PAIRS, SIDE = 2, 512
GFLOP = 1088.0  # forward and twice that backward, concatenated head included


class ConcatenatingHead(Head):
    """The published head, in training too."""

    def forward(self, xs: list[Tensor]) -> Tensor:
        """The four branches brought to the finest and concatenated."""
        x = torch.cat([xs[0], *(resize(x, xs[0].shape[-2:]) for x in xs[1:])], dim=1)
        for layer in self:
            x = layer(x)
        return x


def step(plain: bool, recompute: bool, count: bool = False) -> Work:
    """One step of the optimizer on a fixed batch; 90 % background. count: returns GB of saved activations instead."""
    settings = load_params(Path("params.yaml"), Path("recipes/paper.yaml")).train
    torch.manual_seed(0)
    model = DualHRNet(settings.network).train()
    model.set_recompute(recompute)
    layout = torch.contiguous_format if plain else torch.channels_last
    if not plain:
        keep_freed_memory()
    if plain:
        for net in (model.loc_net, model.cls_net):
            net.last_layer.__class__ = ConcatenatingHead
    model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.9, weight_decay=5e-4, fused=not plain)
    pre, post = torch.randint(0, 256, (2, PAIRS, 3, SIDE, SIDE), dtype=torch.uint8)
    mask = torch.zeros(PAIRS, SIDE, SIDE, dtype=torch.uint8)
    mask[:, :160, :160] = (
        torch.randint(1, 5, (10, 10), dtype=torch.uint8).repeat_interleave(16, 0).repeat_interleave(16, 1)
    )

    def forward() -> DualLogits:
        return model(*(normalize(image).contiguous(memory_format=layout) for image in (pre, post)))  # type: ignore[no-any-return]

    def work() -> float:
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        if count:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = dual_loss(forward(), mask, settings).total
        else:
            loss = dual_loss(forward(), mask, settings).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return sum(size for pointer, size in saved.items() if pointer not in weights) / 1e9 / PAIRS

    return work


def main() -> None:
    """Prints the table of steps, and that of the activations kept for the backward pass."""
    variants = {"plain eager NCHW": (True, False), "ours": (False, False), "ours, recompute": (False, True)}
    print(table(side_by_side({name: functools.partial(step, *how) for name, how in variants.items()}), GFLOP))
    for name, how in variants.items():
        print(f"{name}: {step(*how, count=True)():.2f} GB of activations kept for a pair")


if __name__ == "__main__":
    main()

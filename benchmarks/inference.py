"""Inference of one 1024 x 1024 pair with W32 on this CPU: the plain network against the Predictor.

python -m benchmarks.inference
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure import side_by_side, table
from model.dual_hrnet import DualHRNet
from model.inference import Prediction, Predictor, classify, load_model, normalize, save_model

SIDE = 1024
GFLOP = 725.0  # forward of the published network, concatenated head included


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A random pair with structure at the scale of buildings, uint8 [1, 3, SIDE, SIDE]."""
    coarse = torch.randint(0, 256, (2, 1, 3, SIDE // 16, SIDE // 16), generator=torch.Generator().manual_seed(0))
    pre, post = coarse.repeat_interleave(16, -1).repeat_interleave(16, -2).to(torch.uint8)
    return pre, post


def plain(directory: Path, memory_format: torch.memory_format) -> Callable[[], Prediction]:
    """The network as it is, under inference mode, in either layout."""
    model = load_model(directory).to(memory_format=memory_format)  # type: ignore[call-overload]

    @torch.inference_mode()
    def work() -> Prediction:
        normalized = (normalize(image).contiguous(memory_format=memory_format) for image in images())
        return classify(model(*normalized), (SIDE, SIDE))

    return work


def predictor(directory: Path) -> Callable[[], Prediction]:
    """What evaluate, predict and the registered model use."""
    predict = Predictor(load_model(directory))
    return lambda: predict(*images())


def main() -> None:
    """Prints the table, and the share of equal pixels."""
    torch.manual_seed(0)
    model = DualHRNet(width=32).eval()
    with torch.inference_mode():  # else a random network calls every pixel the same
        for net, logits in zip((model.loc_net, model.cls_net), model(*map(normalize, images())), strict=True):
            net.last_layer[3].get_parameter("bias").sub_(logits.mean((0, 2, 3)))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        save_model(model, directory)
        del model
        expected = plain(directory, torch.contiguous_format)()
        found = predictor(directory)()
        for name, one, other in zip(("localization", "damage"), expected, found, strict=True):
            values = ", ".join(f"{share:.2f}" for share in torch.bincount(one.flatten()) / one.numel())
            print(f"{name}: {(one == other).double().mean():.6f} of pixels equal; shares of the classes {values}")
        variants = {
            "plain network, NCHW": functools.partial(plain, directory, torch.contiguous_format),
            "plain network, channels-last": functools.partial(plain, directory, torch.channels_last),
            "Predictor": functools.partial(predictor, directory),
        }
        print(table(side_by_side(variants), GFLOP))


if __name__ == "__main__":
    main()

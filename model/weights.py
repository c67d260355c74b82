"""Weight files of others: what is in them, and ImageNet backbones brought into our streams.

Names and layouts: https://github.com/SIAnalytics/dual-hrnet (models/dual_hrnet.py);
https://github.com/HRNet/HRNet-Image-Classification (lib/models/cls_hrnet.py), which timm's hrnet.py keeps.
"""

import pickle
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from base.access import unreadable
from base.errors import InputError
from model.architecture import Architecture
from model.networks.pair_network import PairNetwork

STREAMS = ("loc_net", "cls_net")
HEAD = "last_layer."
COUNTER = ".num_batches_tracked"  # files of PyTorch before 0.4.1 have none, and nothing here depends on its value
PREFIXES = ("module.", "model.")  # of DistributedDataParallel and of training wrappers
BACKBONE = re.compile(r"(conv1|bn1|conv2|bn2|layer1|transition[123]|stage[234])\.")  # in an ImageNet file
EXAMPLE = "timm/hrnet_w32.ms_in1k"
LISTED = 10  # names in one message
# Fields of Architecture: the tensor whose output channels show it, or the parts whose number does.
WIDTHS = {
    "width": "stage2.0.branches.0.0.conv1.weight",
    "stem_width": "conv1.weight",
    "stage1_width": "layer1.0.conv1.weight",
}
COUNTS = {"stage1_blocks": ("layer1",), "modules": ("stage2", "stage3", "stage4"), "blocks": ("stage2.0.branches.0",)}

Shapes = Mapping[str, tuple[int, ...]]


class WeightsError(InputError):
    """A weight file that cannot be used; names file, finding, expectation and remedy."""


@dataclass(frozen=True)
class TransferReport:
    """What became of each tensor when a backbone was copied.

    loaded: names of our parameters and buffers that now hold the file's values. skipped: names in the file that our
    network has no place for. random: names of ours that stay as initialised. Batch counters that the file lacks stay
    as they are and are in none of the three.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    random: tuple[str, ...]

    def summary(self) -> str:
        """One line for the log."""
        return (
            f"{len(self.loaded)} tensors loaded into both streams; {len(self.skipped)} of the file not used "
            f"({_parts(self.skipped)}); {len(self.random)} stay as initialised ({_parts(self.random)})"
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors file or of a PyTorch file, on the CPU; nothing in the file is executed.

    The names are at the top of the file or under "state_dict". Prefixes that all of them carry, `module.` and
    `model.`, are taken off.
    Raises WeightsError where the file is missing, damaged, holds no tensors, or is a pickle that runs code.
    """
    content = _load(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        found = f"a dict of {_names(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path}: holds no weights but {found}, expected tensors by name, at the top or under state_dict. "
            "Save the network's state_dict."
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: {_names([str(name)])} is a {type(value).__name__} among tensors, expected tensors by name. "
                "Save the network's state_dict alone."
            )
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return {name: value.detach() for name, value in state.items()}


def load_imagenet(model: PairNetwork, path: Path) -> TransferReport:
    """Copies an HRNet classification backbone, of timm or of the original repository, into both streams of `model`.

    Stem, stages and transitions are loaded; the heads and the fusion blocks stay as they are.
    Raises WeightsError, and leaves the model untouched, where the file is no such backbone or has another size, or
    where the network's stem applies its weights in another order.
    """
    if model.architecture.stem_order != "imagenet":
        raise WeightsError(
            f"{path}: a backbone from ImageNet expects a stem of convolution, BN, ReLU, twice; the network's stem is "
            f"'{model.architecture.stem_order}'. Set train.network.stem_order: imagenet."
        )
    state = read_state(path)
    if not any(name.startswith("stage2.") for name in state):
        raise WeightsError(
            f"{path}: is no HRNet backbone, it has {_parts(state)}, expected conv1, layer1, transition1, stage2 and "
            f"so on. Take an HRNet classification checkpoint, such as {EXAMPLE}."
        )
    # One stream stands for both, they differ in their heads only.
    ours = {
        name: tensor
        for name, tensor in model.get_submodule("loc_net").state_dict().items()
        if not name.startswith(HEAD)
    }
    expected = {_imagenet_name(name): tuple(tensor.shape) for name, tensor in ours.items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if BACKBONE.match(name)}
    if misfits(expected, found):
        raise WeightsError(f"{path}: does not fit the network: {_with_remedy(model.architecture, expected, found)}")
    targets, loaded = model.state_dict(), []
    with torch.no_grad():
        for target, source in ((f"{side}.{name}", _imagenet_name(name)) for side in STREAMS for name in ours):
            if source in state:
                targets[target].copy_(state[source])
                loaded.append(target)
    backbone = {f"{side}.{name}" for side in STREAMS for name in ours}
    return TransferReport(
        loaded=tuple(loaded),
        skipped=tuple(name for name in state if name not in expected),
        random=tuple(name for name in targets if name not in backbone),
    )


def published_architecture(path: Path, shapes: Shapes) -> Architecture:
    """The sizes that both streams of a published checkpoint agree on; raises WeightsError."""
    sizes = []
    for stream in STREAMS:
        prefix = f"{stream}."
        below = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        if not below:
            single = any(name.startswith("stage2.") for name in shapes)
            raise WeightsError(
                f"{path}: is no Dual-HRNet, it has {_parts(shapes)}, expected the streams {' and '.join(STREAMS)}. "
                + ("A single HRNet from ImageNet goes to train.pretrained." if single else "Take another file.")
            )
        sizes.append(_sizes(below))
    loc, cls = sizes
    for field in loc:
        if loc[field] != cls.get(field, loc[field]):
            raise WeightsError(
                f"{path}: is not one network: {field} is {loc[field]} in loc_net and {cls[field]} in cls_net. "
                "Fetch the file again."
            )
    both = cls | loc
    # Here both streams have the same counts, so the last one speaks for both.
    missing = [name for field, name in WIDTHS.items() if field not in both]
    missing += [f"{part}.0" for parts in COUNTS.values() for part in parts if not _count(part, below)]
    if missing:
        raise WeightsError(
            f"{path}: is no whole Dual-HRNet: {_names(missing)} is missing or misshapen in both streams. "
            "Fetch the file again."
        )
    return Architecture(**both, stem_order="published")


def misfits(expected: Shapes, found: Shapes, listed: int = LISTED) -> str:
    """What does not fit, by name, as part of a sentence; empty where everything does."""
    odd = {
        "misshapen": [
            f"{name} is {shape}, expected {expected[name]}"
            for name, shape in found.items()
            if name in expected and shape != expected[name]
        ],
        "missing": [name for name in expected if name not in found and not name.endswith(COUNTER)],
        "unknown": [name for name in found if name not in expected],
    }
    return "; ".join(f"{len(names)} {kind}: {_names(names, listed)}" for kind, names in odd.items() if names)


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise WeightsError(f"{path}: {unreadable(path, error, ', expected a weight file.')}") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign formats that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # in damaged bytes torch stumbles over a dozen kinds, KeyError and OSError among them
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and (code or start.startswith(b"\x80")):
            raise WeightsError(
                f"{path}: is a pickle {f'that calls {code[1]}' if code else 'of other things than tensors'}, and was "
                "not loaded, because unpickling runs code, expected tensors. If you trust its source, save its "
                "state_dict alone, by torch.save or as safetensors."
            ) from error
        raise WeightsError(
            f"{path}: is no whole weight file ({_damage(start, error)}), expected safetensors or a PyTorch checkpoint. "
            "Fetch it again."
        ) from error


def _damage(start: bytes, error: Exception) -> str:
    """What is wrong with a file whose first bytes are `start`."""
    if not start:
        return "it is empty"
    text = start.decode("ascii", errors="replace").strip()
    if text.isascii() and text.isprintable():  # a web page or a Git LFS pointer, more often than not
        return f"it starts with '{text}'"
    if isinstance(error, pickle.UnpicklingError):  # whose text advises to let the file run its code
        return "its bytes are not of these formats"
    return textwrap.shorten(_names((str(error) or type(error).__name__).splitlines()[:1]), 100)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """Fields of Architecture that the tensors of one HRNet show, in a fixed order; widths they lack are left out."""
    sizes: dict[str, Any] = {}
    for field, name in WIDTHS.items():
        shape = shapes.get(name, ())
        if len(shape) == 4 and shape[0]:
            sizes[field] = shape[0]
    for field, parts in COUNTS.items():
        counts = [_count(part, shapes) for part in parts]
        sizes[field] = counts if field == "modules" else counts[0]
    return sizes


def _count(part: str, names: Iterable[str]) -> int:
    """How many numbered parts `part` has: `part`.0, `part`.1 and so on."""
    pattern = re.compile(rf"{re.escape(part)}\.(\d+)\.")
    return len({match[1] for name in names if (match := pattern.match(name))})


def _with_remedy(architecture: Architecture, expected: Shapes, found: Shapes) -> str:
    """What of an ImageNet file does not fit, and what to do about it."""
    sizes = _sizes(found) if all(_count(part, found) for parts in COUNTS.values() for part in parts) else {}
    present = asdict(architecture) | {"modules": list(architecture.modules)}
    other = [f"train.network.{field}: {value}" for field, value in sizes.items() if value != present[field]]
    if other:  # hundreds of tensors then, of which a few show it
        remedy = f"Set {', '.join(other)}, as the file has it, or take a backbone of the network's size."
        return f"{misfits(expected, found, 3)}. {remedy}"
    remedy = f"so it is damaged or another kind of HRNet. Take a classification checkpoint, such as {EXAMPLE}."
    return f"{misfits(expected, found)}; its sizes fit, {remedy}"


def _imagenet_name(name: str) -> str:
    return re.sub(r"^transitions\.(\d)", lambda match: f"transition{int(match[1]) + 1}", name)


def _names(names: Iterable[str], listed: int = LISTED) -> str:
    """The first of the names, and how many more; on one line, whatever a file calls its tensors."""
    texts = [name if name.isprintable() else ascii(name) for name in names]
    more = f" and {len(texts) - listed} more" if len(texts) > listed else ""
    return ", ".join(texts[:listed]) + more or "nothing"


def _parts(names: Iterable[str]) -> str:
    """The modules that the names belong to, each once: in a stream its own parts, else the first part of the name."""
    parts = (name.split(".") for name in names)
    return _names(dict.fromkeys(".".join(part[: 2 if part[0] in STREAMS else 1]) for part in parts))

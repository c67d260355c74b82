"""From a model directory and image pairs to classes: loading, normalization, prediction. Everything that predicts
(validation, evaluate, predict, the registered model) comes through here.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from base.access import unreadable
from base.errors import InputError, printable
from base.files import new_folder
from base.problems import first_problem
from base.tensors import reading_tensors
from model.hrnet import resize
from model.networks.by_name import find_network
from model.networks.pair_network import DualLogits, GradeOffsets, NetworkError, PairNetwork, Temperatures, check_pair
from model.settings import network_settings

# ImageNet statistics of RGB in [0, 1]: the published weights and every HRNet backbone were trained with them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
WEIGHTS, CONFIG = "model.safetensors", "config.json"
DOMAIN = "domain.safetensors"  # what the training data looked like, `model.calibration.domain`
FILES = (WEIGHTS, CONFIG, DOMAIN)  # of a model directory; the last may be missing
Views = Literal[1, 4, 8]
Part = TypeVar("Part")
Default = TypeVar("Default")
_FLIPS = ((), (-1,), (-2,), (-2, -1))


class ModelError(InputError):
    """A model directory that cannot be used; names file, finding, expectation and remedy."""


@dataclass(frozen=True)
class Origin:
    """What a model was trained on. scenes: "synthetic", "real", both as "synthetic and real", or "unknown"; events: the
    disasters; prepared_version, raw_version: of the data, None where it is not known. started_from: the model whose
    training this one went on from; scenes and events hold those of both.
    """

    scenes: Literal["synthetic", "real", "synthetic and real", "unknown"] = "unknown"
    events: tuple[str, ...] = ()
    prepared_version: str | None = None
    raw_version: str | None = None
    started_from: str | None = None

    def __str__(self) -> str:
        if self.scenes == "unknown":
            return "nobody recorded which scenes it was trained on"
        return f"trained on {self.scenes} scenes of {', '.join(self.events)}"

    @property
    def doubt(self) -> str:
        """Why little can be made of what the model says of real imagery; empty where its origin does not tell."""
        if self.scenes == "unknown":
            return f"the model: {self}. Hold its map against places that you know before you trust it."
        if self.scenes == "synthetic":
            return f"the model: {self} alone. What it says of real imagery means nothing; take one of real scenes."
        return ""


class Prediction(NamedTuple):
    """localization: uint8 [B, H, W], 0 or 1; damage: uint8 [B, H, W], 0 outside buildings, else grades 1-4."""

    localization: Tensor
    damage: Tensor


class Probabilities(NamedTuple):
    """building: float32 [B, H, W]; damage: float32 [B, 4, H, W], of each grade, also where no building is seen."""

    building: Tensor
    damage: Tensor


def normalize(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 of the same shape, ImageNet-normalized, channels-last in memory.

    Channels-last is the layout in which the CPU's and the GPU's convolutions are fastest.
    """
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    values = images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)  # in place: a third of the time
    return values.contiguous(memory_format=torch.channels_last)


def classify(logits: DualLogits, size: tuple[int, int]) -> Prediction:
    """Logits to classes at full resolution `size` (height, width).

    Source: paper, section 3: "we set classification output in background by localization output".
    """
    localization, damage = (_largest(at_full_size(part, size)) for part in logits)
    return Prediction(localization, (damage + 1) * localization)


def estimate(logits: DualLogits, size: tuple[int, int]) -> tuple[Prediction, Probabilities]:
    """Logits to classes, as `classify`, and to the probabilities of which they are the largest."""
    localization, damage = (at_full_size(part, size) for part in logits)
    building = _largest(localization)
    return Prediction(building, (_largest(damage) + 1) * building), Probabilities(
        (localization[:, 1] - localization[:, 0]).sigmoid_(), damage.softmax(1)
    )


def at_full_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] to [B, C, *size]; a logit stands for 4 x 4 pixels."""
    full = resize(logits.float(), (4 * logits.shape[-2], 4 * logits.shape[-1]))
    return full[..., : size[0], : size[1]]


def _largest(logits: Tensor) -> Tensor:
    return logits.max(1).indices.to(torch.uint8)  # argmax takes up to ten times as long on a CPU


class Predictor:
    """The one way from uint8 image pairs to classes: a model prepared for inference on the device where it is.

    Computes in float32 and gives the classes of `model` itself but for pixels that rounding decides: measured on W32
    at 1024 x 1024, the same class map. The model is copied, so that it can be trained on, or dropped.

    views: 1; 4 for the mean of the logits over an image and its flips; 8 for these and each turned by a quarter. It
    takes as many times as long.
    """

    def __init__(self, model: PairNetwork, views: Views = 1) -> None:
        self.device, self.views = next(model.parameters()).device, views
        self.network, self.temperatures = model.for_inference(), model.temperatures
        self.grade_offsets = model.grade_offsets
        offsets = (0.0,) * 4 if model.grade_offsets is None else tuple(asdict(model.grade_offsets).values())
        self._offsets = torch.tensor(offsets, device=self.device).view(1, -1, 1, 1)

    @torch.inference_mode()
    def __call__(self, pre: Tensor, post: Tensor) -> Prediction:
        """Classes of a batch of pairs, on the model's device.

        pre, post: uint8 [B, 3, H, W], any H and W (see `PairNetwork.forward`).
        Raises ValueError where the shapes differ or are not those of images.
        """
        return classify(self.logits(pre, post), (pre.shape[-2], pre.shape[-1]))

    @torch.inference_mode()
    def probabilities(self, pre: Tensor, post: Tensor) -> tuple[Prediction, Probabilities]:
        """Classes as above, and the probabilities behind them, on the model's device."""
        return estimate(self.logits(pre, post), (pre.shape[-2], pre.shape[-1]))

    @torch.inference_mode()
    def logits(self, pre: Tensor, post: Tensor) -> DualLogits:
        """What the classes are made of, [B, 2 and 4, ceil(H / 4), ceil(W / 4)], for what is put together of parts.

        With the model's grade offsets, and divided by the temperatures of a calibrated model.
        """
        return self.with_features(pre, post)[0]

    @torch.inference_mode()
    def with_features(self, pre: Tensor, post: Tensor) -> tuple[DualLogits, list[Tensor]]:
        """The logits as above, and the features of `PairNetwork.with_features`, those of the images as they are
        whatever `views` is.
        """
        check_pair(pre, post, "Predictor")
        logits, features = self._of_views([normalize(image.to(self.device)) for image in (pre, post)])
        logits, by = logits._replace(damage=logits.damage + self._offsets), self.temperatures
        if by is not None:
            logits = DualLogits(logits.localization / by.localization, logits.damage / by.damage)
        return logits, features

    def _of_views(self, images: Sequence[Tensor]) -> tuple[DualLogits, list[Tensor]]:
        if self.views == 1:
            return self.network.with_features(*images)
        height, width = images[0].shape[-2:]
        # Whole logits, so that those of a flipped image lie on those of the image.
        images = [F.pad(image, (0, -width % 4, 0, -height % 4)) for image in images]
        plain, features = self.network.with_features(*images)
        others = [(turned, axes) for turned in (False, True)[: self.views // 4] for axes in _FLIPS][1:]
        found = [plain, *(self._seen(images, axes, turned) for turned, axes in others)]
        return DualLogits(*(torch.stack(parts).mean(0) for parts in zip(*found, strict=True))), features

    def _seen(self, images: Sequence[Tensor], flipped: tuple[int, ...], turned: bool) -> list[Tensor]:
        """The logits of the images flipped and turned, put back."""
        views = [image.flip(flipped) for image in images]
        logits = self.network(*(view.mT if turned else view for view in views))
        return [(part.mT if turned else part).flip(flipped) for part in logits]


def save_model(
    model: PairNetwork,
    directory: Path,
    origin: Origin | None = None,
    augmentation: Mapping[str, Any] | None = None,
    domain: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the model directory: weights, and DOMAIN where it is given, as safetensors; architecture, preprocessing
    and, where there are any, the temperatures, the grade offsets, what the model was trained on and the pipelines of
    Albumentations that its samples went through as JSON; nothing pickled.

    The directory appears at once, complete; an existing one is replaced.
    """
    config = {
        "model": model.architecture.name,
        "architecture": asdict(model.architecture),
        "preprocessing": {"channels": "RGB", "scale": "[0, 1]", "mean": MEAN, "std": STD},
        **({} if model.temperatures is None else {"temperatures": asdict(model.temperatures)}),
        **({} if model.grade_offsets is None else {"grade_offsets": asdict(model.grade_offsets)}),
        **({} if origin is None else {"trained_on": asdict(origin)}),
        **({} if augmentation is None else {"augmentation": augmentation}),
    }
    with new_folder(directory, lambda path: str(path) in FILES) as folder:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
        if domain is not None:
            save_file(dict(domain), folder / DOMAIN)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_model(directory: Path | str) -> PairNetwork:
    """Reads a model directory, of any network of `model.networks.by_name`; the model is in eval mode, on the CPU.

    Raises ModelError where a file is missing or damaged, names no network that is known, or the weights do not fit the
    architecture.
    """
    directory = Path(directory)
    config_path, weights_path = directory / CONFIG, directory / WEIGHTS
    model = _build(config_path)
    remedy = "Fetch or train the model again."
    with reading_tensors(weights_path, ModelError, remedy):
        state = load_file(weights_path)
    expected = {name: _form(tensor) for name, tensor in model.state_dict().items()}
    found = {name: _form(tensor) for name, tensor in state.items()}
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd:
        raise ModelError(
            f"{weights_path}: {len(odd)} tensors do not fit the architecture of {CONFIG}: {printable(odd[0])} is "
            f"{found.get(odd[0], 'missing')}, expected {expected.get(odd[0], 'none')}. Use files of one model."
        )
    spoiled = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if spoiled:
        raise ModelError(
            f"{weights_path}: {len(spoiled)} tensors hold values that are no numbers, {spoiled[0]} among them. {remedy}"
        )
    model.load_state_dict(state)
    model.temperatures = _read_part(config_path, "temperatures", Temperatures, None)
    model.grade_offsets = _read_part(config_path, "grade_offsets", GradeOffsets, None)
    return model.eval()


def read_origin(directory: Path) -> Origin:
    """What the model of a directory was trained on; raises ModelError. Directories of earlier versions do not say."""
    return _read_part(directory / CONFIG, "trained_on", Origin, Origin())


def _read_part(path: Path, key: str, kind: type[Part], default: Default) -> Part | Default:
    """What a config.json holds under the key, which it may lack; raises ModelError."""
    config = _read_config(path)
    if key not in config:
        return default
    try:
        return TypeAdapter(kind).validate_json(json.dumps(config[key]))  # where a strict dataclass may be a mapping
    except ValidationError as error:
        problem = first_problem(error, key)
        raise _undescribed(path, f"{problem.place}: found {_shown(problem.found)}: {problem.said}") from error


def _build(path: Path) -> PairNetwork:
    """The network that a config.json describes, with random weights; raises ModelError."""
    config = _read_config(path)
    for key in ("model", "architecture"):
        if key not in config:
            raise _undescribed(path, f"{key} is missing")
    name, architecture = config["model"], config["architecture"]
    if not isinstance(architecture, dict):
        raise _undescribed(path, f"architecture: found {_shown(architecture)}, expected the network's settings by name")
    try:
        return find_network(name)(network_settings({**architecture, "name": name}))
    except NetworkError as error:
        raise ModelError(
            f"{path}: model: {printable(str(error))} Use the version of this project that made it."
        ) from error
    except ValidationError as error:
        problem = first_problem(error, "architecture")
        raise _undescribed(path, f"{problem.place}: found {_shown(problem.found)}: {problem.said}") from error
    except (ValueError, TypeError) as error:
        raise _undescribed(path, f"architecture: {error}") from error
    except RuntimeError as error:
        raise _undescribed(path, "architecture: the network is too large for this machine") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {unreadable(path, error, ', expected a model directory.')}") from error
    except (ValueError, RecursionError) as error:
        found = "found no text" if not path.stat().st_size else f"is no JSON: {error}"
        raise _undescribed(path, found) from error
    if not isinstance(config, dict):
        raise _undescribed(path, f"found {_shown(config)}, expected an object with model and architecture")
    return config


def _form(tensor: Tensor) -> str:
    """Shape, and kind of numbers, of which every precision is good: half of it is how models are passed on."""
    return f"{tuple(tensor.shape)}" + ("" if tensor.is_floating_point() else f" of {str(tensor.dtype)[6:]}")


def _shown(value: Any) -> str:
    return textwrap.shorten(json.dumps(value), 60, placeholder="...")


def _undescribed(path: Path, finding: str) -> ModelError:
    return ModelError(f"{path}: does not describe a network ({printable(finding)}). Train or import it again.")

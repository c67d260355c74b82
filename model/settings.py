"""What decides a training run, as validated data; without torch, so that a `--help` stays quick."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt, MultipleOf
from pydantic import BeforeValidator, ConfigDict, PlainValidator, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from model.architecture import Architecture

PRESETS = ("none", "paper", "strong")  # of xbd.augmentation.presets, whose import takes seconds
_STRICT = ConfigDict(extra="forbid", strict=True)


def network_settings(fields: Any) -> Any:
    """The settings of the network that the key `name` selects, an `Architecture` where there is no name.

    fields: a mapping, or settings already. Raises ValueError for an unknown name and for fields that are not its own.
    """
    if not isinstance(fields, Mapping):
        if not is_dataclass(fields):
            raise ValueError("expected the fields of a network")
        return fields
    name = fields.get("name", Architecture.name)
    if name == Architecture.name:
        # Its name is no field, so that runs and models from before there were others keep their identity.
        return Architecture(**{key: value for key, value in fields.items() if key != "name"})
    # Another network's settings stand in its own file, and so behind torch.
    from model.networks.by_name import find_network

    return find_network(name).Settings(**fields)


def _pipeline(value: Any) -> Any:
    if value in PRESETS or isinstance(value, Mapping):
        return value
    raise ValueError(f"expected {', '.join(PRESETS)}, or a pipeline in the form of albumentations.to_dict")


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class AugmentationSettings:
    """Two pipelines of Albumentations, each by the name of a preset or in the form of `albumentations.to_dict`."""

    geometry: Annotated[Any, PlainValidator(_pipeline)]  # one draw for pre, post and mask
    # Of light, colour and sharpness, drawn for pre and post each by itself.
    photometry: Annotated[Any, PlainValidator(_pipeline)]


def _augmentation_settings(fields: Any) -> Any:
    return AugmentationSettings(**fields) if isinstance(fields, Mapping) else fields


@dataclass(config=_STRICT, frozen=True, kw_only=True)
class TrainSettings:
    """The section `train` of params.yaml: the paper's recipe (section 3) and what it leaves open."""

    network: Annotated[Any, PlainValidator(network_settings)]
    pretrained: str | None  # ImageNet weights for both streams: a file, or owner/name on the Hugging Face hub
    seed: Annotated[int, Ge(0)]
    epochs: Annotated[int, Ge(1)]
    # Pairs in an update of the weights; the gradients of their passes are accumulated.
    global_batch_size: Annotated[int, Ge(1)]
    # Pairs in a pass of one process, over which both losses are taken; batch norm is over the pass of all processes.
    device_batch_size: Annotated[int, Ge(1)]
    crop_size: Annotated[int, Ge(32), MultipleOf(32)]  # pixels
    crops_per_scene: Annotated[int, Ge(1)]  # in an epoch, at random places; 1 in the paper
    optimizer: Literal["sgd", "adamw"]  # sgd in the paper; adamw needs fewer updates where no weights are pretrained
    scale: Annotated[Sequence[Annotated[float, Gt(0), Le(4)]], Len(2, 2)]
    damage_focus: Annotated[float, Ge(0), Le(1)]  # share of the crops that are placed around damage; 0 in the paper
    misalignment: Annotated[int, Ge(0)]  # pixels by which post is shifted at most; 0 in the paper
    learning_rate: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)]
    weight_decay: Annotated[float, Ge(0)]
    poly_power: Annotated[float, Ge(0)]
    damage_weight: Annotated[float, Ge(0)]  # the paper's alpha
    damage_cross_entropy: Annotated[float, Ge(0)]  # share of it that is added to the damage loss; 0 in the paper
    class_weights: Annotated[Sequence[Annotated[float, Ge(0)]], Len(4, 4)] | None  # of the grades, in both losses
    validate_every: Annotated[int, Ge(0)]  # epochs; 0 never validates and keeps the last weights instead of the best
    workers: Annotated[int, Ge(0)]  # processes that read crops beside each process that trains
    recompute: bool  # keep a part of the activations and compute the others twice
    # "auto" is bfloat16 on a GPU, with weights and losses in float32, and float32 on a CPU.
    precision: Literal["auto", "float32", "bfloat16"]
    deterministic: bool  # refuse operations whose results vary from run to run
    patience: Annotated[int, Ge(0)]  # validations without a better score after which training ends; 0 for never
    checkpoint_every: Annotated[int, Ge(0)]  # updates between checkpoints within an epoch; 0 for none within
    keep_checkpoints: Annotated[int, Ge(1)]  # the newest ones, beside the best
    hang_timeout: Annotated[int, Ge(1)]  # seconds without progress after which a run of several processes ends
    profile: bool  # trace a few updates
    # None is what there was before: flips and quarter turns.
    augmentation: Annotated[AugmentationSettings | None, BeforeValidator(_augmentation_settings)] = None
    # Times the logarithm of a grade's share of the training's pixels that the model takes off its logit: 1 predicts as
    # if all grades were as frequent. The weights are the same.
    logit_adjustment: Annotated[float, Ge(0), Le(10)] = 0.0
    # A model to go on from, in place of random or ImageNet weights: a folder, or models:/NAME@ALIAS or /VERSION.
    start_from: str | None = None
    # Parts of the network, by its own names, that stay as they are: weights and statistics of batch norm.
    freeze: tuple[str, ...] = ()
    freeze_batch_norm: bool = False  # all of its weights stay, and it normalizes by the statistics that it has

    @field_validator("start_from")
    @classmethod
    def _starts_from_one(cls, start_from: str | None, info: ValidationInfo) -> str | None:
        if start_from is not None and info.data.get("pretrained") is not None:
            raise ValueError("with train.pretrained there are two starts; expected null for one of them")
        return start_from

    @field_validator("freeze")
    @classmethod
    def _freezes_what_is_there(cls, freeze: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        parts = getattr(info.data.get("network"), "parts", ())
        odd = [name for name in freeze if name not in parts]
        if odd and "network" in info.data:  # else it was refused itself
            raise ValueError(f"{odd[0]!r} is no part of the network; expected some of {', '.join(parts) or 'none'}")
        return freeze

    @field_validator("crop_size")
    @classmethod
    def _leaves_enough_to_norm(cls, crop_size: int, info: ValidationInfo) -> int:
        """Batch norm needs more than one value of each channel in training, also in the coarsest branch."""
        coarsest = getattr(info.data.get("network"), "coarsest", None)  # a network without one has no such bound
        if coarsest is not None and info.data.get("device_batch_size") == 1 and crop_size <= coarsest:
            raise ValueError(
                f"with train.device_batch_size 1, batch norm would be over one value of each channel; expected a crop "
                f"of {2 * coarsest} or more, or a device_batch_size of 2 or more"
            )
        return crop_size

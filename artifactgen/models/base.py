"""What a model family is to the program.

A family is a frozen dataclass of options, light and picklable, named under `_target_` in a YAML of
`configs/model/`. Built, it becomes a `Network`: an `nn.Module`, and what its shapes do not tell.
Everything else about a model (which layers compute attention, which of their outputs are grids of
the image, where gradients flow) is found out by looking into it, see `artifactgen/introspect/`.
To add a family, write a file in this folder and a YAML; see `docs/extending.md`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from artifactgen.models.claims import Claim
from artifactgen.types import Framing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from artifactgen.models.audit import LoadAudit, Mismatch
    from artifactgen.models.checkpoint import Checkpoint
    from artifactgen.models.naming import NamedWeights
    from artifactgen.models.stated import Stated

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Traits:
    """What the shapes of a model's activations do not tell."""

    prefix_tokens: int | None = None
    """Class, register and distillation tokens before those of the patches; None = not stated, so
    that it is told by their number: none, or else the class token."""
    has_class_token: bool = False
    """Whether the first of the prefix tokens is a class token."""
    pools_patches: bool = False
    """Whether the classifier gets an average or maximum over patches, not a class token."""
    channels_last: bool = False
    """Whether maps are (B, h, w, C) rather than (B, C, h, w)."""
    patch_grid: tuple[int, int] | None = None
    """Rows and columns of patches, where the model states them."""
    mask_units: tuple[int, int] | None = None
    """Rows and columns of the units in whose order tokens lie until one token is left of each."""
    last_block: str | None = None
    """Module path of the last block; None = the last in which attention is computed."""
    last_stage: str | None = None
    """Module path of the last stage of features, of networks that have stages."""
    not_over_positions: frozenset[str] = frozenset()
    """Class names of layers whose softmax runs over something else than positions."""


@dataclass(frozen=True, slots=True)
class Network(ABC):
    """A built model: in eval mode, float32, its weights without gradients."""

    family: Family
    """The options that it was built with; of a name that stands for another, that one."""
    module: nn.Module
    traits: Traits = Traits()
    classifiers: tuple[str, ...] = ()
    """Module paths where classifiers of this architecture are, built or not. Of several, as in a
    distilled ViT, the first; with one that is a linear layer, GradCAM may have a closed form."""
    layouts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By what they are called, other names under which checkpoints keep the weights: theirs to the
    model's own."""

    @abstractmethod
    def forward(self, x_BCHW: Tensor, *, classify: bool) -> tuple[Any, Tensor | None]:
        """Run the model once.

        Args:
            x_BCHW: normalised images.
            classify: whether the model has a trained classifier to ask for logits.

        Returns:
            The features, which `embed` takes: a tensor, or whatever the family likes; and the
            logits (B, K), None without `classify`.
        """

    @abstractmethod
    def embed(self, features: Any) -> Tensor:
        """What the classifier is fed with, (B, D), from the features of `forward`."""

    def positions(self, features: Any) -> Tensor | None:
        """Features of each position, to be pooled in another way; None where there are none."""
        return features if not isinstance(features, tuple | list) else None

    @property
    def hooked(self) -> tuple[str, ...]:
        """Module paths that `forward` itself hooks into: they are not compiled."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """Options of a model: which architecture to build. None is for the checkpoint to decide."""

    looks_inside: ClassVar[bool] = False
    """Whether `build` runs the network, so that its weights have to be numbers."""

    num_classes: int | None = None
    """Size of the classifier: None = that of the checkpoint's head, 0 = no head."""
    in_chans: int = 3
    """Channels of the images that the model takes."""
    image_size: tuple[int, int] | None = None
    """(H, W) in pixels, filled from `data.image_size`; None = the model's own."""
    head: str | None = None
    """The classifier's name in the checkpoint, where it lies beside the encoder; None = the one
    that fits."""
    head_layers: tuple[str, ...] | None = None
    """Class names of all its layers, where weights do not tell them: `Linear`, `ReLU`, `Linear`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports and pictures call the model."""

    @abstractmethod
    def build(self) -> Network:
        """The model with random weights, its name resolved.

        Raises:
            ConfigError: there is no such model, or it does not take one of the options.
        """

    @abstractmethod
    def input_size(self) -> tuple[int, int]:
        """(H, W) in pixels that the model takes; told without building it."""

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) for pixels in [0, 1], one value for each channel or one for all.

        ImageNet's where a family says nothing, averaged for other channels than RGB.
        """
        return per_channel(IMAGENET_MEAN, self.in_chans), per_channel(IMAGENET_STD, self.in_chans)

    def doubt_of_normalization(self) -> str:
        """Why its `normalization` may be another than that of its training; empty if it is sure."""
        return ""

    def framing(self) -> Framing:
        """How pictures of other sizes are brought to the input size.

        Where a family says nothing, the shorter side is resized, and the centre is cut out.
        """
        return Framing()

    def claims(self, stated: Stated) -> tuple[Claim, ...]:
        """What a checkpoint says of these options, the most important first."""
        where = stated.source.get("image_size", "")
        return (Claim("image_size", stated.image_size, where),) if stated.image_size else ()

    def is_described_by(self, config: Stated, own: Stated) -> bool:
        """Whether what lies beside a checkpoint is of this model; else nothing of it is used.

        Args:
            config: what a `config.json` says; whoever put it there.
            own: what the checkpoint itself says.
        """
        return False

    def lacks(self, checkpoint: Checkpoint) -> str:
        """What has to be set before it can be built, and what the checkpoint looks like."""
        return ""

    def decide(self, draft: Network, weights: NamedWeights) -> Self:
        """These options with everything decided that was left to the checkpoint.

        Args:
            draft: built with these options.
            weights: the checkpoint's, under the model's names.
        """
        classes = 0 if self.num_classes == 0 else head_classes(draft, weights)
        return replace(self, num_classes=classes)

    def trained_size(self, draft: Network, weights: NamedWeights) -> tuple[int, int] | None:
        """(H, W) in pixels of the images of a training, if weights may tell others than `draft`'s.

        Args:
            draft: built with these options, for images of `input_size`.
            weights: the checkpoint's, under the model's names.
        """
        return None

    def adapted(
        self, network: Network, tensors: Mapping[str, Tensor], wrong: tuple[Mismatch, ...]
    ) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
        """What takes the place of weights of another shape, and sentences on how it was made.

        Nothing, unless all of them can be made to fit, by what these options set and a training
        had otherwise: an image size, a number of channels.

        Args:
            network: built for what is set.
            tensors: the checkpoint's, under the model's names.
            wrong: those of another shape than the model's.
        """
        return {}, ()

    def beside_encoder(self, network: Network) -> frozenset[str]:
        """Paths of parts of which a checkpoint may hold more than the model without harm.

        Heads of a pre-training have a classifier's name.
        """
        return frozenset(path.partition(".")[0] for path in network.classifiers)

    def own_head(self) -> str:
        """What its classifier is made of, where that is nothing of the checkpoint; else empty."""
        return ""

    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs of such a classifier; empty where it has none."""
        return ()

    def hint(self, audit: LoadAudit, checkpoint: Checkpoint, network: Network) -> str:
        """What to change about a checkpoint that does not fit; always says something."""
        return f"Set the options of the model to those that {self.name} was trained with."


def head_classes(draft: Network, weights: NamedWeights) -> int:
    """Number of classes of the classifier in the checkpoint; 0 if there is none."""
    if weights.head is not None:
        return weights.head
    heads = (weights.tensors.get(f"{path}.weight") for path in draft.classifiers)
    return next((len(head) for head in heads if head is not None and head.ndim > 1), 0)


def crop_pct_of(side: int, resized: int) -> float:
    """The share with which a side of a crop comes to that of the resized picture, rounded down."""
    share = side / resized
    return share if math.floor(side / share) >= resized else math.nextafter(share, 0)


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value for each of `channels`: as they are, or their average for each."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels

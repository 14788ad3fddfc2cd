"""A model's embeddings, GradCAM and attention, in a notebook."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from operator import index
from threading import RLock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.attention import Method as AttentionMethod
from artifactgen.artifacts.base import Artifact
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.cam.methods import Method
from artifactgen.artifacts.embedding import Embedding, Pooling
from artifactgen.device import Devices, resolve_precision
from artifactgen.errors import ConfigError
from artifactgen.explainer.batch import Preprocess, as_batch, doubt
from artifactgen.explainer.explanation import Explanation
from artifactgen.explainer.network import bare, network_of, stated_classes, stated_normalization
from artifactgen.explainer.preparation import (
    Logits,
    Prepared,
    joined,
    options_called_as_here,
    prepare,
)
from artifactgen.explainer.untouched import device_of, untouched
from artifactgen.types import Precision

log = logging.getLogger(__name__)

_Key = tuple[Any, ...]
_SIZES_KEPT = 8
"""Sizes of images that a model stays prepared for: each has the template of a figure, some MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """Explains what a model sees: `Explainer(model, classes=["cat", "dog"])(images)`.

    One forward pass gives all of it, by the same code as a run of the program; no file is
    written. The first call looks into the model: where its attention and its layers are, and
    whether a closed form of GradCAM meets autograd. Models of timm, torchvision, transformers and
    Lightning work, and modules of one's own, on the device where they are. A model is used in eval
    mode and in float32, and left as it was. Calls from several threads wait for each other.
    """

    model: nn.Module
    """Takes (B, C, H, W), gives logits."""
    _: KW_ONLY
    classes: Sequence[str] | None = None
    """Names of the model's outputs, in their order; None = those in the configuration of a model of
    transformers, else their numbers."""
    classifier: str | None = None
    """Module path of the layer that gives the logits; None = found; `none`: there is none, and what
    the model gives is the embedding."""
    target_classes: Sequence[int | str] | int | str | None = None
    """Classes that GradCAM is of, by index or name; None = all; `predicted`: each image's own."""
    layer: str = "auto"
    """Module path of the layer that GradCAM is of; `auto` = what is usual for the architecture."""
    method: Method = "gradcam"
    """Any of pytorch-grad-cam's."""
    attention_layers: Sequence[int] = (-1,)
    """Indices of the blocks with attention; negative ones count from the end."""
    attention_method: AttentionMethod = "cls"
    """`cls`, `mean_query` or `rollout`."""
    pooling: Pooling = "auto"
    """Of the embedding: `auto`, what the model classifies; `cls`, `mean`, `cls+mean`, `max`."""
    precision: Precision = "32-true"
    """`32-true`; `bf16-mixed` and `16-mixed` are faster on a GPU, and less exact."""
    batch_size: int = 32
    """Images in one forward pass; more are taken in parts."""
    preprocess: Preprocess | None = None
    """A picture of Pillow to what the model takes, (C, H, W): a transform of timm or torchvision.
    Tensors and arrays do not go through it."""
    mean: Sequence[float] | None = None
    """What was subtracted from each channel, in [0, 1], only to draw the image; None = timm's, if
    it is of timm."""
    std: Sequence[float] | None = None
    """What it was divided by, likewise."""
    _prepared: dict[_Key, Prepared] = field(init=False, repr=False, default_factory=dict)
    _lock: Any = field(init=False, repr=False, default_factory=RLock)

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            kind = type(self.model).__name__
            raise ConfigError(f"Explainer explains a torch.nn.Module, and this is a {kind}.")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be 1 or more.")
        if (self.mean is None) != (self.std is None):
            raise ConfigError("Give mean and std, or none of them.")

    def __call__(self, images: Any) -> Explanation:
        """Explain one image or a batch.

        Args:
            images: a float tensor or array, normalised as the model expects, (C, H, W) or
                (B, C, H, W), or a list of images; with `preprocess`, pictures of Pillow as well.

        Returns:
            Of leading dimension B, which is 1 for one image.

        Raises:
            DataError: these are no such images.
            ConfigError: an option does not fit the model.
        """
        images_BCHW = as_batch(images, self.preprocess)
        model = bare(self.model)
        with self._lock, untouched(model), options_called_as_here():
            prepared = self._prepare(model, images_BCHW)
            engine = prepared.engine(device_of(model), self._precision(model))
            starts = range(0, len(images_BCHW), self.batch_size)
            parts = [engine(images_BCHW[start : start + self.batch_size]) for start in starts]
        mean, std = (self.mean, self.std) if self.mean is not None else stated_normalization(model)
        return Explanation(prepared, joined(parts), images_BCHW, range(len(images_BCHW)), mean, std)

    def _prepare(self, model: nn.Module, images_BCHW: NDArray[np.float32]) -> Prepared:
        """Once for each size of images, and again where layers of the model were replaced."""
        key = (images_BCHW.shape[1:], tuple(model.modules()))
        if key not in self._prepared:
            if doubtful := doubt(images_BCHW, stated_normalization(model)[0]):
                log.warning("%s", doubtful)
            prepared = self._look_into(model, images_BCHW)
            if len(self._prepared) == _SIZES_KEPT:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = prepared
        return self._prepared[key]

    def _look_into(self, model: nn.Module, images_BCHW: NDArray[np.float32]) -> Prepared:
        x_BCHW = torch.from_numpy(images_BCHW[:1]).to(device_of(model))
        network = network_of(model, x_BCHW, classifier=self.classifier)
        names = self.classes if self.classes is not None else stated_classes(model)
        return prepare(network, images_BCHW, classes=names, kinds=self._kinds())

    def _kinds(self) -> Mapping[str, Artifact]:
        return {
            "embeddings": Embedding(pooling=self.pooling),
            "logits": Logits(),
            "gradcam": GradCAM(
                method=self.method,
                layer=self.layer,
                target_classes=_as_targets(self.target_classes),
            ),
            "attention": AttentionMaps(
                method=self.attention_method, layers=tuple(self.attention_layers)
            ),
        }

    def _precision(self, model: nn.Module) -> Precision:
        kind = device_of(model).type
        native = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return resolve_precision(self.precision, Devices(kind, "", int(native), native))


def _as_targets(
    wanted: Sequence[int | str] | int | str | None,
) -> list[int | str] | Literal["predicted"] | None:
    """A list, also of a single class; numbers of NumPy and torch as Python's."""
    if wanted is None or wanted == "predicted":
        return wanted  # type: ignore[return-value]
    every: Any = [wanted] if np.ndim(wanted) == 0 else wanted
    return [item if isinstance(item, str) else index(item) for item in every]

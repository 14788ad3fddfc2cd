"""What a model sees in some images: numbers, maps and pictures."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifactgen.artifacts.attention import BoundAttention
from artifactgen.artifacts.base import View
from artifactgen.artifacts.classes import class_index
from artifactgen.errors import ConfigError, UnsupportedError
from artifactgen.explainer.batch import as_picture
from artifactgen.explainer.preparation import Prepared
from artifactgen.rendering.figure.attention import AttentionFigure
from artifactgen.rendering.overlay import overlay, scale_cam
from artifactgen.types import Sample

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """Of B images; tensors are on the CPU, and have leading dimension B, also of one image.

    `x[i]` and `x[2:5]` are the explanations of some of the images. What the model cannot give
    raises `UnsupportedError`, which says why, when it is asked for.
    """

    _prepared: Prepared
    _arrays: Mapping[str, NDArray[Any]]
    _images: NDArray[np.float32]
    _rows: range
    """Of the images in the batch that was explained."""
    _mean: Sequence[float] | None
    _std: Sequence[float] | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's outputs; none without a classifier."""
        return self._prepared.subject.classes

    @property
    def embeddings(self) -> Tensor:
        """(B, D) float32: what the model classifies, or what `pooling` says."""
        return self._tensor("embeddings")

    @property
    def logits(self) -> Tensor:
        """(B, K) float32: the scores of all classes."""
        return self._tensor("logits")

    @property
    def probabilities(self) -> Tensor:
        """(B, K) float32: the softmax of the logits."""
        return self.logits.softmax(1)

    @property
    def predictions(self) -> list[str]:
        """For each image the name of its most probable class."""
        return [self.classes[index] for index in self.logits.argmax(1).tolist()]

    @property
    def gradcam(self) -> Tensor:
        """(B, K, h, w) float32: ReLU(CAM) at the layer's resolution, before any scaling.

        K are the classes of `gradcam_classes`: all of the model's, unless others were asked for.
        """
        return self._tensor("gradcam")

    @property
    def gradcam_classes(self) -> Tensor:
        """(B, K) int64: the class that each map of `gradcam` is of."""
        self._require("gradcam")
        return torch.from_numpy(self._arrays["gradcam_classes"])

    @property
    def gradcam_heatmaps(self) -> Tensor:
        """(B, K, H, W) float32 in [0, 1], at the images' size: what pytorch-grad-cam gives."""
        size = self._prepared.subject.image_size
        return torch.from_numpy(scale_cam(self.gradcam.numpy(), size))

    @property
    def gradcam_images(self) -> Picture:
        """(B, K, H, W, 3) uint8: every map over its image, as in the files of a run."""
        maps_BKHW = self.gradcam_heatmaps.numpy()
        pictures = zip(self.images, maps_BKHW, strict=True)
        return np.stack([np.stack([overlay(p, m) for m in maps]) for p, maps in pictures])

    @property
    def attention(self) -> Tensor:
        """(B, L, A, h, w) float32: probabilities from the query to each patch.

        L are the blocks of `attention_layers`, A their heads.
        """
        return self._tensor("attention")

    @property
    def images(self) -> Picture:
        """(B, H, W, 3) uint8: what the model saw."""
        return np.stack([as_picture(image, self._mean, self._std) for image in self._images])

    @property
    def resolved(self) -> dict[str, dict[str, Any]]:
        """What the options came to: pooling; layer, classes and route; blocks and query."""
        kinds = self._prepared.artifacts.items()
        return {name: artifact.resolved() for name, artifact in kinds if name != "logits"}

    @property
    def missing(self) -> dict[str, str]:
        """What the model cannot give, and why."""
        return dict(self._prepared.missing)

    def overlay(self, record: int = 0, cls: int | str | None = None) -> Picture:
        """The map of a class over its image, (H, W, 3) uint8.

        Args:
            record: which image, counted here; negative ones from the end.
            cls: index or name; None = the predicted class.

        Raises:
            ConfigError: there is no such class, or GradCAM is of others.
            RecordError: the map holds NaN or infinity.
        """
        one = self[record]
        index = int(one.logits.argmax()) if cls is None else self._class(cls)
        known = one.gradcam_classes[0].tolist()
        if index not in known:
            names = ", ".join(self.classes[k] for k in known)
            raise ConfigError(
                f"GradCAM is of {names} here, and not of {self.classes[index]}: see target_classes."
            )
        map_hw = one.gradcam[0, known.index(index)].numpy()
        return overlay(one.images[0], scale_cam(map_hw, self._prepared.subject.image_size))

    def _class(self, wanted: int | str) -> int:
        # Numbers of NumPy and torch as well.
        plain = wanted if isinstance(wanted, str) else operator.index(wanted)
        return class_index(plain, self.classes, option="cls")

    def figure(
        self, record: int = 0, *, title: str | None = None, label: str | None = None
    ) -> Picture:
        """The attention figure of an image, as a run draws it: 1,800 pixels wide, uint8 RGB.

        Args:
            record: which image, counted here; negative ones from the end.
            title: at its top; None = the image's number.
            label: name of its true class, for the line below.
        """
        one = self[record]
        arrays = {name: array[0] for name, array in one._arrays.items()}
        return self._attention.picture(one._view(title or one.titles[0], label), arrays)

    @property
    def attention_figure(self) -> AttentionFigure:
        """What draws `figure`: its layout, to cut panels out of it."""
        return self._attention.figure

    @property
    def _attention(self) -> BoundAttention:
        self._require("attention")
        bound = self._prepared.artifacts["attention"]
        assert isinstance(bound, BoundAttention)
        return bound

    @property
    def titles(self) -> list[str]:
        """What the images are called in pictures: by their number in the batch."""
        return [f"Image {row}" for row in self._rows]

    def _view(self, title: str, label: str | None) -> View:
        """The first image as a person sees it."""
        classified = "logits" in self._arrays
        return View(
            sample=Sample(title, self._rows[0], self._images[0]),
            images=[self.images[0]],
            label=label,
            prediction=self.predictions[0] if classified else None,
            probability=float(self.probabilities[0].max()) if classified else np.nan,
            provenance={},
        )

    def _tensor(self, name: str) -> Tensor:
        self._require(name)
        return torch.from_numpy(self._arrays[name])

    def _require(self, name: str) -> None:
        if name in self._prepared.missing:
            raise UnsupportedError(f"{self._prepared.missing[name]}.")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int | slice) -> Explanation:
        if not isinstance(index, slice):
            row = range(len(self))[index]  # an IndexError of its own
            index = slice(row, row + 1)
        arrays = {name: array[index] for name, array in self._arrays.items()}
        return replace(self, _arrays=arrays, _images=self._images[index], _rows=self._rows[index])

    def __iter__(self) -> Iterator[Explanation]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        shapes = (
            f"{name} {' × '.join(map(str, self._arrays[name].shape))}"
            for name in ("embeddings", "logits", "gradcam", "attention")
            if name in self._arrays
        )
        number = "1 image" if len(self) == 1 else f"{len(self)} images"
        return f"<Explanation of {number}: {', '.join(shapes)}>"

    def _repr_html_(self) -> str:
        from artifactgen.explainer.html import as_html  # of what a notebook shows only

        return as_html(self)

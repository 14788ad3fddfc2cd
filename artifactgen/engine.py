"""A model on a device with the artifacts bound to it: a batch of images in, arrays out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from artifactgen.artifacts.base import BoundArtifact, Subject
from artifactgen.device import AUTOCAST, Download, Transfers, constant
from artifactgen.introspect.forward import Pass, forward
from artifactgen.introspect.taps import Taps
from artifactgen.types import Precision

log = logging.getLogger(__name__)

_SPATIAL_CONVOLUTIONS = 4
"""A network with more of them is a CNN as far as memory layout goes: a ViT has one."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """Preprocessing on the device.

    Integer images are scaled to [0, 1], 1 being white, and normalised. Floating ones are taken as
    they are, unless mean and std were asked for.
    """

    mean: tuple[float, ...]
    """For each channel, or one for all."""
    std: tuple[float, ...]
    of_floats: bool = False
    max_value: int | None = None
    """White of integer images; None = the largest value of their type."""
    stated_in: str = ""
    """Where a checkpoint states mean and std, if they are from there; for people."""
    doubts: tuple[str, ...] = ()
    """Where it states others; for people."""

    def applies_to(self, dtype: np.dtype[Any]) -> bool:
        """Whether images of this type are normalised, and not taken as they are."""
        return dtype.kind != "f" or self.of_floats

    def white(self, dtype: np.dtype[Any]) -> int:
        """The value of integer images that is white."""
        return int(np.iinfo(dtype).max) if self.max_value is None else self.max_value

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) of any type to float32."""
        x_BCHW = images_BCHW.float()
        if images_BCHW.is_floating_point() and not self.of_floats:
            return x_BCHW
        if not images_BCHW.is_floating_point():
            x_BCHW = x_BCHW / (self.max_value or torch.iinfo(images_BCHW.dtype).max)
        return (x_BCHW - self._per_channel(self.mean, x_BCHW)) / self._per_channel(self.std, x_BCHW)

    @staticmethod
    def _per_channel(values: tuple[float, ...], x_BCHW: Tensor) -> Tensor:
        return constant(values, x_BCHW.device, dtype=torch.float32).view(-1, 1, 1)


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that the device may still be working on."""

    parts: tuple[tuple[int, Download], ...]
    """Of each part, the rows that count, the rest being padding, and what comes of them."""

    @property
    def halved(self) -> bool:
        """Whether the batch had to be taken in parts because memory ran out."""
        return len(self.parts) > 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What came of it, see `Engine.__call__`; waits for the device."""
        parts = [
            {name: array[:rows] for name, array in download.arrays().items()}
            for rows, download in self.parts
        ]
        if not self.halved:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that a batch of images meets on the device."""

    subject: Subject
    artifacts: Mapping[str, BoundArtifact]
    device: torch.device
    precision: Precision
    normalization: Normalization
    fixed_batch: int | None = None
    """Batches are padded to so many images, as compiled code needs it."""
    channels_last: bool = False
    """Whether the channels of an image lie last in memory."""
    transfers: Transfers = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "transfers", Transfers(self.device))

    @property
    def taps(self) -> Taps:
        """What all artifacts together need of a pass."""
        return Taps.union(artifact.taps for artifact in self.artifacts.values())

    def __call__(self, images_BCHW: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Compute every artifact.

        Args:
            images_BCHW: (B, C, H, W), integer or float32, before normalisation.

        Returns:
            The arrays of every artifact, and `predictions`, int64 (B,), and `probabilities`,
            float32 (B,), where there is a classifier. All have leading dimension B.
        """
        return self.start(images_BCHW).arrays()

    def start(self, images_BCHW: NDArray[Any]) -> InFlight:
        """Begin with a batch; on a GPU, this returns long before it is done.

        Where memory does not suffice, the batch is halved, and the same rows are taken again.
        """
        try:
            return InFlight(((len(images_BCHW), self._launch(images_BCHW)),))
        except torch.OutOfMemoryError:
            if len(images_BCHW) == 1:
                raise
        torch.cuda.empty_cache()
        half = (len(images_BCHW) + 1) // 2
        log.warning("Out of memory with a batch of %d: taking %d.", len(images_BCHW), half)
        smaller = replace(self, fixed_batch=self.fixed_batch and half)
        halves = images_BCHW[:half], images_BCHW[half:]
        return InFlight(tuple(part for images in halves for part in smaller.start(images).parts))

    def _launch(self, images_BCHW: NDArray[Any]) -> Download:
        forward_pass = self.forward(self._padded(images_BCHW), self.taps)
        return self.transfers.download(self.compute(forward_pass))

    def _padded(self, images_BCHW: NDArray[Any]) -> NDArray[Any]:
        """The batch with its last image repeated up to the fixed size."""
        missing = (self.fixed_batch or 0) - len(images_BCHW)
        if missing <= 0:
            return images_BCHW
        return np.concatenate([images_BCHW, np.repeat(images_BCHW[-1:], missing, axis=0)])

    def forward(self, images_BCHW: NDArray[Any], taps: Taps) -> Pass:
        """One forward pass. Images with one channel are repeated to what the model takes."""
        network = self.subject.network
        images = self.transfers.upload(images_BCHW)
        x_BCHW = self.normalization(images.expand(-1, network.family.in_chans, -1, -1))
        if self.channels_last:
            x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        dtype = AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            return forward(network, x_BCHW, taps=taps, classify=self.subject.has_head)

    def compute(self, forward_pass: Pass) -> dict[str, Tensor]:
        """The tensors of a forward pass, on the device, see `__call__`."""
        tensors = _classify(forward_pass)
        for artifact in self.artifacts.values():
            tensors.update(artifact.compute(forward_pass))
        return tensors


def is_convolutional(model: nn.Module) -> bool:
    """Whether a model is one that computes faster with channels last in memory."""
    spatial = (m for m in model.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1)
    return sum(1 for _ in spatial) > _SPATIAL_CONVOLUTIONS


def _classify(forward_pass: Pass) -> dict[str, Tensor]:
    if forward_pass.logits_BK is None:
        return {}
    best_B, predictions_B = forward_pass.logits_BK.detach().float().softmax(1).max(1)
    return {"predictions": predictions_B, "probabilities": best_B}


def finite_rows(arrays: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.bool_]:
    """Which of the rows hold no NaN and no infinity in any array, (B,)."""
    finite = np.ones(rows, dtype=bool)
    for array in arrays.values():
        finite &= np.isfinite(array).reshape(rows, -1).all(1)
    return finite

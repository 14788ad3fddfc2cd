"""What the ways to a class activation map have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from artifactgen.artifacts.base import Subject
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.grid import Grid, grid_of
from artifactgen.introspect.taps import Taps


@dataclass(frozen=True, slots=True)
class CamRoute(ABC):
    """A way from a forward pass to the maps of chosen classes."""

    subject: Subject
    layer: str
    """Module path of the target layer."""

    @property
    def taps(self) -> Taps:
        """What it needs of the pass."""
        return Taps(outputs=(self.layer,))

    @abstractmethod
    def cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        """Maps at the layer's resolution, negative values zero: (B, K, h, w), float32.

        Args:
            forward_pass: a pass with the taps.
            classes: class indices, (K,) for all images or (B, K).
        """

    def grid(self, forward_pass: Pass) -> Grid:
        """How the layer's output lies over the image."""
        output, traits = forward_pass.outputs[self.layer], self.subject.network.traits
        return grid_of(traits, output, image_size=forward_pass.image_size)

    def activation(self, forward_pass: Pass) -> Tensor:
        """The layer's output, (B, C, h, w), float32."""
        output = forward_pass.outputs[self.layer].detach().float()
        return self.grid(forward_pass)(output)


class SignedRoute(CamRoute):
    """A way to GradCAM, whose maps can be compared before their negative values are cut off."""

    __slots__ = ()

    @abstractmethod
    def signed_cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        """The maps before the ReLU, see `cams`."""

    def cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        return self.signed_cams(forward_pass, classes).relu()


def for_each_image(classes: Tensor, forward_pass: Pass) -> Tensor:
    """Class indices as (B, K)."""
    return classes.expand(len(forward_pass.x_BCHW), -1)


def weighed(weights_BRC: Tensor, activation_BChw: Tensor) -> Tensor:
    """Sum over weighed channels, (B, R, h, w)."""
    return torch.unflatten(weights_BRC @ activation_BChw.flatten(2), -1, activation_BChw.shape[2:])

"""Class activation maps by autograd through what is behind the layer: always right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from artifactgen.artifacts.base import Subject
from artifactgen.introspect.forward import Pass, Taps
from artifactgen.introspect.grid import grid_of


class CamRoute(Protocol):
    """A way from a forward pass to the maps of chosen classes."""

    @property
    def taps(self) -> Taps:
        """What it needs of the pass."""
        ...

    def cams(self, run: Pass, classes: Tensor) -> Tensor:
        """Maps at the layer's resolution, negative values zero: (B, K, h, w), float32.

        Args:
            run: a pass with the taps.
            classes: class indices, (K,) for all images or (B, K).
        """
        ...


def for_each_image(classes: Tensor, run: Pass) -> Tensor:
    """Class indices as (B, K)."""
    return classes.expand(len(run.x_BCHW), -1)


@dataclass(frozen=True, slots=True)
class Tail:
    """Autograd through what is behind the layer."""

    subject: Subject
    layer: str
    taps: Taps = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", Taps(gradients=(self.layer,)))

    def cams(self, run: Pass, classes: Tensor) -> Tensor:
        return self.signed_cams(run, classes).relu()

    def signed_cams(self, run: Pass, classes: Tensor) -> Tensor:
        """The maps before the ReLU."""
        activation_BChw = self.activation(run)
        weights = [g.mean((2, 3)) for g in self.gradients(run, classes)]
        return weighed(torch.stack(weights, 1), activation_BChw)

    def activation(self, run: Pass) -> Tensor:
        """The layer's output, (B, C, h, w), float32."""
        activation = run.outputs[self.layer].detach()
        return grid_of(self.subject.model, activation, image_size=run.image_size)(activation)

    def gradients(self, run: Pass, classes: Tensor) -> Iterator[Tensor]:
        """For each class the gradient of each image's score by the layer's output, (B, C, h, w)."""
        assert run.logits_BK is not None
        activation = run.outputs[self.layer]
        grid = grid_of(self.subject.model, activation, image_size=run.image_size)
        for classes_B in for_each_image(classes, run).unbind(1):
            # Images do not meet in the network, so one sum serves the whole batch.
            score = run.logits_BK.gather(1, classes_B[:, None]).sum()
            (gradient,) = torch.autograd.grad(
                score, activation, retain_graph=True, materialize_grads=True, allow_unused=True
            )
            yield grid(gradient)


def weighed(weights_BRC: Tensor, activation_BChw: Tensor) -> Tensor:
    """Sum over weighed channels, (B, R, h, w)."""
    return torch.unflatten(weights_BRC @ activation_BChw.flatten(2), -1, activation_BChw.shape[2:])

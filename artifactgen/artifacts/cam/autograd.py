"""GradCAM by autograd through what is behind the layer: always right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from artifactgen.artifacts.cam.base import SignedRoute, for_each_image, weighed
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.taps import Taps


@dataclass(frozen=True, slots=True)
class Autograd(SignedRoute):
    """The route `tail`: one backward through the tail of the network for each class."""

    @property
    def taps(self) -> Taps:
        return Taps(gradients=(self.layer,))

    def signed_cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        activation_BChw = self.activation(forward_pass)
        weights = [g.mean((2, 3)) for g in self.gradients(forward_pass, classes)]
        return weighed(torch.stack(weights, 1), activation_BChw)

    def gradients(self, forward_pass: Pass, classes: Tensor) -> Iterator[Tensor]:
        """For each class the gradient of each image's score by the layer's output, (B, C, h, w)."""
        assert forward_pass.logits_BK is not None
        activation, grid = forward_pass.outputs[self.layer], self.grid(forward_pass)
        for classes_B in for_each_image(classes, forward_pass).unbind(1):
            # Images do not meet in the network, so one sum serves the whole batch.
            score = forward_pass.logits_BK.gather(1, classes_B[:, None]).sum()
            (gradient,) = torch.autograd.grad(
                score, activation, retain_graph=True, materialize_grads=True, allow_unused=True
            )
            yield grid(gradient)

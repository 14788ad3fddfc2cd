"""A kind bound to a random model, and a forward pass with its taps."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.introspect.forward import Pass, forward
from artifactgen.models.timm import as_network
from benchmarks.exactness import reference
from benchmarks.exactness.reference import random_images

__all__ = ["CLASSES", "bind", "calibrate", "compute", "random_images", "random_model", "run"]

CLASSES = tuple(f"class {index}" for index in range(7))


def random_model(name: str, **options: Any) -> nn.Module:
    return reference.random_model(name, classes=len(CLASSES), **options)


def bind(
    artifact: Artifact, model: nn.Module, size: tuple[int, int], *, has_head: bool = True
) -> BoundArtifact:
    return artifact.bind(Subject(as_network(model), size, CLASSES, has_head))


def run(model: nn.Module, bound: BoundArtifact, x_BCHW: Tensor) -> Pass:
    return forward(as_network(model), x_BCHW, taps=bound.taps, classify=True)


def calibrate(artifact: Artifact, model: nn.Module, x_BCHW: Tensor) -> BoundArtifact:
    """Calibrated by the images, and bound anew with what that gave, as every worker gets it."""
    bound = bind(artifact, model, tuple(x_BCHW.shape[-2:]))
    forward_pass = forward(as_network(model), x_BCHW, taps=bound.calibration_taps, classify=True)
    return bind(bound.calibrate(forward_pass).options, model, tuple(x_BCHW.shape[-2:]))


def compute(model: nn.Module, bound: BoundArtifact, x_BCHW: Tensor) -> dict[str, NDArray[Any]]:
    tensors = bound.compute(run(model, bound, x_BCHW))
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

"""A model prepared for images of one size: kinds bound to it, closed forms met with autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject, Tensors
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.cam.target_layer import find_target_layer
from artifactgen.assembly import bind_artifacts
from artifactgen.engine import Engine, Normalization, is_convolutional
from artifactgen.errors import ConfigError
from artifactgen.explainer.batch import finite_images
from artifactgen.explainer.untouched import device_of
from artifactgen.introspect.forward import Pass, forward
from artifactgen.introspect.probe import random_image
from artifactgen.introspect.taps import Taps
from artifactgen.models.base import Network
from artifactgen.types import Precision

IMAGES_COMPARED = 4
"""By which a closed form is held against autograd, as a run does with its first records."""

_OPTIONS = {
    "gradcam.layer": "layer",
    "gradcam.method": "method",
    "gradcam.route": "route",
    "attention.layers": "attention_layers",
    "attention.method": "attention_method",
    "Set generate_gradcam=false.": "",
    "model.classifier": "classifier",
    "model.num_classes=0": "classifier='none'",
    "Set data.image_size and model.in_chans as in training.": "Give images as in training.",
    ": set model.in_chans.": ".",
}
"""What the command calls an option, and what it is called here."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a model can give of images of one size."""

    subject: Subject
    artifacts: Mapping[str, BoundArtifact]
    missing: Mapping[str, str]
    """Kind to why the model cannot give it."""

    def engine(self, device: torch.device, precision: Precision) -> Engine:
        """What computes it."""
        taken_as_they_are = Normalization(mean=(0.0,), std=(1.0,))
        return Engine(
            self.subject,
            self.artifacts,
            device,
            precision,
            taken_as_they_are,
            channels_last=is_convolutional(self.subject.model),
        )


class Logits(Artifact):
    """The scores of all classes."""

    def bind(self, subject: Subject) -> BoundLogits:
        return BoundLogits()


class BoundLogits(BoundArtifact):
    """Computes `logits`, float32 (B, K)."""

    def compute(self, forward_pass: Pass) -> Tensors:
        assert forward_pass.logits_BK is not None
        return {"logits": forward_pass.logits_BK.detach().float()}


def prepare(
    network: Network,
    images_BCHW: NDArray[np.float32],
    *,
    classes: Sequence[str] | None,
    kinds: Mapping[str, Artifact],
) -> Prepared:
    """Bind the kinds to a model, and decide what only images can tell.

    Args:
        network: in eval mode, its weights without gradients.
        images_BCHW: normalised; the first ones are looked at.
        classes: names of its outputs; None = their numbers.
        kinds: what is to be computed.

    Raises:
        ConfigError: an option does not fit the model.
    """
    subject = _subject(network, images_BCHW.shape[2:], classes)
    possible, missing = _possible(kinds, subject)
    bound, unsupported = bind_artifacts(possible, subject)
    prepared = Prepared(subject, bound, {**missing, **unsupported})
    engine = prepared.engine(device_of(network.module), "32-true")
    taps = Taps.union(artifact.calibration_taps for artifact in bound.values())
    forward_pass = engine.forward(finite_images(images_BCHW, IMAGES_COMPARED), taps)
    calibrated = {name: artifact.calibrate(forward_pass) for name, artifact in bound.items()}
    return replace(prepared, artifacts=calibrated)


def _subject(network: Network, size: tuple[int, ...], classes: Sequence[str] | None) -> Subject:
    height, width = size
    if not has_classifier(network):
        return Subject(network, (height, width), (), has_head=False)
    x_BCHW = random_image(network, (height, width))
    passed = forward(network, x_BCHW, taps=Taps(), classify=True)
    assert passed.logits_BK is not None
    outputs = passed.logits_BK.shape[1]
    names = tuple(map(str, range(outputs) if classes is None else classes))
    if len(names) != outputs:
        raise ConfigError(
            f"classes has {len(names)} names, and {type(network.module).__name__} has {outputs} "
            "outputs. Give a name for each, in their order, or leave classes out."
        )
    return Subject(network, (height, width), names, has_head=True)


def has_classifier(network: Network) -> bool:
    """Whether there is a layer where the architecture has its classifier."""
    modules = dict(network.module.named_modules())
    layers = [modules.get(path) for path in network.classifiers]
    return any(layer is not None and not isinstance(layer, nn.Identity) for layer in layers)


def _possible(
    kinds: Mapping[str, Artifact], subject: Subject
) -> tuple[dict[str, Artifact], dict[str, str]]:
    """The kinds that need no more than the model has, and why there is nothing of the others."""
    possible, missing = dict(kinds), {}
    gradcam = kinds["gradcam"]
    assert isinstance(gradcam, GradCAM)
    if not subject.has_head:
        name = type(subject.model).__name__
        del possible["gradcam"], possible["logits"]
        missing["gradcam"] = f"GradCAM needs a classifier, and {name} has none"
        missing["logits"] = f"{name} has no classifier"
    elif gradcam.layer == "auto":
        try:
            possible["gradcam"] = replace(gradcam, layer=find_target_layer(subject))
        except ConfigError as error:
            del possible["gradcam"]
            missing["gradcam"] = in_python(str(error))
    return possible, missing


def in_python(message: str) -> str:
    """A message with the options as they are called here, and not on the command line."""
    for there, here in _OPTIONS.items():
        message = message.replace(there, here)
    return message.strip()


@contextmanager
def options_called_as_here() -> Iterator[None]:
    """Make a `ConfigError` of the block name the options as they are called here."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(in_python(str(error))) from error


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The arrays of parts of a batch as those of the whole."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

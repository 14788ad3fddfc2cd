"""The models that are measured, and the ways of running them that are compared."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.assembly import bind_artifacts
from artifactgen.engine import is_convolutional
from artifactgen.introspect.forward import forward
from artifactgen.introspect.taps import Taps
from artifactgen.models.timm import as_network

IMAGE_SIZE = (224, 224)
CLASSES = 1000
VIT_S, VIT_B, RESNET = "ViT-S/16", "ViT-B/16", "ResNet-50"
MEAN_POOLED, CONVNEXT, TINY = "ViT-S/16, mean-pooled", "ConvNeXt-T", "test_vit"

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    VIT_S: ("vit_small_patch16_224", {}),
    VIT_B: ("vit_base_patch16_224", {}),
    RESNET: ("resnet50", {}),
    MEAN_POOLED: ("vit_small_patch16_224", {"global_pool": "avg"}),
    CONVNEXT: ("convnext_tiny", {}),
    TINY: ("test_vit", {"img_size": IMAGE_SIZE}),
}


def make_model(title: str) -> nn.Module:
    """A model of random weights with 1,000 classes, laid out in memory as the program does it."""
    name, options = MODELS[title]
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
    layout = torch.channels_last if is_convolutional(model) else torch.preserve_format
    model.to(memory_format=layout)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Case:
    """A model and a batch."""

    subject: Subject
    x_BCHW: Tensor

    @property
    def model(self) -> nn.Module:
        return self.subject.model

    def to(self, device: torch.device) -> Case:
        """The same, model moved."""
        self.model.to(device)
        return Case(self.subject, self.x_BCHW.to(device))

    def plain(self) -> None:
        """The forward pass that everything is measured by: timm's model in inference mode."""
        with torch.inference_mode():
            self.model(self.x_BCHW)

    def calibrated(self, artifacts: Mapping[str, Artifact]) -> dict[str, BoundArtifact]:
        """Bound to the model, with what the first batch decides, as every worker gets them."""
        bound, _ = bind_artifacts(artifacts, self.subject)
        taps = Taps.union(artifact.calibration_taps for artifact in bound.values())
        forward_pass = forward(self.subject.network, self.x_BCHW, taps=taps, classify=True)
        return {name: artifact.calibrate(forward_pass) for name, artifact in bound.items()}

    def ours(
        self, bound: Mapping[str, BoundArtifact], *, bf16: bool = False
    ) -> Callable[[], dict[str, Tensor]]:
        """One pass and everything that is made of it, as the engine does it on the device."""
        taps, device = _taps(bound), self.x_BCHW.device.type

        def work() -> dict[str, Tensor]:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                passed = forward(self.subject.network, self.x_BCHW, taps=taps, classify=True)
            computed = [artifact.compute(passed) for artifact in bound.values()]
            return {name: tensor for part in computed for name, tensor in part.items()}

        return work


def _taps(bound: Mapping[str, BoundArtifact]) -> Taps:
    return Taps.union(artifact.taps for artifact in bound.values())


def make_case(title: str, *, batch: int) -> Case:
    """The model of that title and a batch of normally distributed images."""
    model = make_model(title)
    names = tuple(str(index) for index in range(CLASSES))
    x_BCHW = torch.randn(batch, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    if is_convolutional(model):
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    return Case(Subject(as_network(model), IMAGE_SIZE, names, has_head=True), x_BCHW)


def arguments(doc: str | None, *, batch: int = 4, rounds: int = 15) -> argparse.Namespace:
    """The options `batch`, `rounds` and `threads` of the command line."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()

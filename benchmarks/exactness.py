"""Largest deviation from timm, pytorch-grad-cam and unfused attention, over random inputs.

    python -m benchmarks.exactness

Random weights and images, float32, one table row for each model. GradCAM is compared after
pytorch-grad-cam's own scaling to [0, 1], attention as probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.embedding import Embedding
from artifactgen.artifacts.forward import Taps, forward
from artifactgen.artifacts.gradcam import GradCAM
from artifactgen.artifacts.kind import Artifact, Subject
from artifactgen.job import bind_artifacts
from artifactgen.rendering.overlay import scale_cam
from benchmarks import reference

CLASSES = tuple(str(index) for index in range(5))
BATCHES = 3

MODELS: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "ViT-S/16, class token": ("vit_small_patch16_224", (224, 224), {}),
    "ViT-S/16, mean (as MAE fine-tunes)": (
        "vit_small_patch16_224",
        (224, 224),
        {"global_pool": "avg"},
    ),
    "ViT-S/16, 4 registers, 160 × 256": (
        "vit_small_patch16_224",
        (160, 256),
        {"reg_tokens": 4, "img_size": (160, 256)},
    ),
    "DeiT-Ti, distilled": ("deit_tiny_distilled_patch16_224", (224, 224), {}),
    "ResNet-50": ("resnet50", (224, 224), {}),
    "ConvNeXt-T": ("convnext_tiny", (224, 224), {}),
    "Swin-T": ("swin_tiny_patch4_window7_224", (224, 224), {}),
    "EfficientNet-B0": ("efficientnet_b0", (224, 224), {}),
}


def deviations(model: nn.Module, size: tuple[int, int]) -> dict[str, float | None]:
    """Largest absolute deviation of each kind; None where the model cannot give it."""
    subject = Subject(model, size, CLASSES, has_head=True)
    kinds: dict[str, Artifact] = {
        "embedding": Embedding(),
        "gradcam": GradCAM(),
        "attention": AttentionMaps(),
    }
    bound, _ = bind_artifacts(kinds, subject)
    layer = str(bound["gradcam"].describe()["layer"])
    worst: dict[str, float | None] = {kind: 0.0 if kind in bound else None for kind in kinds}
    for seed in range(BATCHES):
        x_BCHW = reference.random_images(2, size=size, seed=seed)
        taps = Taps.union(artifact.taps for artifact in bound.values())
        run = forward(model, x_BCHW, taps=taps, classify=True)
        arrays = {
            k: v.numpy() for artifact in bound.values() for k, v in artifact.compute(run).items()
        }
        for kind, ours, expected in _pairs(model, x_BCHW, layer, arrays):
            worst[kind] = max(worst[kind] or 0.0, float(np.abs(ours - expected).max()))
    return worst


def _pairs(
    model: nn.Module, x_BCHW: Tensor, layer: str, arrays: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Kind, our values, and the reference's."""
    height, width = x_BCHW.shape[-2:]
    yield "embedding", arrays["embeddings"], reference.timm_embedding(model, x_BCHW)
    cams = reference.pytorch_grad_cam(model, layer, x_BCHW, range(len(CLASSES)))
    yield "gradcam", scale_cam(arrays["gradcam"], (height, width)), cams
    if "attention" in arrays:
        prefix = int(model.num_prefix_tokens)  # type: ignore[arg-type]
        rows = reference.attention_matrices(model, x_BCHW)[-1][:, :, 0, prefix:].numpy()
        yield "attention", arrays["attention"].reshape(rows.shape), rows


def main() -> None:
    """Print the table."""
    print("| model | embedding, timm | GradCAM, pytorch-grad-cam | attention, unfused |")
    print("| --- | ---: | ---: | ---: |")
    for title, (name, size, options) in MODELS.items():
        model = reference.random_model(name, classes=len(CLASSES), **options)
        cells = [
            "none" if value is None else f"{value:.1e}"
            for value in deviations(model, size).values()
        ]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

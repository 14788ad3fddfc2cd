"""Largest deviation from timm, pytorch-grad-cam and unfused attention, over random inputs.

    python -m benchmarks.exactness.values

Random weights and images, float32, one table row for each model. GradCAM, by the route that a run
would take, is compared after pytorch-grad-cam's own scaling to [0, 1], attention as probabilities.
The attention of windows has its reference in `benchmarks.exactness.conformance`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timm.models import VisionTransformer
from torch import Tensor, nn

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from artifactgen.models.timm import as_network
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness import reference
from benchmarks.speed.models import Case

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


KINDS: dict[str, Artifact] = {
    "embedding": Embedding(),
    "gradcam": GradCAM(),
    "attention": AttentionMaps(),
}


def row(model: nn.Module, size: tuple[int, int]) -> Iterator[str]:
    """The largest absolute deviation of each kind, as cells."""
    subject = Subject(as_network(model), size, CLASSES, has_head=True)
    bound = Case(subject, reference.random_images(2, size=size, seed=0)).calibrated(KINDS)
    worst: dict[str, float] = {}
    for seed in range(BATCHES):
        case = Case(subject, reference.random_images(2, size=size, seed=seed))
        for kind, ours, expected in _pairs(case, bound):
            worst[kind] = max(worst.get(kind, 0.0), float(np.abs(ours - expected).max()))
    yield f"{worst['embedding']:.1e}"
    yield f"{worst['gradcam']:.1e}, `{bound['gradcam'].resolved()['route']}`"
    if "attention" in worst:
        yield f"{worst['attention']:.1e}, {bound['attention'].resolved()['query']}"
    else:
        yield "see models.md" if "attention" in bound else "none"


def _pairs(
    case: Case, bound: Mapping[str, BoundArtifact]
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Kind, our values, and the reference's, of kinds that have one here."""
    arrays = {name: tensor.numpy() for name, tensor in case.ours(bound)().items()}
    model, x_BCHW = case.model, case.x_BCHW
    yield "embedding", arrays["embeddings"], reference.timm_embedding(model, x_BCHW)
    layer = str(bound["gradcam"].resolved()["layer"])
    cams = reference.pytorch_grad_cam(model, layer, x_BCHW, range(len(CLASSES)))
    yield "gradcam", scale_cam(arrays["gradcam"], case.subject.image_size), cams
    if "attention" in bound and isinstance(model, VisionTransformer):
        rows_BAN = _rows(model, x_BCHW, query=str(bound["attention"].resolved()["query"]))
        yield "attention", arrays["attention"].reshape(rows_BAN.shape), rows_BAN


def _rows(model: VisionTransformer, x_BCHW: Tensor, *, query: str) -> NDArray[np.float32]:
    """What the last block gives the patches: the class token's row, or the mean of theirs."""
    patches = slice(model.num_prefix_tokens, None)
    matrix_BANN = reference.attention_matrices(model, x_BCHW)[-1]
    queries = {"class token": slice(0, 1), "mean over patches": patches}[query]
    rows_BAN: NDArray[np.float32] = matrix_BANN[:, :, queries, patches].mean(2).numpy()
    return rows_BAN


def main() -> None:
    """Print the table."""
    print("| model | embedding, timm | GradCAM, pytorch-grad-cam | attention, unfused |")
    print("| --- | ---: | ---: | ---: |")
    for title, (name, size, options) in MODELS.items():
        model = reference.random_model(name, classes=len(CLASSES), **options)
        print(f"| {title} | {' | '.join(row(model, size))} |", flush=True)


if __name__ == "__main__":
    main()

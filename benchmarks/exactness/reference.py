"""The references that results are held against: timm, pytorch-grad-cam, unfused attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn


def random_model(name: str, *, classes: int, **options: Any) -> nn.Module:
    """A model whose norms, biases and tokens are random too.

    At their initial ones and zeros, many mistakes would not show.
    """
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=classes, **options)
    roughen(model, least=0.02, share=0.2)
    return model.eval().requires_grad_(False)


def roughen(model: nn.Module, *, least: float, share: float) -> None:
    """Add noise to all parameters: `least`, and a `share` of the deviation of each; set buffers."""
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * (least + share * tensor.std(correction=0)))
        for path, buffer in model.named_buffers():
            if path.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            if path.endswith("running_var"):
                buffer.uniform_(0.5, 2)


def random_images(batch: int = 3, *, size: tuple[int, int], seed: int = 1) -> Tensor:
    """(B, 3, H, W), normally distributed."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def timm_embedding(model: Any, x_BCHW: Tensor) -> NDArray[np.float32]:
    """What timm's model feeds its classifier with, (B, D)."""
    with torch.no_grad():
        features = model.forward_head(model.forward_features(x_BCHW), pre_logits=True)
    embedding: NDArray[np.float32] = features.numpy()
    return embedding


def pytorch_grad_cam(
    model: nn.Module,
    layer: str,
    x_BCHW: Tensor,
    classes: Sequence[int],
    *,
    patch: int = 16,
    reshape: Callable[[Tensor], Tensor] | None = None,
) -> NDArray[np.float32]:
    """Scaled maps (B, K, H, W), one call of the library for each class.

    `reshape` is the library's `reshape_transform`; by default, the one of a ViT of `patch` pixels.
    """
    height, width = x_BCHW.shape[-2:]
    reshape = reshape or reshape_transform(model, (height // patch, width // patch))
    model.requires_grad_(True)
    try:
        with GradCAM(model, [model.get_submodule(layer)], reshape_transform=reshape) as cam:
            targets = [[ClassifierOutputTarget(k)] * len(x_BCHW) for k in classes]
            return np.stack([cam(x_BCHW, target) for target in targets], axis=1)
    finally:
        model.requires_grad_(False)
        model.zero_grad()


def reshape_transform(model: nn.Module, grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """What pytorch-grad-cam asks its users to write: tokens or NHWC to (B, C, h, w)."""
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)

    def transform(output: Tensor) -> Tensor:
        if output.ndim == 3:
            patches = output[:, prefix:].reshape(len(output), *grid, -1)
            return patches.permute(0, 3, 1, 2)
        return output.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "") == "NHWC" else output

    return transform


def attention_matrices(model: Any, x_BCHW: Tensor) -> Tensor:
    """Softmax of every block as timm computes it without fused attention: (blocks, B, A, N, N)."""
    with _unfused([block.attn for block in model.blocks]) as seen, torch.no_grad():
        model.forward_features(x_BCHW)
    return torch.stack(seen)


@contextmanager
def _unfused(layers: Sequence[Any]) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen.append(output)

    hooks = [layer.attn_drop.register_forward_hook(keep) for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            layer.fused_attn = True

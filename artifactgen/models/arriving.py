"""What arrives at a classifier, and from which layer on: by hooks, and by a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def linear_layers(module: nn.Module) -> list[str]:
    """Module paths of the layers that could be a classifier."""
    return [path for path, layer in module.named_modules() if path and is_linear(layer)]


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer is linear at each position."""
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear) or pointwise


def one_vector(arrived: Tensor, layer: nn.Module) -> Tensor:
    """What arrives at a classifier as one vector for each image, (B, D).

    A linear layer may be given every position; they are averaged.
    """
    if arrived.ndim > 2 and isinstance(layer, nn.Linear):
        return arrived.flatten(1, -2).mean(1)
    if arrived.ndim == 4 and (is_linear(layer) or isinstance(layer, nn.Identity)):
        return arrived.mean((2, 3))
    return arrived.flatten(1)


def last_seen(
    call: Callable[[Tensor], Tensor],
    module: nn.Module,
    x_BCHW: Tensor,
    classifiers: Sequence[str],
    paths: Sequence[str],
) -> tuple[str | None, Tensor | None]:
    """The first of the layers whose output reaches the classifier, and the gradient there."""
    outputs: dict[str, Tensor] = {}
    arrived: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.enable_grad():
        for path in paths:
            stack.callback(keep_output(module, path, outputs).remove)
        for path in classifiers:
            stack.callback(keep_input(module, path, arrived).remove)
        logits_BK = call(x_BCHW.clone().requires_grad_())
        fed = [one_vector(arrived[p], module.get_submodule(p)) for p in classifiers if p in arrived]
        score = sum(map(_weighed, fed or [logits_BK]), torch.zeros(()))
    if not score.requires_grad or not outputs:
        return None, None
    found = torch.autograd.grad(score, list(outputs.values()), allow_unused=True)
    gradients = dict(zip(outputs, found, strict=True))
    for path in paths:
        gradient = gradients.get(path)
        if gradient is not None and gradient.any():
            return path, gradient
    return None, None


def keep_output(module: nn.Module, path: str, kept: dict[str, Tensor]) -> RemovableHandle:
    """Keep what a layer gives, to differentiate by it; gives the handle of the hook."""

    def hook(_module: nn.Module, _args: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None  # not of the image, such as a table of position biases
        kept[path] = output
        return output.clone()  # an in-place activation behind it would change what is kept

    return module.get_submodule(path).register_forward_hook(hook)


def keep_input(module: nn.Module, path: str, kept: dict[str, Tensor]) -> RemovableHandle:
    """Keep what arrives at a layer, however it is handed over; gives the handle of the hook."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        tensor = next(tensors, None)
        if tensor is not None:
            kept[path] = tensor

    return module.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)


def _weighed(vector_BD: Tensor) -> Tensor:
    """A sum in which features count differently: behind a norm, the plain one is constant."""
    generator = torch.Generator().manual_seed(0)
    weights_D = torch.randn(vector_BD.shape[-1], generator=generator).to(vector_BD)
    return (vector_BD * weights_D).sum()

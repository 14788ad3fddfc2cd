"""One forward pass that feeds every artifact.

An artifact names the layers that it needs (its taps). The pass runs the model once. Where an
artifact needs gradients, they start at the tapped layer: what comes before runs without a graph,
and weights never take part, so the only backward is through the tail of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from artifactgen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Taps:
    """Module paths whose outputs an artifact needs."""

    outputs: tuple[str, ...] = ()
    """Outputs to look at."""
    gradients: tuple[str, ...] = ()
    """Outputs to look at and to differentiate logits by."""

    @staticmethod
    def union(taps: Iterable[Taps]) -> Taps:
        """What all of them need together, each layer once."""
        every = list(taps)
        return Taps(
            outputs=tuple(dict.fromkeys(path for tap in every for path in tap.outputs)),
            gradients=tuple(dict.fromkeys(path for tap in every for path in tap.gradients)),
        )


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass of a batch gave."""

    image_size: tuple[int, int]
    features: Tensor
    """Output of timm's `forward_features`: (B, N, D), (B, C, h, w) or (B, h, w, C)."""
    pre_logits_BD: Tensor
    """What the classifier is fed with: timm's `forward_head(…, pre_logits=True)`."""
    logits_BK: Tensor | None
    """None for a model without a classifier."""
    outputs: Mapping[str, Tensor]
    """Module path to the output of that layer."""


class TimmModel(Protocol):
    """The two halves of every timm model that the pass relies on."""

    def forward_features(self, x_BCHW: Tensor) -> Tensor: ...

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor: ...


def forward(model: nn.Module, x_BCHW: Tensor, *, taps: Taps, classify: bool) -> Pass:
    """Run a timm model once.

    Args:
        model: in eval mode, its weights without `requires_grad`.
        x_BCHW: normalised images, on the model's device.
        taps: which layers' outputs to keep. Those under `gradients` carry a graph to the logits.
        classify: whether the model has a classifier to ask for logits.

    Returns:
        Tensors on the model's device, in whatever precision autocast chose.
    """
    halves = cast(TimmModel, model)
    with torch.enable_grad() if taps.gradients else torch.inference_mode():
        with _tapped(model, taps) as outputs:
            features = halves.forward_features(x_BCHW)
            logits_BK = halves.forward_head(features) if classify else None
        _require_all(outputs, taps)
        with torch.no_grad():
            pre_logits_BD = halves.forward_head(features.detach(), pre_logits=True)
    height, width = x_BCHW.shape[-2:]
    return Pass((height, width), features.detach(), pre_logits_BD, logits_BK, outputs)


@contextmanager
def _tapped(model: nn.Module, taps: Taps) -> Iterator[dict[str, Tensor]]:
    """Collect layer outputs while the block runs; no hook outlives it, not even an exception."""
    outputs: dict[str, Tensor] = {}
    handles = []
    try:
        for path in dict.fromkeys((*taps.gradients, *taps.outputs)):
            hook = _start_graph if path in taps.gradients else _observe
            layer = model.get_submodule(path)
            handles.append(layer.register_forward_hook(hook(outputs, path)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _require_all(outputs: Mapping[str, Tensor], taps: Taps) -> None:
    for path in (*taps.gradients, *taps.outputs):
        if not isinstance(outputs.get(path), Tensor):
            raise ConfigError(
                f"The layer {path} gives no tensor in a forward pass. Choose another one, "
                "such as a norm or a whole block."
            )


Hook = Callable[[nn.Module, tuple[object, ...], Tensor], Tensor | None]


def _observe(outputs: dict[str, Tensor], path: str) -> Hook:
    def hook(_module: nn.Module, _args: tuple[object, ...], output: Tensor) -> None:
        if isinstance(output, Tensor):
            outputs[path] = output.detach()

    return hook


def _start_graph(outputs: dict[str, Tensor], path: str) -> Hook:
    def hook(_module: nn.Module, _args: tuple[object, ...], output: Tensor) -> Tensor:
        # Behind another tap the output is part of that graph already; cutting it would starve it.
        if not isinstance(output, Tensor):
            return output
        tapped = output if output.requires_grad else output.detach().requires_grad_()
        outputs[path] = tapped
        # The rest of the network gets a copy: an in-place activation would spoil the tap.
        return tapped.clone()

    return hook

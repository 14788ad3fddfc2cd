"""What happens inside of a model while it looks at one image: the layers and the attention.

No list of architectures is kept. One image goes through the model, and what its layers give and
where it computes attention is written down.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from artifactgen.introspect.attention import Interceptor
from artifactgen.models.base import Network


@dataclass(frozen=True, slots=True)
class Probe:
    """What one image of `image_size` met, in the order of the computation."""

    network: Network
    image_size: tuple[int, int]
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """Module path to the output, where that is one tensor; on no device and without values."""
    attention: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    """Module path to the shapes (…, M, N) of the weights that the module itself computes."""
    finished: list[str] = field(default_factory=list)
    """Module path of each call that gave one tensor, in the order in which they ended."""
    began: dict[str, int] = field(default_factory=dict)
    """Module path to how many of these had ended when it was called first."""
    entered: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Module path to the shape of what it is given first, where that is a tensor."""
    features: Any = None
    """What the family calls so, see `Network.forward`."""
    pre_logits_BD: Tensor | None = None
    """What the classifier is fed with."""


def random_image(network: Network, size: tuple[int, int]) -> Tensor:
    """(1, C, H, W) on the model's device; the same each time."""
    device = next(network.module.parameters(), torch.zeros(0)).device
    generator = torch.Generator().manual_seed(0)
    shape = 1, network.family.in_chans, *size
    # A notebook may have another default device, which a generator of the CPU would not go with.
    return torch.randn(shape, generator=generator, device="cpu").to(device)


def probe(network: Network, image_size: tuple[int, int]) -> Probe:
    """Send one random image of (H, W) pixels through a model; no hook stays."""
    model, seen = network.module, Probe(network, image_size)
    x_BCHW = random_image(network, image_size)
    interceptor = Interceptor()
    with ExitStack() as stack:
        stack.callback(interceptor.stop)
        for path, module in model.named_modules():
            before, after = _watch(seen, interceptor, _computing_module(model, path))
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after, always_call=True).remove)
        with torch.inference_mode():
            features, _ = network.forward(x_BCHW, classify=bool(network.classifiers))
    with torch.inference_mode():
        return replace(seen, features=features, pre_logits_BD=network.embed(features))


def _computing_module(model: nn.Module, path: str) -> str:
    """The module itself, or its parent where it is but a softmax."""
    is_softmax = isinstance(model.get_submodule(path), nn.Softmax)
    return path.rpartition(".")[0] if is_softmax else path


def _watch(
    seen: Probe, interceptor: Interceptor, path: str
) -> tuple[Callable[..., None], Callable[..., None]]:
    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            seen.entered.setdefault(path, tuple(args[0].shape))
        seen.began.setdefault(path, len(seen.finished))
        interceptor.listen()

    def after(_module: nn.Module, _args: object, output: Any) -> None:
        if calls := interceptor.heard():
            seen.attention.setdefault(path, []).extend(call.shape for call in calls)
        if isinstance(output, Tensor) and path:
            seen.finished.append(path)
            seen.outputs.pop(path, None)  # of several calls, the place of the last
            seen.outputs[path] = torch.empty_like(output, device="meta")

    return before, after

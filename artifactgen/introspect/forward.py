"""One forward pass that feeds every artifact.

An artifact names what it needs of the pass (its taps). The pass runs the model once, in inference
mode. Only where an artifact needs autograd does a graph begin, at the tapped layer and in float32:
what comes before runs without one, and weights never take part, so the only backward is through
the tail of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from artifactgen.errors import ConfigError
from artifactgen.introspect.attention import Interceptor
from artifactgen.introspect.taps import Reader, Taps
from artifactgen.models.base import Network


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass of a batch gave. Only `outputs` under `gradients` carry a graph."""

    x_BCHW: Tensor
    """The normalised images that went in."""
    features: Any
    """What the family calls so: of timm, the output of `forward_features`, (B, N, D), (B, C, h, w)
    or (B, h, w, C); a list of such for architectures of several branches."""
    pre_logits_BD: Tensor
    """What the classifier is fed with."""
    logits_BK: Tensor | None
    """None for a model without a classifier."""
    outputs: Mapping[str, Tensor]
    """Module path to the output of that layer."""
    inputs: Mapping[str, Tensor]
    """Module path to the first input of that layer."""
    attention: Mapping[tuple[str, Reader], Any]
    """Module path and reader to what was kept."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.x_BCHW.shape[-2:]
        return height, width


def forward(network: Network, x_BCHW: Tensor, *, taps: Taps, classify: bool) -> Pass:
    """Run a model once.

    Args:
        network: the model.
        x_BCHW: normalised images, on the model's device.
        taps: what to keep. Outputs under `gradients` carry a graph to the logits.
        classify: whether the model has a classifier to ask for logits.

    Returns:
        Tensors on the model's device, in whatever precision autocast chose.

    Raises:
        ConfigError: a tapped layer gives no tensor, or computes no attention.
    """
    # A tail with autograd may need what was computed before it, which inference mode forbids.
    with torch.no_grad() if taps.gradients else torch.inference_mode():
        with _Tapped(network.module, taps) as kept:
            features, logits_BK = network.forward(x_BCHW, classify=classify)
        kept.require(taps)
        features = tree_map_only(Tensor, Tensor.detach, features)
        pre_logits_BD = network.embed(features)
    return Pass(
        x_BCHW, features, pre_logits_BD, logits_BK, kept.outputs, kept.inputs, kept.attention
    )


@contextmanager
def eager_graph() -> Iterator[None]:
    """Record a graph, through compiled modules as if they were not.

    Backwards through compiled code can neither be repeated nor batched over classes. On a GPU,
    attention is computed by plain matrix products: the backwards of its fused kernels add up in
    the order in which threads end, even where torch is told to be deterministic.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.cuda.is_available():
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


class _Tapped:
    """Keeps what is tapped while the block runs; no hook outlives it, not even an exception."""

    def __init__(self, model: nn.Module, taps: Taps) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.attention: dict[tuple[str, Reader], Any] = {}
        self._model = model
        self._taps = taps
        self._stack = ExitStack()
        self._interceptor = Interceptor()

    def __enter__(self) -> _Tapped:
        with self._stack as stack:
            stack.callback(self._interceptor.stop)
            for path in self._taps.paths:
                self._attach(path)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _attach(self, path: str) -> None:
        layer, taps = self._model.get_submodule(path), self._taps
        if path in taps.inputs:
            self._remove_later(layer.register_forward_pre_hook(self._keep_input(path)))
        if readers := [reader for tapped, reader in taps.attention if tapped == path]:
            begin, end = self._read_attention(path, readers)
            self._remove_later(layer.register_forward_pre_hook(begin))
            # Also after an exception in the layer: else its interception would not end.
            self._remove_later(layer.register_forward_hook(end, always_call=True))
        if path in taps.gradients:
            self._remove_later(layer.register_forward_hook(self._start_graph(path)))
        elif path in taps.outputs:
            self._remove_later(layer.register_forward_hook(self._keep_output(path)))

    def _remove_later(self, hook: RemovableHandle) -> None:
        self._stack.callback(hook.remove)

    def _keep_input(self, path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                self.inputs[path] = args[0].detach()

        return hook

    def _keep_output(self, path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):
                self.outputs[path] = output.detach()

        return hook

    def _start_graph(self, path: str) -> Callable[..., Tensor | None]:
        def hook(_module: nn.Module, _args: object, output: object) -> Tensor | None:
            if not isinstance(output, Tensor):
                return None
            # Here the graph begins: a leaf that requires a gradient, from which everything behind
            # is recorded, in float32 and eagerly, until the model returns. Nothing before it is.
            # Behind another tap the output is part of that graph already: do not cut it.
            if not output.requires_grad:
                self._stack.enter_context(eager_graph())
                self._stack.enter_context(torch.autocast(output.device.type, enabled=False))
                self._interceptor.compute_in_float32()
                output = output.detach().float().requires_grad_()
            self.outputs[path] = output
            # The rest of the network gets a copy: an in-place activation would spoil the tap.
            return output.clone()

        return hook

    def _read_attention(
        self, path: str, readers: Sequence[Reader]
    ) -> tuple[Callable[..., None], Callable[..., None]]:
        """Hooks before and after a layer that computes attention."""

        def begin(_module: nn.Module, _args: object) -> None:
            self._interceptor.listen()

        def end(_module: nn.Module, _args: object, _output: object) -> None:
            calls = self._interceptor.heard()
            if len(calls) == 1:
                with torch.no_grad(), torch.autocast(calls[0].device.type, enabled=False):
                    self.attention.update({(path, read): read(calls[0]) for read in readers})

        return begin, end

    def require(self, taps: Taps) -> None:
        """Refuse taps that gave nothing."""
        wanted = [(path, self.outputs) for path in (*taps.gradients, *taps.outputs)]
        for path, found in [*wanted, *((path, self.inputs) for path in taps.inputs)]:
            if path not in found:
                raise ConfigError(
                    f"The layer {path} gives no tensor in a forward pass. Choose another one, "
                    "such as a norm or a whole block."
                )
        for key in taps.attention:
            if key not in self.attention:
                raise ConfigError(f"The layer {key[0]} computes no attention in a forward pass.")

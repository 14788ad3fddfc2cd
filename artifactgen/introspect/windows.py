"""Which positions share a window, in models that attend within windows (Swin, MaxViT).

Rather than repeating how each architecture shifts, pads and cuts its maps, a map of numbered
positions is sent through the block: what arrives at its attention tells where each came from.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from artifactgen.introspect.grid import Grid, map_grid, tokens_grid
from artifactgen.introspect.probe import Probe, random_image


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The positions of a grid in the order in which windows hold them."""

    grid: Grid
    positions: NDArray[np.int64]
    """(windows, tokens) index into the grid, row by row; -1 for padding."""


class _Arrived(Exception):  # noqa: N818
    """The numbered positions are at the attention: the rest of the block need not run."""


def trace_windows(seen: Probe, path: str, *, windows: int, tokens: int) -> Windows | None:
    """Where the positions of one image are at the attention `path`; None where it cannot be told.

    Args:
        seen: the model and the shapes of its layers' outputs.
        path: module path of the attention.
        windows: number of windows of one image.
        tokens: number of positions in a window.
    """
    block = path.rpartition(".")[0]
    shape = tuple(seen.outputs[block].shape) if block in seen.outputs else ()
    grid = map_grid(seen.network.traits, shape, seen.image_size) if len(shape) == 4 else None
    if grid is not None:
        arrived = _send(seen.network.module, block, path, _numbers(grid, shape))
        if (found := _windows(arrived, grid, (windows, tokens))) is not None:
            return found
    for block, shape, grid in _entered(seen, path):
        arrived = _send_on_the_way(seen, block, path, _numbers(grid, shape), (windows, tokens))
        if (found := _windows(arrived, grid, (windows, tokens))) is not None:
            return found
    return None


def _windows(arrived: Tensor | None, grid: Grid, form: tuple[int, int]) -> Windows | None:
    """Numbered positions, one row a window; None unless each of the grid is there once."""
    if arrived is None or arrived.ndim < 3:
        return None
    positions = arrived[..., 0].reshape(len(arrived), -1).round().long().numpy() - 1
    once = np.bincount(positions[positions >= 0], minlength=grid.height * grid.width)
    if positions.shape != form or not (once == 1).all():
        return None
    return Windows(grid, positions)


def _numbers(grid: Grid, shape: tuple[int, ...]) -> Tensor:
    """A map, or tokens, of that shape, each position having its number from 1 in all channels."""
    numbers = torch.arange(1, grid.height * grid.width + 1, dtype=torch.float32).view(grid.size)
    if len(shape) == 3:
        return numbers.view(1, -1, 1).expand(shape).contiguous()
    numbers = numbers[None, ..., None] if grid.channels_last else numbers[None, None]
    return numbers.expand(shape).contiguous()


def _send(model: nn.Module, block: str, path: str, numbers: Tensor) -> Tensor | None:
    """What arrives at the attention of a block when `numbers` enter it.

    Norms, positional encodings and whatever else keeps the shape are left out.
    """
    found: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0].detach().cpu())
        raise _Arrived

    def let_pass(_module: nn.Module, args: tuple[Any, ...], output: object) -> Any:
        keeps_shape = isinstance(output, Tensor) and output.shape == args[0].shape
        return args[0] if keeps_shape else None

    layer = model.get_submodule(block)
    device = next(model.parameters()).device
    with ExitStack() as stack, torch.inference_mode():
        stack.callback(model.get_submodule(path).register_forward_pre_hook(stop).remove)
        for name, child in layer.named_children():
            if not f"{path}.".startswith(f"{block}.{name}."):
                stack.callback(child.register_forward_hook(let_pass).remove)
        try:
            layer(numbers.to(device))
        except torch.OutOfMemoryError:
            raise
        except (_Arrived, RuntimeError, TypeError, AssertionError):
            pass  # a block that takes something else is not one of those that can be traced
    return found[0] if found else None


def _entered(seen: Probe, path: str) -> list[tuple[str, tuple[int, ...], Grid]]:
    """The attention and what it lies in, as far as one map or its tokens enter it: from inside."""
    names = [path]
    while parent := names[-1].rpartition(".")[0]:
        names.append(parent)
    shapes = {name: seen.entered[name] for name in names if name in seen.entered}
    grids = ((name, shape, _grid(seen, shape)) for name, shape in shapes.items())
    return [(name, shape, grid) for name, shape, grid in grids if grid is not None]


def _grid(seen: Probe, shape: tuple[int, ...]) -> Grid | None:
    traits = seen.network.traits
    if shape[0] != 1 or len(shape) not in (3, 4):
        return None
    if len(shape) == 4:
        return map_grid(traits, shape, seen.image_size)
    grid = tokens_grid(traits, shape[1], image_size=seen.image_size)
    return grid if grid is not None and grid.prefix_tokens == 0 else None


def _send_on_the_way(
    seen: Probe, block: str, path: str, numbers: Tensor, form: tuple[int, int]
) -> Tensor | None:
    """What the first projection of an attention is given when `numbers` enter a block on the way.

    For blocks that take more than a map, and for attention that makes its windows itself.
    """
    model = seen.network.module
    device = next(model.parameters()).device
    catcher = _FirstProjection(form)

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        return (numbers.to(device), *args[1:])

    def let_pass(_module: nn.Module, args: tuple[Any, ...], output: object) -> Any:
        keeps_shape = isinstance(output, Tensor) and args and output.shape == args[0].shape
        return args[0] if keeps_shape else None

    def listen(_module: nn.Module, _args: object) -> None:
        catcher.begin()

    with ExitStack() as stack:
        stack.callback(catcher.end)
        stack.callback(model.get_submodule(block).register_forward_pre_hook(enter).remove)
        for name, layer in model.get_submodule(block).named_modules(prefix=block):
            on_the_way = f"{path}.".startswith(f"{name}.") or name.startswith(f"{path}.")
            if not on_the_way:
                stack.callback(layer.register_forward_hook(let_pass).remove)
        stack.callback(model.get_submodule(path).register_forward_pre_hook(listen).remove)
        _run(seen)
    return catcher.arrived


def _run(seen: Probe) -> None:
    """Send an image through the network as far as it goes."""
    network = seen.network
    with torch.inference_mode():
        try:
            network.forward(random_image(network, seen.image_size), classify=False)
        except torch.OutOfMemoryError:
            raise
        except (_Arrived, RuntimeError, TypeError, AssertionError):
            pass  # numbers are no activations: what is computed of them may not go on


class _FirstProjection(TorchFunctionMode):
    """Keeps what the first linear layer over windows is given, and ends the pass there."""

    def __init__(self, form: tuple[int, int]) -> None:
        super().__init__()
        self.arrived: Tensor | None = None
        self._form = form
        self._in_force = False

    def begin(self) -> None:
        if not self._in_force:
            self._in_force = True
            self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        if self._in_force:
            self._in_force = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.linear and tuple(args[0].shape[:-1]) == self._form:
            self.arrived = args[0].detach().cpu()
            raise _Arrived
        return func(*args, **(kwargs or {}))

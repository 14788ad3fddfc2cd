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

from artifactgen.introspect.grid import Grid, map_grid
from artifactgen.introspect.probe import Probe


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
    if grid is None:
        return None
    arrived = _send(seen.network.module, block, path, _numbers(grid, shape))
    if arrived is None or arrived.ndim < 3:
        return None
    positions = arrived[..., 0].reshape(len(arrived), -1).round().long().numpy() - 1
    once = np.bincount(positions[positions >= 0], minlength=grid.height * grid.width)
    if positions.shape != (windows, tokens) or not (once == 1).all():
        return None
    return Windows(grid, positions)


def _numbers(grid: Grid, shape: tuple[int, ...]) -> Tensor:
    """A map of that shape, each position having its number from 1 in all channels."""
    numbers = torch.arange(1, grid.height * grid.width + 1, dtype=torch.float32).view(grid.size)
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

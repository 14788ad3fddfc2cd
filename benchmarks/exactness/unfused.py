"""Attention as a model computes it when nothing is fused: the reference for every architecture.

Independent of how the program reads attention: the model runs a second time, with timm's own
unfused code where it has any and torch's documented formula in place of
`scaled_dot_product_attention` where it has none, and every softmax is written down. What the
numbers mean (heads, prefix tokens, windows) is said by the caller.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import patch

import torch
from timm.models.maxxvit import grid_partition
from timm.models.swin_transformer import window_partition
from torch import Tensor, nn
from torch.nn import functional


def unfused_weights(model: nn.Module, x_BCHW: Tensor) -> Mapping[str, list[Tensor]]:
    """Every softmax of a forward pass, by the path of the module that computes it."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    stack: list[str] = []
    plain = torch.Tensor.softmax

    def keep(scores: Tensor, dim: int, **options: Any) -> Tensor:
        weights = plain(scores, dim, **options)
        seen[stack[-1]].append(weights)
        return weights

    with ExitStack() as undo, torch.no_grad():
        undo.enter_context(_without_fusion(model))
        undo.enter_context(_paths(model, stack))
        undo.enter_context(patch.object(torch.Tensor, "softmax", keep))
        undo.enter_context(patch.object(torch, "softmax", keep))
        undo.enter_context(patch.object(functional, "scaled_dot_product_attention", _explicit))
        model(x_BCHW)
    return seen


@contextmanager
def _without_fusion(model: nn.Module) -> Iterator[None]:
    fused = [m for m in model.modules() if getattr(m, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of `nn.MultiheadAttention`
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast)
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]


@contextmanager
def _paths(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the paths of the modules at work, a softmax module going by its parent."""
    hooks = []
    for path, module in model.named_modules():
        name = path.rpartition(".")[0] if isinstance(module, nn.Softmax) else path
        hooks.append(module.register_forward_pre_hook(lambda _m, _i, name=name: stack.append(name)))
        hooks.append(module.register_forward_hook(lambda _m, _i, _o: _pop(stack)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _pop(stack: list[str]) -> None:
    stack.pop()


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The formula in the documentation of `torch.nn.functional.scaled_dot_product_attention`."""
    assert not dropout_p
    assert not is_causal
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        masks = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if masks else scores + attn_mask
    return scores.softmax(-1) @ value


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowForm:
    """How an architecture cuts its map into windows."""

    size: tuple[int, int]
    """Positions of a window; of the grid's cells for `grid`."""
    shift: tuple[int, int] = (0, 0)
    by: Literal["window", "grid"] = "window"
    """Neighbours together, or every n-th position (MaxViT's grid attention)."""

    def slots(self, grid: tuple[int, int]) -> Tensor:
        """(windows, tokens): position in the grid, row by row; -1 for padding at the ends."""
        height, width = grid
        numbers = torch.arange(1, height * width + 1).view(1, height, width, 1)
        numbers = numbers.roll((-self.shift[0], -self.shift[1]), (1, 2))
        padding = (0, 0, 0, -width % self.size[1], 0, -height % self.size[0])
        numbers = functional.pad(numbers, padding)
        cut = window_partition if self.by == "window" else grid_partition
        windows: Tensor = cut(numbers, self.size)
        return windows.reshape(len(windows), -1) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a picture of attention shows, as known of the architecture."""

    layer: str
    heads: int
    grid: tuple[int, int]
    prefix: int = 0
    """Keys before the patches."""
    query: Literal["class", "pool", "patches"] = "patches"
    """The first query, or the mean over those that are not before the patches."""
    windows: WindowForm | None = None

    def expected(self, weights: Tensor, batch: int) -> Tensor:
        """(B, A, h, w) of a softmax in the layout of the architecture."""
        if self.windows is not None:
            rows_BAN = self._image_matrix(weights, batch).mean(2)
        else:
            weights_BAMN = weights.reshape(batch, self.heads, *weights.shape[-2:])
            queries = weights_BAMN.shape[2]
            skipped = 0 if self.query != "patches" or queries == 1 else self.prefix
            last = 1 if self.query != "patches" else queries
            rows_BAN = weights_BAMN[:, :, skipped:last].mean(2)
        return rows_BAN[..., self.prefix :].reshape(batch, self.heads, *self.grid)

    def _image_matrix(self, weights: Tensor, batch: int) -> Tensor:
        """(B, A, N, N) between all positions of the image, zero from window to window."""
        assert self.windows is not None
        slots_WN = self.windows.slots(self.grid)
        weights = weights.reshape(batch, len(slots_WN), self.heads, *weights.shape[-2:])
        positions = self.grid[0] * self.grid[1]
        matrix_BANN = torch.zeros(batch, self.heads, positions, positions)
        for window, slots_N in enumerate(slots_WN):
            real = slots_N >= 0
            inside = weights[:, window][:, :, real][:, :, :, real]
            index = slots_N[real]
            matrix_BANN[:, :, index[:, None], index[None]] = inside
        return matrix_BANN

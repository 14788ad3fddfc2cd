"""What to keep of a block's attention while a forward pass goes through it.

Each of these takes the weights (B, A, M, N) of a block, from M queries to N keys in A heads, and
keeps what the figure shows. The weights of all queries are the largest thing in a transformer, so
they exist for a few images at a time only, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from artifactgen.introspect.attention import AttentionCall
from artifactgen.introspect.windows import Windows

_CHUNK_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class FirstRow:
    """The weights from the first query, a class token or the only one: (B, A, N)."""

    heads: int

    def __call__(self, call: AttentionCall) -> Tensor:
        return _with_heads(call.weights(slice(0, 1)), self.heads)[..., 0, :]


@dataclass(frozen=True, slots=True)
class MeanRow:
    """The mean over queries: (B, A, N)."""

    heads: int
    skipped: int = 0
    """Queries to leave out: the tokens before the patches."""

    def __call__(self, call: AttentionCall) -> Tensor:
        queries = slice(self.skipped, None)
        mean = _in_chunks(
            call, self.heads, lambda rows: call.weights(queries, rows).mean(-2, keepdim=True)
        )
        return _with_heads(mean, self.heads)[..., 0, :]


@dataclass(frozen=True, slots=True)
class HeadMean:
    """The mean over heads: (B, M, N)."""

    heads: int

    def __call__(self, call: AttentionCall) -> Tensor:
        return _in_chunks(
            call, self.heads, lambda rows: _with_heads(call.weights(rows=rows), self.heads).mean(1)
        )


@dataclass(frozen=True, slots=True)
class WindowMean:
    """The mean over all queries of the image, each of which sees its own window only: (B, A, N).

    The same as `MeanRow` of the whole image's matrix, zero between windows. Padding, which some
    models let positions attend to, is no query, and its share as a key is not shown.
    """

    heads: int
    windows: Windows

    def __call__(self, call: AttentionCall) -> Tensor:
        weights_XAMN = _with_heads(call.weights(), self.heads)
        is_query_WN, places_N = _places(self.windows, weights_XAMN.device)
        weights_BWAMN = torch.unflatten(weights_XAMN, 0, (-1, len(is_query_WN)))
        received_BWAN = torch.einsum("bwamn,wm->bwan", weights_BWAMN, is_query_WN)
        by_window_BAX = received_BWAN.transpose(1, 2).flatten(2)
        return by_window_BAX[..., places_N] / len(places_N)


@cache
def _places(windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which tokens of windows are positions (W, N), and where each position of the grid is held."""
    positions_X = torch.from_numpy(windows.positions).flatten()
    held = (positions_X >= 0).nonzero()[:, 0]
    is_query_WN = torch.from_numpy(windows.positions >= 0).float()
    return is_query_WN.to(device), held[positions_X[held].argsort()].to(device)


def rollout(attention_BNN: Sequence[Tensor], query: slice) -> Tensor:
    """Attention from a query of the last block to every token of the input, (B, N).

    The row of a product of matrices, taken from the last block to the first, so that only a vector
    goes along: r ← r (A + I) / 2. Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928.

    Args:
        attention_BNN: of each block, heads averaged, first to last.
        query: of the tokens; the mean is taken over several.
    """
    rows = attention_BNN[-1]
    start_N = torch.zeros(rows.shape[-1], device=rows.device)
    start_N[query] = 1
    row_BN = (start_N / start_N.sum()).expand(len(rows), -1)
    for matrix_BNN in reversed(attention_BNN):
        row_BN = (torch.einsum("bm,bmn->bn", row_BN, matrix_BNN) + row_BN) / 2
    return row_BN


def _in_chunks(call: AttentionCall, heads: int, read: Callable[[slice], Tensor]) -> Tensor:
    """Read a few rows of the batch at a time, whole images even where heads lie in the batch."""
    batch, *others = call.shape
    row_bytes = 4 * torch.Size(others).numel()
    step = max(1, _CHUNK_BYTES // row_bytes)
    if len(others) == 2:
        step = max(1, step // heads) * heads
    return torch.cat([read(slice(start, start + step)) for start in range(0, batch, step)])


def _with_heads(weights: Tensor, heads: int) -> Tensor:
    """(B, A, M, N) of weights whose heads may lie in the batch."""
    return weights if weights.ndim == 4 else torch.unflatten(weights, 0, (-1, heads))

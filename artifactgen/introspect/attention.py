"""Attention as a model computes it, whatever the architecture.

Rather than repeating each architecture's projections, norms, rotary embeddings and relative
position biases, the arguments of `scaled_dot_product_attention` are read, or the result of the
softmax where attention is not fused. So fused attention stays on, and what is read is what the
model used: Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One computation of attention, fused (queries and keys) or not (weights).

    Leading dimensions are the batch and whatever the model shares it out by: heads, windows.
    """

    query: Tensor | None = None
    """(…, M, d), after norms and rotary embeddings."""
    key: Tensor | None = None
    """(…, N, d)"""
    value: Tensor | None = None
    """(…, N, d)"""
    bias: Tensor | None = None
    """Added to the scores, or a boolean mask, broadcast to (…, M, N)."""
    scale: float = 1.0
    softmax: Tensor | None = None
    """(…, M, N)"""

    @property
    def device(self) -> torch.device:
        """Where it was computed."""
        tensor = self.query if self.softmax is None else self.softmax
        assert tensor is not None
        return tensor.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights, (…, M, N)."""
        if self.softmax is not None:
            return tuple(self.softmax.shape)
        assert self.query is not None
        assert self.key is not None
        return (*self.query.shape[:-1], self.key.shape[-2])

    def weights(self, queries: slice = slice(None), rows: slice = slice(None)) -> Tensor:
        """softmax(q·kᵀ·scale + bias) of some queries, and of some rows of the batch, in float32.

        Args:
            queries: of the M.
            rows: of the first dimension.

        Returns:
            (…, M, N), M and the first dimension cut to what was asked for.
        """
        if self.softmax is not None:
            return self.softmax[rows][..., queries, :].float()
        assert self.query is not None
        assert self.key is not None
        query, key = self.query[rows][..., queries, :].float(), self.key[rows].float()
        if key.shape[-3] != query.shape[-3]:  # one key for all heads (multi-query attention)
            key = key.expand(*query.shape[:-2], *key.shape[-2:])
        scores = (query * self.scale) @ key.transpose(-2, -1)
        return self._biased(scores, queries, rows).softmax(-1)

    def _biased(self, scores: Tensor, queries: slice, rows: slice) -> Tensor:
        if self.bias is None:
            return scores
        bias = self.bias
        if bias.ndim == scores.ndim and len(bias) > 1:
            bias = bias[rows]
        if bias.shape[-2] > 1:
            bias = bias[..., queries, :]
        if bias.dtype == torch.bool:
            return scores.masked_fill(~bias, float("-inf"))
        return scores + bias.float()


def attention_call(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
) -> AttentionCall | None:
    """A function of torch as a computation of attention; None if it is not one."""
    if func is functional.scaled_dot_product_attention:
        return _fused(*args, **kwargs)
    if func in _SOFTMAX and result.ndim >= 3:
        over_last = _softmax_dim(*args, **kwargs) in (-1, result.ndim - 1)
        return AttentionCall(softmax=result.detach()) if over_last else None
    return None


def _softmax_dim(_input: Tensor, dim: int | None = None, *_args: Any, **_kwargs: Any) -> int | None:
    return dim


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """The arguments of torch's function, by the names that it has."""
    if is_causal:
        shape = query.shape[-2], key.shape[-2]
        attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    return AttentionCall(
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        bias=None if attn_mask is None else attn_mask.detach(),
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
    )


class Interceptor(TorchFunctionMode):
    """Sees the functions of torch that a model calls; in force only while it has something to do.

    There is one for a whole pass, since such modes must end in the reverse order of their begin,
    which a layer tapped inside of another one would break.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_force = False
        self._in_float32 = False
        self._listening: list[list[AttentionCall]] = []

    def listen(self) -> None:
        """Gather the attention computed from now on, until `heard`."""
        self._listening.append([])
        self._begin()

    def heard(self) -> list[AttentionCall]:
        """The attention computed since the last `listen`."""
        # After an exception before `listen`, torch still calls the hook that asks.
        calls = self._listening.pop() if self._listening else []
        if not self._listening and not self._in_float32:
            self.stop()
        return calls

    def compute_in_float32(self) -> None:
        """Compute in float32 from now on what arrives in less: what autocast left behind it."""
        self._in_float32 = True
        self._begin()

    def stop(self) -> None:
        """Let everything pass again."""
        if self._in_force:
            self._in_force = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _begin(self) -> None:
        if not self._in_force:
            self._in_force = True
            self.__enter__()  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self._in_float32:
            args, kwargs = tree_map_only(Tensor, _to_float32, (args, kwargs))
        if self._listening and func is functional.multi_head_attention_forward:
            return self._of_torch_layer(args, kwargs)
        result = func(*args, **kwargs)
        if self._listening and (call := attention_call(func, args, kwargs, result)):
            self._listening[-1].append(call)
        return result

    def _of_torch_layer(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """What `nn.MultiheadAttention` calls: a whole layer in one function of torch's own.

        What it calls in turn is not seen from here, so it is asked for its weights.
        """
        wanted, averaged = (
            kwargs.get(name, True) for name in ("need_weights", "average_attn_weights")
        )
        asked = {**kwargs, "need_weights": True, "average_attn_weights": False}
        output, weights = functional.multi_head_attention_forward(*args, **asked)
        assert weights is not None
        self._listening[-1].append(AttentionCall(softmax=weights.detach()))
        if not wanted:
            return output, None
        return output, weights.mean(-3) if averaged else weights


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor

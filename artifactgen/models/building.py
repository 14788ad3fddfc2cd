"""Build a model that gets all of its weights from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from artifactgen.models.base import Family, Network

_FILLS = frozenset(
    f"{name}_"
    for name in (
        *("fill", "zero", "zeros", "ones", "constant", "copy"),
        *("normal", "uniform", "trunc_normal", "erfinv", "mul", "div", "add", "clamp"),
        *("kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform"),
    )
)
"""In-place functions of torch and `torch.nn.init` with which layers initialise parameters."""


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves parameters as allocated: all of them come from a checkpoint a moment later.

    Random numbers for a ViT-L take longer than reading its checkpoint.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and getattr(func, "__name__", "") in _FILLS:
            return target
        return func(*args, **kwargs)


def built(family: Family) -> Network:
    """The network of a family, its parameters as they were allocated, if it needs no others.

    Raises:
        ConfigError: the model does not exist, or does not take one of the options.
    """
    with nullcontext() if family.looks_inside else _WithoutInitialisation():
        return family.build()

"""Forms of what is stated: what is no number, name or size of the kind is not read as one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, get_args

from artifactgen.models.scopes import Scope

_COUNTED = re.compile(r"LABEL_\d+")
"""What Hugging Face calls classes without names."""
_LEAST_STD = 0.05
"""Of pixels in [0, 1]; weights are initialised with less."""
_MOST_PIXELS = 16384


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def count(key: str, scope: Scope) -> int | None:
    """A whole number above 0."""
    value = scope.values.get(key)
    return value if _is_count(value) else None


def class_names(key: str, scope: Scope) -> tuple[str, ...] | None:
    """Names in the order of their indices, of a list or of either direction of a mapping.

    None where they only count, and for `labels` of a model, which could be anything.
    """
    value = scope.values.get(key) if key != "labels" or scope.of != "model" else None
    if isinstance(value, Mapping):
        pairs = value.items()
        by_index = {int(k): v for k, v in pairs if k.isdecimal() and isinstance(v, str)}
        by_index |= {v: k for k, v in pairs if isinstance(v, int)}
        if sorted(by_index) != list(range(len(value))):
            return None
        value = [by_index[index] for index in range(len(value))]
    if not isinstance(value, list) or not value:
        return None
    distinct = all(isinstance(name, str) for name in value) and len(set(value)) == len(value)
    return tuple(value) if distinct and not _only_count(value) else None


def _only_count(names: list[str]) -> bool:
    """Whether they are numbers in their order, or placeholders: `0, 1`, `LABEL_0, LABEL_1`."""
    counts = ([str(first + i) for i in range(len(names))] for first in (0, 1))
    return names in counts or all(map(_COUNTED.fullmatch, names))


def size(key: str, scope: Scope) -> tuple[int, int] | None:
    """(H, W) of one side, of both, or of (C, H, W).

    Of a model's input and resolution, only what cannot be the width of a layer or of a grid.
    """
    value = scope.values.get(key)
    sides = value if isinstance(value, list) else [value, value]
    if not all(_is_count(side) and side <= _MOST_PIXELS for side in sides):
        return None
    if key == "resolution" and scope.of != "images":
        return None
    if key == "input_size" and scope.of == "model" and len(sides) != len("CHW"):
        return None
    return tuple(sides[-2:]) if len(sides) in (2, 3) and min(sides[-2:]) >= 8 else None


def share(key: str, scope: Scope) -> float | None:
    """A number above 0 and at most 1."""
    value: Any = scope.values.get(key)
    return float(value) if _is_number(value) and 0 < value <= 1 else None


def choice(of: Any) -> Callable[[str, Scope], str | None]:
    """One of the texts of a `Literal`."""

    def form(key: str, scope: Scope) -> str | None:
        value = scope.values.get(key)
        return value if value in get_args(of) else None

    return form


def normalization(
    of_mean: str, of_std: str
) -> Callable[[str, Scope], tuple[tuple[float, ...], tuple[float, ...]] | None]:
    """Mean and std that are said in the same place, for pixels in [0, 1] or in [0, 255].

    A plain `mean` and `std` may be those of an initialisation: of a model, only lists are read.
    """
    least = _LEAST_STD if of_mean == "mean" else 0.0

    def form(_: str, scope: Scope) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        mean, std = _numbers(scope.values.get(of_mean)), _numbers(scope.values.get(of_std))
        if not mean or len(mean) != len(std) or min(std) <= 0:
            return None
        if of_mean == "mean" and scope.of == "model" and not isinstance(scope.values["mean"], list):
            return None
        of_bytes = min(std) > 1 and min(mean) >= 0 and max(*mean, *std) <= 255
        scale = 255 if of_bytes else 1
        if max(map(abs, mean)) > scale or max(std) > scale or min(std) < least * scale:
            return None
        return tuple(value / scale for value in mean), tuple(value / scale for value in std)

    return form


def _numbers(value: Any) -> tuple[float, ...]:
    """A number or a list of them; empty for anything else."""
    values = value if isinstance(value, list) else [value]
    return tuple(map(float, values)) if all(map(_is_number, values)) else ()

"""What an artifact needs of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from artifactgen.introspect.attention import AttentionCall

T = TypeVar("T")

Reader = Callable[["AttentionCall"], Any]
"""What to keep of a block's attention; the rest is gone when the block is done."""


@dataclass(frozen=True, slots=True)
class Taps:
    """What an artifact needs of a forward pass; layers by module path."""

    outputs: tuple[str, ...] = ()
    """Layers whose output to look at."""
    inputs: tuple[str, ...] = ()
    """Layers whose (first) input to look at."""
    attention: tuple[tuple[str, Reader], ...] = ()
    """Layers that compute attention, and what to keep of it."""
    gradients: tuple[str, ...] = ()
    """Layers whose output to look at and to differentiate logits by."""

    @staticmethod
    def union(taps: Iterable[Taps]) -> Taps:
        """What all of them need together, each once."""
        every = list(taps)
        return Taps(
            outputs=_once(tap.outputs for tap in every),
            inputs=_once(tap.inputs for tap in every),
            attention=_once(tap.attention for tap in every),
            gradients=_once(tap.gradients for tap in every),
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Every layer that is looked at."""
        readers = tuple(path for path, _ in self.attention)
        return _once((self.outputs, self.inputs, readers, self.gradients))


def _once(groups: Iterable[Iterable[T]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))

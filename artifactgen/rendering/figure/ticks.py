"""Round numbers along a colour bar."""

from __future__ import annotations

import math


def tick_labels(top: float, *, spacing: float, clipped: bool) -> list[tuple[float, str]]:
    """Positions along a colour bar from 0 to `top`, as fractions of it, and their labels.

    About four round numbers; with `clipped` also the end, as the least of all values there.

    Args:
        top: value at the end of the bar.
        spacing: least distance between two labels, as a fraction of the bar.
        clipped: whether there are values above `top`.

    >>> [label for _, label in tick_labels(0.05, spacing=0.1, clipped=True)]
    ['0', '0.02', '0.04', '≥0.050']
    """
    if top <= 0:
        return [(0.0, "0")]
    step = _round_up(top * max(0.25, spacing))
    count = math.floor(top / step + 1e-9)
    ticks = [(k * step / top, _number(k * step, step)) for k in range(count + 1)]
    if not clipped:
        return ticks
    below = [tick for tick in ticks if tick[0] <= 1 - spacing]
    return [*below, (1.0, f"≥{_number(top, step / 10)}")]


def with_mark(
    ticks: list[tuple[float, str]], mark: tuple[float, str], *, spacing: float
) -> list[tuple[float, str]]:
    """The ticks with one more, which takes the place of those too near to it, but for the zero.

    >>> with_mark([(0.0, "0"), (0.4, "0.02"), (0.8, "0.04")], (0.45, "1/45"), spacing=0.1)
    [(0.0, '0'), (0.45, '1/45'), (0.8, '0.04')]
    """
    zero, *others = ticks
    if mark[0] - zero[0] < spacing:
        return ticks
    far = [tick for tick in others if abs(tick[0] - mark[0]) >= spacing]
    return sorted([zero, *far, mark])


def _round_up(value: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def _number(value: float, step: float) -> str:
    """With the digits that tell multiples of `step` apart; scientific where they are too many."""
    if value == 0:
        return "0"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{digits}f}" if digits <= 4 else f"{value:.1e}"

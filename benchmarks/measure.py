"""Timing: two ways of doing the same, turn by turn in one process.

It is CPU time of the process, which what else the machine does hardly changes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median CPU seconds of a reference and of ours."""

    reference_s: float
    ours_s: float

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.reference_s / self.ours_s

    def cells(self) -> str:
        """Reference, ours and ratio, as cells of a Markdown row."""
        return f"{_time(self.reference_s)} | {_time(self.ours_s)} | {self.ratio:.1f} ×"


def compare(
    reference: Callable[[], object], ours: Callable[[], object], *, runs: int, repeat: int = 1
) -> Comparison:
    """Time both by turns, so that a slow minute of the machine falls on both.

    Args:
        reference: done once in each run, after one that is not counted.
        ours: likewise.
        runs: of each; the median counts.
        repeat: how often ours is done in a run, where once is too short for the clock.
    """
    reference()
    ours()
    seconds = [(_seconds(reference), _seconds(ours, repeat)) for _ in range(runs)]
    return Comparison(
        statistics.median(pair[0] for pair in seconds),
        statistics.median(pair[1] for pair in seconds),
    )


def _seconds(work: Callable[[], object], repeat: int = 1) -> float:
    start = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - start) / repeat


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"

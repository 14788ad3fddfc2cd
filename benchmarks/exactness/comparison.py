"""A reference and ours, as a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.speed.timing import interleave


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median seconds of a reference and of ours."""

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

    def ours_repeated() -> None:
        for _ in range(repeat):
            ours()

    timings = interleave({"reference": reference, "ours": ours_repeated}, rounds=runs)
    return Comparison(timings.median_s("reference"), timings.median_s("ours") / repeat)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"

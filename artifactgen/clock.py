"""Where the time goes: seconds by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

Item = TypeVar("Item")


class Clock:
    """Adds up wall-clock seconds by stage, as one thread sees them."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.started = datetime.now().astimezone()
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Charge the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Charge the time that it takes to get each item to a stage."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def with_total(self) -> dict[str, float]:
        """By stage, and `total` since the start, to the millisecond."""
        total = time.perf_counter() - self._start
        return {name: round(s, 3) for name, s in {**self.seconds, "total": total}.items()}

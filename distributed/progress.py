"""How far a run is: a live bar on a terminal, a line every some seconds in a log file."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from artifactgen.types import Receipt

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0


class Meter:
    """Counts records; knows rate and estimated time left."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self.failures = 0
        self._done_at_start = done
        self._start = time.monotonic()

    def add(self, receipt: Receipt) -> None:
        """Count a committed shard."""
        self.done += receipt.records + len(receipt.failures)
        self.failures += len(receipt.failures)

    @property
    def per_second(self) -> float:
        """Records per second since the start."""
        elapsed = time.monotonic() - self._start
        return (self.done - self._done_at_start) / elapsed if elapsed > 0 else 0.0

    def line(self) -> str:
        """`1,200 of 5,000 records (24 %), 310 records/s, 0:00:12 left, 3 failed`."""
        left = (self.total - self.done) / self.per_second if self.per_second else None
        return (
            f"{self.done:,} of {self.total:,} records ({100 * self.done // max(self.total, 1)} %), "
            f"{self.per_second:.1f} records/s, {duration(left)} left, {self.failures} failed"
        )


def duration(seconds: float | None) -> str:
    """`1:02:03`, or `unknown`.

    >>> duration(3723)
    '1:02:03'
    """
    if seconds is None:
        return "unknown"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def watch(receipts: Iterable[Receipt], *, total: int, done: int) -> Iterator[Receipt]:
    """Pass receipts on, and show how far the run is.

    Args:
        receipts: as shards are committed.
        total: records of the run.
        done: of them, those that were done before.
    """
    meter = Meter(total, done)
    console = Console(stderr=True)
    yield from _bar(receipts, meter, console) if console.is_terminal else _lines(receipts, meter)


def _bar(receipts: Iterable[Receipt], meter: Meter, console: Console) -> Iterator[Receipt]:
    columns = (
        TextColumn("records"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failures]} failed"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=meter.total, completed=meter.done, rate=0.0, failures=0)
        for receipt in receipts:
            meter.add(receipt)
            progress.update(
                bar, completed=meter.done, rate=meter.per_second, failures=meter.failures
            )
            yield receipt


def _lines(receipts: Iterable[Receipt], meter: Meter) -> Iterator[Receipt]:
    last = time.monotonic()
    for receipt in receipts:
        meter.add(receipt)
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S or meter.done == meter.total:
            log.info(meter.line())
            last = now
        yield receipt

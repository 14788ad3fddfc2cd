"""The lines that tell how far a run is."""

from __future__ import annotations

import pytest

from artifactgen.types import Failure, Receipt, Shard
from distributed import progress
from distributed.progress import Meter, duration, watch


def receipt(start: int, stop: int, *, failed: int = 0) -> Receipt:
    failures = tuple(
        Failure(f"r{row}", "train", row, "read", "why") for row in range(start, start + failed)
    )
    shard = Shard("train", start, start, stop)
    return Receipt(shard, len(shard) - failed, "node1", "cpu", failures)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"),
        (0, "0:00:00"),
        (59.6, "0:01:00"),
        (3723, "1:02:03"),
        (360_000, "100:00:00"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_meter_rates_only_what_this_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("distributed.progress.time.monotonic", lambda: now[0])
    meter = Meter(1200, 1000)
    assert meter.line() == "1,000 of 1,200 records (83 %), 0.0 records/s, unknown left, 0 failed"
    now[0] += 10
    meter.add(receipt(0, 100, failed=3))
    assert meter.line() == "1,100 of 1,200 records (91 %), 10.0 records/s, 0:00:10 left, 3 failed"


def test_watch_passes_receipts_on_and_says_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(progress.log, "info", told.append)
    receipts = [receipt(0, 2), receipt(2, 4), receipt(4, 6)]
    assert list(watch(receipts, total=6, done=0)) == receipts
    (line,) = told
    assert line.startswith("6 of 6 records (100 %), ")

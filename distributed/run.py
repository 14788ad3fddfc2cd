"""What a run is: its settings, what was built for them, and its plan."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from artifactgen.plan import Scope
from artifactgen.reducer import merged
from artifactgen.store.layout import Layout
from distributed.build import Built
from distributed.planning import plan_records, plan_splits
from distributed.settings import Settings


@dataclass(slots=True)
class Phases:
    """Seconds of the run by phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())
    _start: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Charge the block to a phase."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def with_total(self) -> dict[str, float]:
        """By phase, and `total` since the start."""
        return {**self.seconds, "total": round(time.perf_counter() - self._start, 3)}


@dataclass(frozen=True, slots=True)
class Run:
    """One command, and everything that was built for it."""

    settings: Settings
    built: Built
    command: str
    """Typed again, it resumes the run."""
    configuration: Mapping[str, Any]
    scopes: tuple[Scope, ...]
    phases: Phases

    @property
    def layout(self) -> Layout:
        return self.built.job.layout

    def result(self, scope: str) -> dict[str, Any] | None:
        """What a scope was merged to with these settings; None where that is still to be done."""
        return merged(self.layout, scope, fingerprint=self.built.job.fingerprint)


def plan(settings: Settings, built: Built) -> tuple[Scope, ...]:
    """The scopes of a run: the splits, or the records that were asked for by id."""
    splits, batch_size = built.job.catalog.splits, built.job.batch_size
    scopes = plan_splits(splits, batch_size=batch_size, limit=settings.limit)
    if settings.record_id:
        return (plan_records(scopes, splits, settings.record_id, batch_size=batch_size),)
    return tuple(scopes)

"""How far runs are whose jobs are too many for their logs to be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from artifactgen.store.atomic import read_json
from artifactgen.store.layout import Layout, ScopeLayout

log = logging.getLogger(__name__)

_TELL_S = 30.0


class ShardCount:
    """Says now and then how many shards are done; their entries are counted, and not read."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        """Count those of some output directories."""
        self._layouts = layouts
        self._told = time.monotonic()
        self._last = ""

    def tell(self) -> None:
        """Say it, where that is due and new."""
        if not self._layouts or time.monotonic() - self._told < _TELL_S:
            return
        self._told = time.monotonic()
        counts = [_count(layout) for layout in self._layouts]
        done, planned = (sum(count) for count in zip(*counts, strict=True))
        line = f"{done:,} of {planned:,} shards are done" if planned else ""
        if line not in ("", self._last):
            self._last = line
            log.info(line)


def _count(layout: Layout) -> tuple[int, int]:
    """Shards of a run that are done, and that are planned."""
    done = planned = 0
    for plan in (layout.state / "scopes").glob("*/plan.json"):
        try:
            planned += read_json(plan)["shards"]
        except (OSError, ValueError, KeyError):  # it is just being opened
            continue
        done += sum(1 for _ in ScopeLayout(plan.parent).ledger.glob("*.json"))
    return done, planned

"""How far runs are whose jobs are too many for their logs to be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from artifactgen.errors import ArtifactGenError
from artifactgen.store.layout import Layout
from distributed.status import Progress, read_progress

log = logging.getLogger(__name__)

_TELL_S = 30.0


class RecordCount:
    """Says now and then how many records are done."""

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
        done, planned = self._count()
        line = f"{done:,} of {planned:,} records are done" if planned else ""
        if line not in ("", self._last):
            self._last = line
            log.info(line)

    def _count(self) -> tuple[int, int]:
        """Records that are done, and planned, of the runs that have begun."""
        scopes = [s for layout in self._layouts for s in _scopes(layout)]
        return sum(s.records_done for s in scopes), sum(s.records for s in scopes)


def _scopes(layout: Layout) -> list[Progress]:
    try:
        return list(read_progress(layout.root))
    except (ArtifactGenError, OSError, ValueError):  # it is just being opened
        return []

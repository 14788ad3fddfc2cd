"""Nothing that a job has started outlives it, wherever it has moved."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 5.0
_PAUSE_S = 0.02


@contextmanager
def ending_descendants() -> Iterator[None]:
    """Adopt what is orphaned below this process; after the block, end and reap all of it.

    What init adopts, SLURM neither ends nor counts (`proctrack/linuxproc`). See
    PR_SET_CHILD_SUBREAPER in prctl(2).
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        deadline = time.monotonic() + _PATIENCE_S
        while _end_children() and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)  # theirs are ours in the next round


def _end_children() -> bool:
    """Kill children, and reap those that are dead; whether there were any."""
    for child in _children():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _children() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            # The name may hold anything, and stands in brackets; then come state and parent.
            after_name = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2]
            if int(after_name.split()[1]) == os.getpid():
                yield int(process.name)

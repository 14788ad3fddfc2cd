"""Timing: several ways of doing the same, turn by turn in one process."""

from __future__ import annotations

import ctypes
import gc
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of each way in each round."""

    seconds: Mapping[str, tuple[float, ...]]

    def median_s(self, way: str) -> float:
        """The median over rounds."""
        return statistics.median(self.seconds[way])

    def ratio(self, way: str, *, over: str) -> float:
        """How often longer one way takes than another: the median of the rounds' ratios."""
        pairs = zip(self.seconds[way], self.seconds[over], strict=True)
        return statistics.median(ours / other for ours, other in pairs)


def interleave(ways: Mapping[str, Work], *, rounds: int) -> Timings:
    """Time all ways in each round, so that what else the machine does falls on all alike.

    Args:
        ways: each done once before, which is not counted. Every other round goes backwards.
        rounds: how often.
    """
    for work in ways.values():
        work()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for index in range(rounds):
        for way in list(ways)[:: -1 if index % 2 else 1]:
            start = now_s()
            ways[way]()
            seconds[way].append(now_s() - start)
    return Timings({way: tuple(taken) for way, taken in seconds.items()})


def now_s() -> float:
    """Seconds of the wall clock; with one thread on a CPU, those that this process computed.

    The two are the same on an idle machine, and on a busy one the second does not see the others.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def peak_growth_mb(work: Work) -> float:
    """By how many MB the resident memory of this process rises at most while it works (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is in use
    before_kb = _status_kb("VmRSS")
    work()
    return (_status_kb("VmHWM") - before_kb) / 1024


def _status_kb(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None, name
    return int(found[1])


def machine(*packages: str) -> str:
    """One line for below a table: processor, threads, versions."""
    threads = torch.get_num_threads()
    clock = "CPU seconds" if threads == 1 else "wall clock"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", *packages))
    python = ".".join(map(str, sys.version_info[:2]))
    return f"{_processor()}, {threads} thread(s), {clock}; Python {python}, {versions}"


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()

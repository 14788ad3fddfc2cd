"""A Ray of our own: connected to, kept quiet, and left; on one machine also started and ended."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TextIO, cast

import ray

from artifactgen.errors import RunError
from distributed.runners.ray_environment import TOKEN, ray_environment, ray_files, ray_variables
from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_node import OBJECT_STORE_BYTES

log = logging.getLogger(__name__)

_START_S = 120.0
_INTERRUPTED_S = 5.0
_END_S = 10.0
_LEAVE_S = 2.0
"""Its processes are ended by those that have started them."""
_THREADS_END_S = 3.0
_WITHOUT = (
    "Run the same command again; debug=true shows what Ray says. cluster=inline goes without Ray."
)
_RAYS_THREADS = "ray_"


@dataclass(frozen=True, slots=True)
class RaySession:
    """A Ray that this process drives."""

    files: Path
    """Folder of what Ray's processes write on this machine."""
    notes: Path
    """Folder that every worker sees, wherever it runs."""


@contextmanager
def local_ray(workers: int) -> Iterator[RaySession]:
    """A private Ray on this machine; any other one is left alone.

    Raises:
        RunError: it did not start.
    """
    who = "1 worker" if workers == 1 else f"{workers} workers"
    log.info("Ray: starting %s (about ten seconds)", who)
    options = {
        "address": "local",
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    with private_folder() as folder:
        # A local Ray switches authentication on, where it has it.
        variables = {**ray_variables(folder, token=TOKEN, quiet=_quiet()), "RAY_AUTH_MODE": None}
        own = {**options, "_temp_dir": str(ray_files(folder))}
        with ray_environment(variables), _driving(folder, own, end_s=_END_S):
            yield RaySession(ray_files(folder), folder)


@contextmanager
def joined_ray(address: str, *, files: Path, notes: Path) -> Iterator[RaySession]:
    """Drive a Ray that was started with `TOKEN`; its environment must be set already.

    Args:
        address: `host:port` of its head, on this machine.
        files: folder of the head.
        notes: folder that every worker sees.

    Raises:
        RunError: it does not answer.
    """
    with _driving(files, {"address": address}, end_s=_LEAVE_S):
        yield RaySession(ray_files(files), notes)


def living_nodes() -> list[str]:
    """Names of the nodes that have joined the Ray which this process drives."""
    return [node["NodeName"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _driving(folder: Path, options: Mapping[str, Any], *, end_s: float) -> Iterator[None]:
    quiet = _quiet()
    with (
        _without_rays_lines() if quiet else nullcontext(),
        # Ray's processes end with the thread that has started them, so that it must live on.
        ThreadPool(1, _name_thread) as thread,
    ):
        try:
            _start(thread, folder, options, quiet=quiet)
            with _new_threads_joined():
                yield
        finally:
            thread.apply_async(ray.shutdown).wait(end_s)
            # Past Python, Ray has left SIGTERM at its default, which ends a process without a word.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _quiet() -> bool:
    return not log.isEnabledFor(logging.DEBUG)


def _name_thread() -> None:
    """As Ray names its own."""
    threading.current_thread().name = f"{_RAYS_THREADS}start"


def _start(thread: ThreadPool, folder: Path, options: Mapping[str, Any], *, quiet: bool) -> None:
    level = logging.ERROR if quiet else logging.WARNING
    options = {**options, "logging_level": level, "log_to_driver": not quiet}
    errors: list[BaseException] = []
    with _sigterm_kept(), _stderr_to(folder / "start.err") if quiet else nullcontext():
        start = thread.apply_async(ray.init, kwds=options, error_callback=errors.append)
        try:
            start.wait(_START_S)
        except KeyboardInterrupt:
            start.wait(_INTERRUPTED_S)  # it cannot be stopped half way
            raise
    if errors:
        reason = str(errors[0]).strip().partition("\n")[0]
        raise RunError(f"Ray did not start: {reason}\n{_WITHOUT}") from errors[0]
    if not start.ready():
        raise RunError(f"Ray did not start within {_START_S:.0f} s.\n{_WITHOUT}")


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what SIGTERM does: Ray's own handler would end the process without a word."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """What is written past Python, as Ray's own code does while it starts, goes into a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _NotFromRay(io.TextIOBase):
    """A stream that drops what Ray's threads print, of workers that died and the like."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        of_ray = threading.current_thread().name.startswith(_RAYS_THREADS)
        return len(text) if of_ray else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def _without_rays_lines() -> Iterator[None]:
    """Keep them from standard output: what matters of them we tell ourselves."""
    with redirect_stdout(cast(TextIO, _NotFromRay(sys.stdout))):
        yield


@contextmanager
def _new_threads_joined() -> Iterator[None]:
    """Let the threads of Ray Data end, for a bounded time; one of them waits for work forever.

    A thread that calls into Ray after its shutdown ends the process at once, with exit code 1 and
    without a word (`core_worker_process.cc`, "The core worker has already been shutdown").
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        deadline = time.monotonic() + _THREADS_END_S
        for thread in set(threading.enumerate()) - before:
            thread.join(max(0.0, deadline - time.monotonic()))

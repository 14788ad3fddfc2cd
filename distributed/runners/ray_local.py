"""A Ray of our own on this machine: started, kept quiet, and ended."""

from __future__ import annotations

import io
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TextIO, cast

import ray

from artifactgen.errors import RunError
from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_janitor import MARK

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 200 * 1024**2
"""Descriptors and receipts are all that passes through it."""
_START_S = 120.0
_INTERRUPTED_S = 5.0
_END_S = 10.0
_THREADS_END_S = 3.0
_WITHOUT = (
    "Run the same command again; debug=true shows what Ray says. cluster=inline goes without Ray."
)
_RAYS_THREADS = "ray_"
_TOKEN = secrets.token_hex(32)
"""One for each process: Ray reads it once. Without it, Ray writes one into the user's home."""


@contextmanager
def local_ray(workers: int) -> Iterator[Path]:
    """A private Ray; any other one is left alone. Gives the folder of its files.

    Raises:
        RunError: it did not start.
    """
    quiet = not log.isEnabledFor(logging.DEBUG)
    with (
        private_folder() as folder,
        _environment(_variables(folder, quiet=quiet)),
        _without_rays_lines() if quiet else nullcontext(),
        # Ray's processes end with the thread that has started them, so that it must live on.
        ThreadPool(1, _name_thread) as thread,
    ):
        try:
            _start(thread, folder, workers, quiet=quiet)
            with _new_threads_joined():
                yield folder
        finally:
            thread.apply_async(ray.shutdown).wait(_END_S)


def _name_thread() -> None:
    """As Ray names its own."""
    threading.current_thread().name = f"{_RAYS_THREADS}start"


def _variables(folder: Path, *, quiet: bool) -> dict[str, str | None]:
    """The environment that Ray needs, and what of the user's it must not see."""
    return {
        MARK: str(folder),
        "RAY_AUTH_TOKEN": _TOKEN,
        "RAY_AUTH_MODE": None,  # a local Ray switches it on, where it has it
        "RAY_ADDRESS": None,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        **({"RAY_BACKEND_LOG_LEVEL": "fatal"} if quiet else {}),
    }


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or take them out, for a block; what Ray adds goes with it."""
    before = _of_ray(os.environ)
    os.environ.update({name: value for name, value in variables.items() if value is not None})
    for name in (name for name, value in variables.items() if value is None):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in _of_ray(os.environ):
            del os.environ[name]
        os.environ.update(before)


def _of_ray(environment: Mapping[str, str]) -> dict[str, str]:
    names = ("RAY_", MARK, "PYTHONBREAKPOINT")
    return {name: value for name, value in environment.items() if name.startswith(names)}


def _start(thread: ThreadPool, folder: Path, workers: int, *, quiet: bool) -> None:
    who = "1 worker" if workers == 1 else f"{workers} workers"
    log.info("Ray: starting %s (about ten seconds)", who)
    options = {
        "address": "local",
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "logging_level": logging.ERROR if quiet else logging.WARNING,
        "log_to_driver": not quiet,
        "_temp_dir": str(folder),
    }
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

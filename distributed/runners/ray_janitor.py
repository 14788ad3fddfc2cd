"""Beside a run with Ray, in a process of its own: ends and removes whatever the run leaves.

The run holds the other end of the pipe on standard input. The pipe closes when the run is over,
and also when it is killed without a word, so that nothing has to be remembered. This file is run
by its path, with Python alone, and imports nothing of the program.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "ARTIFACTGEN_RAY"
"""Names the run's folder in the environment of every process that Ray starts for it."""
_OF_THE_RUN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PATIENCE_S = 10.0
_PAUSE_S = 0.02


def main() -> None:
    """Wait for the end of the run; then end its processes and remove its folder."""
    folder = sys.argv[1]
    for number in _OF_THE_RUN:  # a scheduler sends them to every process of a job
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    deadline = time.monotonic() + _PATIENCE_S
    while _still_there(folder) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


def _still_there(folder: str) -> bool:
    """End and remove what is left; whether there was anything, which may have left more."""
    left = list(_processes_of(folder))
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    return bool(left) or Path(folder).exists()


def _processes_of(folder: str) -> Iterator[int]:
    """Living processes that were started for a run, wherever they have moved since."""
    run = Path("/proc") / str(os.getppid())  # it goes on, with Ray's log of it open
    for process in Path("/proc").glob("[0-9]*"):
        if process == run:
            continue
        with suppress(OSError):  # another user's, or gone meanwhile
            if _is_marked(process, folder) or _writes_to(process, folder):
                yield int(process.name)


def _is_marked(process: Path, folder: str) -> bool:
    return f"{MARK}={folder}".encode() in (process / "environ").read_bytes().split(b"\0")


def _writes_to(process: Path, folder: str) -> bool:
    """Whether it has a file of the run open to write: one with a title has lost its environment."""
    return any(
        Path(folder) in file.readlink().parents and _is_written(process / "fdinfo" / file.name)
        for file in (process / "fd").iterdir()
    )


def _is_written(info: Path) -> bool:
    """By the flags in proc_pid_fdinfo(5), which are octal."""
    flags = next(line.split()[1] for line in info.read_text().splitlines() if "flags" in line)
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


if __name__ == "__main__":
    main()

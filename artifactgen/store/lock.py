"""One run at a time for an output directory.

The lock is an advisory `flock` on a file. The kernel releases it when its owner dies, however it
dies, so a dead run never blocks the next one, and a live one is never taken over.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from artifactgen.errors import OutputError

_TRIES, _SECONDS_BETWEEN_TRIES = 4, 0.05


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock for the block.

    Raises:
        OutputError: another run holds it; the message names its host, process and job.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _acquire(file):
            file.seek(0)
            raise OutputError(_refusal(path, file.read()))
        file.truncate(0)
        file.write(json.dumps(_owner()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _acquire(file: TextIO) -> bool:
    """Try for a moment: an owner that has just begun says who it is, one that ends is gone."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except OSError as error:
            raise OutputError(
                f"{file.name}: this file system has no locks ({error.strerror}), so two runs "
                "could write at once. Give an output_dir on another one, or mount it with locks "
                "(Lustre: -o flock)."
            ) from error
        else:
            return True
    return False


def owner(path: Path) -> str | None:
    """Host, process and job of the run that holds the lock; None if no run does."""
    if not path.exists():
        return None
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _describe(file.read())
    return None


def _owner() -> dict[str, str | int]:
    owner: dict[str, str | int] = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    job = os.environ.get("SLURM_JOB_ID")
    return {**owner, "slurm_job": job} if job else owner


def _refusal(path: Path, owner_json: str) -> str:
    return (
        f"Another run is writing to {path.parent.parent} ({_describe(owner_json)}).\n"
        "Wait for it, stop it, or give another output_dir."
    )


def _describe(owner_json: str) -> str:
    try:
        return ", ".join(f"{key} {value}" for key, value in json.loads(owner_json).items())
    except json.JSONDecodeError:
        return "just starting or ending"

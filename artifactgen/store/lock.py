"""One run at a time for an output directory; a run may be shared by several jobs, its parts.

The lock is an advisory `flock` on a file. The kernel releases it when its owner dies, however it
dies, so a dead run never blocks the next one, and a live one is never taken over. The parts of a
run hold it shared, and each of them a file of its own, `lock.0`, for itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from artifactgen.errors import OutputError
from artifactgen.types import Part

_TRIES, _SECONDS_BETWEEN_TRIES = 4, 0.05


@contextmanager
def lock(path: Path, *, part: Part | None = None) -> Iterator[None]:
    """Hold the lock for the block, alone or beside the other parts of a run.

    Raises:
        OutputError: another run holds it, or this part of the run; the message names its host,
            process and job.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if part is None:
        with _held(path, fcntl.LOCK_EX) as file, _signed(file, _owner()):
            yield
        return
    own = _lock_of(path, part)
    signature = {**_owner(), "part": part_name(part)}
    # First its own file: whoever is refused by a shared lock finds who shares it.
    with (
        _held(own, fcntl.LOCK_EX) as file,
        _signed(file, signature),
        _held(path, fcntl.LOCK_SH),
    ):
        _require_same_cut(path, part)
        yield


def part_name(part: Part) -> str:
    """For people, who count from one: `3 of 8`."""
    return f"{part.index + 1} of {part.count}"


def try_lock(file: TextIO, operation: int) -> bool:
    """Take, change or give back a lock without waiting; whether it worked.

    A change that did not work may have given back what was held before.

    Raises:
        OutputError: the file system has no locks.
    """
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f"{file.name}: this file system has no locks ({error.strerror}), so two runs "
            "could write at once. Give an output_dir on another one, or mount it with locks "
            "(Lustre: -o flock)."
        ) from error
    return True


def owner(path: Path) -> str | None:
    """Host, process and job of the run that holds the lock, of each of its parts; None if none."""
    alone = _held_by(path)
    texts = parts_at_work(path) if alone is None else [alone]
    return "; ".join(map(_describe, texts)) or None


def parts_at_work(path: Path, *, but: Part | None = None) -> list[str]:
    """What the parts of a run wrote into their files that hold the lock now, as JSON.

    Args:
        path: of the lock.
        but: the part that asks.
    """
    files = path.parent.glob(f"{path.name}.*")
    numbers = sorted(int(file.suffix[1:]) for file in files if file.suffix[1:].isdecimal())
    others = [number for number in numbers if but is None or number != but.index]
    texts = (_held_by(path.with_name(f"{path.name}.{number}")) for number in others)
    return [text for text in texts if text is not None]


def _lock_of(path: Path, part: Part) -> Path:
    return path.with_name(f"{path.name}.{part.index}")


@contextmanager
def _held(path: Path, operation: int) -> Iterator[TextIO]:
    # Locks of NFS want files that are open for reading where they are shared, else for writing.
    with path.open("a+", encoding="utf-8") as file:
        if not _acquire(file, operation):
            raise OutputError(_refusal(path))
        yield file


def _acquire(file: TextIO, operation: int) -> bool:
    """Try for a moment: an owner that has just begun says who it is, one that ends is gone."""
    for _ in range(_TRIES):
        if try_lock(file, operation):
            return True
        time.sleep(_SECONDS_BETWEEN_TRIES)
    return False


@contextmanager
def _signed(file: TextIO, signature: dict[str, str | int]) -> Iterator[None]:
    """The file says who holds it, for the block."""
    file.truncate(0)
    file.write(json.dumps(signature))
    file.flush()
    try:
        yield
    finally:
        file.truncate(0)


def _require_same_cut(path: Path, part: Part) -> None:
    """`OutputError` where a run is at work that is cut into more or fewer parts."""
    for text in parts_at_work(path, but=part):
        name = str(_fields(text).get("part", ""))
        if name and not name.endswith(f" of {part.count}"):
            raise OutputError(
                f"{path.parent.parent} is at work in another number of parts: this is part "
                f"{part_name(part)}, and there is {_describe(text)}.\nWait for them, or stop them."
            )


def _held_by(path: Path) -> str | None:
    """What its holder wrote into a file that is held exclusively; None where nobody holds it so."""
    try:
        with path.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
    except FileNotFoundError:
        return None
    return None


def _owner() -> dict[str, str | int]:
    owner: dict[str, str | int] = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    job = slurm_job(os.environ)
    return {**owner, "slurm_job": job} if job else owner


def slurm_job(environment: Mapping[str, str]) -> str | None:
    """The job of a process as SLURM's commands take it: `1234`, of an array `1234_7`."""
    array, task = (environment.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def _refusal(path: Path) -> str:
    return (
        f"Another run is writing to {path.parent.parent} ({owner(path) or _describe('')}).\n"
        "Wait for it, stop it, or give another output_dir."
    )


def _describe(owner_json: str) -> str:
    facts = _fields(owner_json)
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or "just starting or ending"


def _fields(owner_json: str) -> dict[str, str | int]:
    try:
        fields: dict[str, str | int] = json.loads(owner_json)
    except json.JSONDecodeError:
        return {}
    return fields

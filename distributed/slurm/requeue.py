"""A job that stops before its time limit, and goes on when SLURM starts it again.

SLURM sends USR2 some time before the limit (`--signal=USR2@120` of sbatch), and some sites before a
preemption too. What is committed stays; the job is requeued under its id, and resumes.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from artifactgen.errors import LostNodeError, NoProgressError, RequeuedError, RunError
from distributed.slurm.allocation import Allocation
from distributed.slurm.queue import left_s

log = logging.getLogger(__name__)

_NEAR_S = 600
"""A warning with so little time left is of the time limit, else of a preemption."""
_ASK_S = 30


@dataclass(slots=True)
class Life:
    """From the start of a job to its end, or to its next start."""

    committed: int = 0
    """Shards."""
    is_at_shards: bool = False
    """Whether shards are under way, rather than what comes before or after them."""
    is_warned: bool = False
    """Whether SLURM has said that the end is near."""


@contextmanager
def requeueing(allocation: Allocation, folder: Path, *, limit: int) -> Iterator[Life]:
    """Interrupt the block when SLURM warns; when it has ended in order, requeue the job.

    Args:
        allocation: of this process.
        folder: that outlives the job, to count in.
        limit: how often a job that met its time limit is requeued.

    Raises:
        RequeuedError: it was; this process is to end.
        RunError: it must not be, since it does not get on.
    """
    life = Life()

    def warn(_signal: int, _frame: FrameType | None) -> None:
        if not life.is_warned:
            life.is_warned = True
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, warn)
    try:
        yield life
    except KeyboardInterrupt:
        if life.is_warned:
            _requeue(allocation, folder, life, limit)
        raise
    except LostNodeError as error:
        # SLURM notices it minutes later than we do; then the job would be there no more.
        if life.committed:
            log.error(str(error))
            _requeue(allocation, folder, life, limit)
        raise
    else:
        with suppress(OSError):  # there is none, mostly
            _timeouts(folder, allocation).unlink()
    finally:
        signal.signal(signal.SIGUSR2, before)


def _requeue(allocation: Allocation, folder: Path, life: Life, limit: int) -> None:
    why = "preempted"
    left = left_s(allocation.job_id)
    if not life.is_warned:
        why = "a node was lost"
    elif left is None or left <= _NEAR_S:
        count = _count(_timeouts(folder, allocation))
        _require_progress(life)
        if count > limit:
            raise RunError(
                f"The time limit is near, and the job has met it {count} times, more than "
                f"max_num_timeout={limit} allows."
            )
        why = f"time limit, {count} of at most {limit}"
    refused = _ask_to_requeue(allocation.job_id)
    if refused is not None:
        raise RunError(f"Job {allocation.job_id} cannot be requeued: {refused}")
    raise RequeuedError(f"Job {allocation.job_id} is requeued ({why}), and will go on.")


def _require_progress(life: Life) -> None:
    """`NoProgressError` where the next start would not get further than this one."""
    if life.committed:
        return
    if life.is_at_shards:
        what = "not one shard was finished in this start of the job"
        remedy = " (hydra.launcher.timeout_min), or make shards smaller (data.batch_size)."
    else:
        what = "this start of the job spent all of it on reading, checking or merging"
        remedy = " (hydra.launcher.timeout_min)."
    raise NoProgressError(
        f"The time limit is near, and {what}, so that starting it again would not help. Ask for "
        f"more time{remedy}"
    )


def _timeouts(folder: Path, allocation: Allocation) -> Path:
    """A file with a line for each time limit that a job has met."""
    return folder / f"timeouts-{allocation.job_id}"


def _ask_to_requeue(job_id: str) -> str | None:
    """Put the job back into the queue; what is said where that is refused."""
    command = ["scontrol", "requeue", job_id]
    # SLURM ends this job at once: neither the command, which inherits this, nor the end is cut off.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:  # a container without it, a busy SLURM
        return str(error)
    return answer.stderr.strip() if answer.returncode else None


def _count(path: Path) -> int:
    """Count one more."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(f"{time.time():.0f}\n")
        return len(path.read_text("ascii").split())
    return 1

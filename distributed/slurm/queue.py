"""What SLURM says of jobs: `squeue` of those that it has, `sacct` of those that it remembers.

`squeue` is asked first: it alone knows that a job that was preempted, or lost a node, is pending
again, and it keeps a job for some minutes after its end (MinJobAge, 300 s). `sacct` fails where
there is no accounting; then a job that ended before that is unknown.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNKNOWN = "UNKNOWN"
OVER = frozenset(
    [
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    ]
)
"""Of the states of squeue(1) and sacct(1), those that a job does not leave by itself."""

_LIMIT_S = 20.0
_SQUEUE = ("squeue", "--noheader", "--all", "--array", "--states=all")
_SQUEUE_FIELDS = ("JobArrayID", "State", "exit_code", "NodeList", "RestartCnt", "TimeUsed")
_FORMAT = ",".join(f"{name}:|" for name in (*_SQUEUE_FIELDS, "Reason"))
_SACCT = ("sacct", "--allocations", "--noheader", "--parsable2")
_SACCT_FIELDS = "JobID,State,ExitCode,NodeList,Elapsed"
_NOT_SAID = ("", "None", "(null)", "None assigned", "N/A")


@dataclass(frozen=True, slots=True)
class JobState:
    """What is known of a job."""

    job_id: str
    state: str
    """As `squeue` spells it, such as `PENDING`; else `UNKNOWN`."""
    reason: str = ""
    """Why it is pending or has failed; why the state is unknown."""
    exit_code: str = ""
    """Exit code and signal, `1:0`."""
    nodes: str = ""
    restarts: int = 0
    """How often it was requeued."""
    elapsed_s: int = 0
    """Since it started, the last time that it did."""
    answered: bool = True
    """False where SLURM itself could not be asked."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good; never because SLURM did not answer."""
        return self.state in OVER or (self.state == UNKNOWN and self.answered)


def has_slurm() -> bool:
    """Whether this machine has the commands of SLURM."""
    return shutil.which("squeue") is not None


def ask(job_ids: Sequence[str]) -> dict[str, JobState]:
    """The states of jobs, by id.

    Args:
        job_ids: such as `1234`; a task of an array as `1234_7`.
    """
    if not job_ids:
        return {}
    try:
        found = _in_queue(job_ids)
    except _NoAnswerError as error:
        why = str(error)
        return {id_: JobState(id_, UNKNOWN, reason=why, answered=False) for id_ in job_ids}
    missing = [id_ for id_ in job_ids if id_ not in found]
    found |= _remembered(missing) if missing else {}
    return {id_: found.get(id_) or _forgotten(id_) for id_ in job_ids}


def left_s(job_id: str) -> int | None:
    """Seconds until the time limit of a job that runs; None where SLURM does not tell."""
    try:
        told = _run([*_SQUEUE, f"--jobs={job_id}", "--format=%L"]).strip()
    except _NoAnswerError:
        return None
    if told == "UNLIMITED":
        return sys.maxsize
    return _seconds(told) if ":" in told else None


class _NoAnswerError(Exception):
    """A command of SLURM said nothing that can be used."""


def _forgotten(job_id: str) -> JobState:
    return JobState(job_id, UNKNOWN, reason="SLURM does not know it any more")


def _in_queue(job_ids: Sequence[str]) -> dict[str, JobState]:
    """What `squeue` knows.

    Raises:
        _NoAnswerError: it did not answer.
    """
    try:
        told = _run([*_SQUEUE, f"--Format={_FORMAT}", f"--jobs={','.join(job_ids)}"])
    except _NoAnswerError as error:
        if "Invalid job id" in str(error):  # of a single one; among several it leaves it out
            return {}
        raise
    found = parse_squeue(told)
    if told.strip() and not found:
        raise _NoAnswerError(f"squeue answered {told.splitlines()[0]!r}")
    return found


def _remembered(job_ids: Sequence[str]) -> Mapping[str, JobState]:
    """What `sacct` knows of jobs that have left the queue; nothing without accounting."""
    try:
        told = _run([*_SACCT, f"--format={_SACCT_FIELDS}", f"--jobs={','.join(job_ids)}"])
    except _NoAnswerError:
        return {}
    # Jobs that it believes to be running had their end lost: the queue does not have them.
    return {id_: job for id_, job in parse_sacct(told).items() if job.state in OVER}


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            env=_environment(),
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _NoAnswerError(_why(command[0], error)) from error
    return done.stdout


def _environment() -> dict[str, str]:
    """Ours without SQUEUE_USERS, SQUEUE_PARTITION and others, which would hide jobs."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}


def _why(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {name} on this machine"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{name} did not answer in {_LIMIT_S:.0f} s"
    if isinstance(error, subprocess.CalledProcessError) and error.stderr.strip():
        return str(error.stderr.strip().splitlines()[-1])
    return f"{name} failed"


def parse_squeue(text: str) -> dict[str, JobState]:
    """States out of what `squeue` prints in our format; other lines are left out."""
    rows = (line.split("|", len(_SQUEUE_FIELDS)) for line in text.splitlines())
    return {row[0].strip(): _of_squeue(row) for row in rows if len(row) == len(_SQUEUE_FIELDS) + 1}


def _of_squeue(row: Sequence[str]) -> JobState:
    job_id, state, exit_code, nodes, restarts, elapsed, reason = map(_said, row)
    return JobState(
        job_id,
        _state_name(state),
        reason=_said(reason.removesuffix("|")),
        exit_code=_exit_code(exit_code),
        nodes=nodes,
        restarts=int(restarts) if restarts.isdigit() else 0,
        elapsed_s=_seconds(elapsed),
    )


def parse_sacct(text: str) -> dict[str, JobState]:
    """States out of what `sacct` prints in our format; pending tasks stay folded, `12_[3-7]`."""
    rows: Iterable[Sequence[str]] = (line.split("|") for line in text.splitlines())
    return {
        row[0]: JobState(
            row[0],
            _state_name(row[1]),
            exit_code=row[2],
            nodes=_said(row[3]),
            elapsed_s=_seconds(row[4]),
        )
        for row in rows
        if len(row) == 5
    }


def _state_name(text: str) -> str:
    """`CANCELLED` of `CANCELLED by 1000`, and of `CANCELLED+`, which was cut."""
    return (text.split() or [UNKNOWN])[0].rstrip("+")


def _said(text: str) -> str:
    return "" if text.strip() in _NOT_SAID else text.strip()


def _exit_code(text: str) -> str:
    """`3:0` of `768`: `squeue` gives what wait(2) does."""
    return f"{int(text) >> 8 & 0xFF}:{int(text) & 0x7F}" if text.isdigit() else text


def _seconds(text: str) -> int:
    """Of `[days-][hours:]minutes:seconds`; 0 for anything else, such as `INVALID`.

    >>> _seconds("1-00:00:07")
    86407
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    days, hours, minutes, seconds = (
        (int(part or 0) for part in found.groups()) if found else [0] * 4
    )
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

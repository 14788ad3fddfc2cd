"""How a job ended: by its own word in a file beside its log, else by what SLURM says."""

from __future__ import annotations

import signal
from pathlib import Path

from artifactgen.store.atomic import read_json
from distributed.slurm.queue import JobState
from distributed.slurm.submissions import Submission

_MEANINGS = {
    "BOOT_FAIL": "A node did not start.",
    "CANCELLED": "Somebody has cancelled it: scancel, or an administrator.",
    "COMPLETED": "Its script ended without an error, but the program in it did not say how it did.",
    "DEADLINE": "Its deadline is over.",
    "NODE_FAIL": "A node was lost, and SLURM has not put the job back into the queue.",
    "OUT_OF_MEMORY": "It needed more memory than it had asked for: raise hydra.launcher.mem_gb, "
    "or lower data.batch_size.",
    "PREEMPTED": "Another job took its place, and SLURM has not put it back into the queue.",
    "TIMEOUT": "Its time was over, and it was not put back into the queue (again): raise "
    "hydra.launcher.timeout_min or hydra.launcher.max_num_timeout.",
    "UNKNOWN": "How it ended is not known: SLURM has forgotten it, and has no accounting (sacct).",
}


_NEVER = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints")


def never(state: JobState) -> str:
    """What to add to the reason why a job is pending, where it will be so forever."""
    if state.reason not in _NEVER:
        return ""
    return ": it asks for what no node or partition has, such as cores, and will not start so"


def outcome_path(folder: Path, job_id: str) -> Path:
    """Where a job that ends in order says how, as `{"exit_code": 0}`, beside its log."""
    return folder / f"outcome-{job_id}.json"


def read_outcome(job: Submission) -> int | None:
    """The exit code that a job has left; None where it has left none that can be read."""
    try:
        return int(read_json(outcome_path(Path(job.log).parent, job.job_id))["exit_code"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def explain(state: JobState) -> str:
    """What it means that SLURM calls a job so."""
    if state.state in _MEANINGS:
        return _MEANINGS[state.state]
    number = _signal(state.exit_code)
    if number == signal.SIGKILL:
        return (
            "It was killed (signal 9). Where memory was short, the kernel did that: raise "
            "hydra.launcher.mem_gb, or lower data.batch_size."
        )
    if number:
        return f"It was ended by signal {number}."
    return "It failed before or outside of the program: its log says more."


def _signal(exit_code: str) -> int:
    """9 of `0:9`, and of `137:0`, by which a shell says so; else 0."""
    code, _, number = exit_code.partition(":")
    if number.isdigit() and int(number):
        return int(number)
    return int(code) - 128 if code.isdigit() and int(code) > 128 else 0

"""What is in the queue for an output directory, in lines for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifactgen.store.layout import Layout
from distributed.progress import duration
from distributed.slurm.queue import JobState, ask, has_slurm
from distributed.slurm.submissions import Submission, submissions

Job = tuple[Submission, JobState]


@dataclass(frozen=True, slots=True)
class Overview:
    """The jobs of an output directory."""

    lines: tuple[str, ...]
    """A line for each job, or for an array."""
    in_queue: tuple[str, ...]
    """Ids of the jobs that are pending or running; an array's once."""
    is_certain: bool
    """Whether SLURM has answered, or there was nothing to ask."""


def look(layout: Layout, *, complete: bool) -> Overview:
    """Ask SLURM for the jobs of an output directory.

    Args:
        layout: of the directory.
        complete: whether the run is: then jobs that are over do not matter.
    """
    submitted = submissions(layout)
    if submitted and not has_slurm():
        return Overview(() if complete else (_no_slurm(submitted),), (), False)
    states = ask([job.job_id for job in submitted])
    known = [(job, states[job.job_id]) for job in submitted]
    if not all(state.answered for _, state in known):
        return Overview(() if complete else tuple(_lines(known)), (), False)
    live = dict.fromkeys(_whole(job.job_id) for job, state in known if not state.is_over)
    return Overview(tuple(_lines(_that_matter(known, complete=complete))), tuple(live), True)


def _no_slurm(submitted: Sequence[Submission]) -> str:
    ids = ", ".join(dict.fromkeys(_whole(job.job_id) for job in submitted))
    return f"No SLURM on this machine (no squeue): what became of job {ids} is not known."


def _whole(job_id: str) -> str:
    """`12` of the task `12_3` of an array."""
    return job_id.partition("_")[0]


def _that_matter(known: Sequence[Job], *, complete: bool) -> Iterator[Job]:
    """Jobs that are not over, and the last that were submitted, if anything is left to do."""
    for job, state in known:
        last = known[-1][0]
        is_last = job.submitted == last.submitted or _whole(job.job_id) == _whole(last.job_id)
        if not state.is_over or (is_last and not complete):
            yield job, state


def _lines(jobs: Iterable[Job]) -> Iterator[str]:
    arrays: dict[str, list[Job]] = {}
    for job, state in jobs:
        arrays.setdefault(_whole(job.job_id), []).append((job, state))
    for whole, tasks in arrays.items():
        yield _array_line(whole, tasks) if tasks[1:] else _line(*tasks[0])


def _line(job: Submission, state: JobState) -> str:
    text = _state(state)
    if state.state == "RUNNING":
        text += f" on {state.nodes}, {duration(state.elapsed_s)}"
    elif state.is_over and state.exit_code not in ("", "0:0"):
        text += f", exit code {state.exit_code}"
    return f"Job {job.job_id}: {text}{_log(job)}"


def _state(state: JobState) -> str:
    """`PENDING (Resources)`; of one that has failed, the exit code says more than the reason."""
    told = state.state in ("PENDING", "UNKNOWN", "REQUEUE_HOLD", "SPECIAL_EXIT")
    return f"{state.state} ({state.reason})" if told and state.reason else state.state


def _log(job: Submission) -> str:
    return f"; log {job.log}" if Path(job.log).exists() else ""


def _array_line(whole: str, tasks: Sequence[Job]) -> str:
    counts = Counter(_state(state) for _, state in tasks)
    folders = dict.fromkeys(str(Path(job.log).parent) for job, _ in tasks)
    states = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"Job {whole}: {states}; logs in {', '.join(folders)}"

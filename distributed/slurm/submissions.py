"""Which jobs were submitted for an output directory: a small file for each, in the directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from artifactgen.store.atomic import read_json, write_json
from artifactgen.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that was submitted."""

    job_id: str
    """`1234`; of an array `1234_7`."""
    log: str
    """Absolute path of what its first rank prints."""
    submitted: str
    """When, in ISO 8601."""
    command: str
    """What was typed; typed again, it resumes the run."""


def remember(layout: Layout, submission: Submission) -> None:
    """Note a job in the output directory that it works for."""
    path = layout.jobs / f"{submission.job_id}.json"
    write_json(path, asdict(submission), temp_dir=layout.jobs)


def submissions(layout: Layout) -> Sequence[Submission]:
    """The jobs of an output directory, the first first; what is damaged is left out."""
    found = (_read(path) for path in layout.jobs.glob("*.json"))
    return sorted((job for job in found if job), key=lambda job: (job.submitted, job.job_id))


def _read(path: Path) -> Submission | None:
    try:
        return Submission(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None

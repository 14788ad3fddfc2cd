"""Runs are checked here, and submitted to SLURM: one job, or an array of them."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string

from artifactgen.errors import ConfigError
from distributed.process import RESUME
from distributed.request import Request
from distributed.run import Run
from distributed.slurm.check import check
from distributed.slurm.follow import follow
from distributed.slurm.options import JobOptions, job_options
from distributed.slurm.submissions import Submission, remember
from distributed.slurm.task import SlurmTask, made_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Member:
    """What one job does, and for which run."""

    run: Run
    request: Request


def submit(requests: Sequence[Request], given: Mapping[str, Any]) -> int:
    """Submit runs, after all of them were checked; follow them where that is wanted.

    Args:
        requests: a run each, with an output directory of its own.
        given: settings of the jobs, see `JobOptions`.

    Returns:
        The exit code.

    Raises:
        UsageError: something is wrong; nothing was submitted.
    """
    options = job_options(given)
    _require_distinct(requests)
    try:
        runs = [run for request in requests if (run := check(request, options))]
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted. Nothing was submitted.") from None
    members = [member for run in runs for member in _members(run, options)]
    if not members:
        return 0
    if runs[0].settings.dry_run:
        log.info("The script of the job:\n%s", script(options, jobs=len(members)))
        log.info("dry_run: nothing was written, nothing submitted.")
        return 0
    submitted = _submit(members, options)
    _tell(runs, submitted)
    for member, submission in zip(members, submitted, strict=True):
        _note(member.run, submission)
    if not runs[0].settings.wait:
        return 0
    code = follow(submitted, layouts=[run.layout for run in runs])
    return code or max(map(_incomplete, runs))


def _incomplete(run: Run) -> int:
    """1 where all jobs ended well and the run is not complete: a part of it was not submitted."""
    if run.settings.record_id or run.layout.success.exists():
        return 0
    log.error(
        "%s is not complete, though its jobs ended without an error; their logs say what is left. "
        "%s\n  %s",
        run.layout.root,
        RESUME,
        run.request.command,
    )
    return 1


def script(options: JobOptions, *, jobs: int) -> str:
    """The script that sbatch gets, as submitit writes it."""
    python = options.python or shlex.quote(sys.executable)
    folder = shlex.quote(str(options.submitit_folder))
    command = f"{python} -u -m submitit.core._submit {folder}"
    parameters = options.sbatch_parameters() | ({"map_count": jobs} if jobs > 1 else {})
    text: str = _make_sbatch_string(command, options.submitit_folder, **parameters)
    return text


def _require_distinct(requests: Sequence[Request]) -> None:
    counts = Counter(str(request.configuration["output_dir"]) for request in requests)
    shared = [folder for folder, count in counts.items() if count > 1]
    if shared:
        raise ConfigError(f"{shared[0]} would be the output directory of several jobs.")


def _members(run: Run, options: JobOptions) -> Iterator[_Member]:
    """The jobs of a run: one, or as many as share it."""
    cluster = run.settings.cluster.options
    jobs = cluster.get("jobs", 1)
    for index in range(jobs):
        changed = dict(run.request.configuration["cluster"])
        changed |= {"job": index, "max_num_timeout": options.max_num_timeout}
        changed |= {"log_dir": str(Path(cluster["log_dir"]).absolute())}
        configuration = {**run.request.configuration, "cluster": changed}
        configuration["output_dir"] = str(run.layout.root)
        yield _Member(run, replace(run.request, configuration=configuration))


def _note(run: Run, submission: Submission) -> None:
    try:
        remember(run.layout, submission)
    except OSError as error:  # the job is queued all the same
        log.warning(
            "WARNING: The job could not be noted in %s (%s): distributed.status will not know it.",
            run.layout.root,
            error,
        )


def _submit(members: Sequence[_Member], options: JobOptions) -> list[Submission]:
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise ConfigError(
            "There is no SLURM on this machine (srun is not found). Submit from a login node of "
            "the cluster; dry_run=true prints the script here as well."
        )
    program = made_of()
    try:
        executor = submitit.SlurmExecutor(
            options.submitit_folder, max_num_timeout=options.max_num_timeout, python=options.python
        )
        executor.update_parameters(**options.sbatch_parameters())
        with _outside_of_any_job():
            jobs = executor.submit_array([SlurmTask(member.request, program) for member in members])
    except (FailedJobError, FailedSubmissionError) as error:
        said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
        raise ConfigError("SLURM refuses the job: " + ("\n".join(said) or str(error))) from error
    except OSError as error:
        raise ConfigError(
            f"hydra.launcher.submitit_folder={options.submitit_folder}: {error}. Give a folder "
            "that can be written, and that all nodes see."
        ) from error
    for link in options.log_dir.glob(".submission_file_*.sh"):
        if link.is_symlink():  # submitit's, to the script beside the job's log
            link.unlink(missing_ok=True)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return [
        Submission(job.job_id, str(job.paths.stdout), now, member.request.command)
        for job, member in zip(jobs, members, strict=True)
    ]


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Take out what a job that this process is in has set: sbatch hands all of it to the new one.

    Somebody may submit from an interactive job; its memory and cores are not those of the run.
    """
    of_job = [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]
    kept = {name: os.environ.pop(name) for name in of_job}
    try:
        yield
    finally:
        os.environ.update(kept)


def _tell(runs: Sequence[Run], submitted: Sequence[Submission]) -> None:
    ids = sorted({submission.job_id.partition("_")[0] for submission in submitted})
    many = f" ({len(submitted)} jobs of an array)" if submitted[1:] else ""
    log.info("Submitted job %s%s", ", ".join(ids), many)
    for submission in submitted[:3]:
        log.info("Log: %s", submission.log)
    for run in runs:
        log.info("Status: python -m distributed.status %s", run.layout.root)
    log.info("Cancel: scancel %s", " ".join(ids))

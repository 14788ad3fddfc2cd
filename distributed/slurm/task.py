"""What a job of SLURM does, on each of its ranks: it is pickled when the job is submitted."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artifactgen.store.atomic import write_json
from artifactgen.store.lock import slurm_job
from distributed.perform import perform
from distributed.process import INTERRUPTED, REQUEUED, begin_process, exit_code_of
from distributed.request import Request
from distributed.slurm.outcome import outcome_path
from distributed.versions import differences, source_files, versions

log = logging.getLogger(__name__)

_LISTED = 5


@dataclass(frozen=True, slots=True)
class SlurmTask:
    """A run, and what the program was made of when it was submitted."""

    request: Request
    made_of: Mapping[str, str]

    def __call__(self) -> None:
        """Do the run, or this rank's share of it; the process ends with its exit code."""
        begin_process()
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        if is_first:
            _outcome_path().unlink(missing_ok=True)  # of a former start
            self._tell_changes()
        code = exit_code_of(self._perform, command=self.request.command)
        if is_first and code not in (REQUEUED, INTERRUPTED):  # of these SLURM knows more
            _write_outcome(code)
        if code:
            sys.exit(code)

    def _perform(self) -> None:
        perform(self.request)

    def _tell_changes(self) -> None:
        """Say what of the program is another one than it was: a job takes what it finds."""
        changes = differences(self.made_of, made_of())
        if changes:
            more = f" and {len(changes) - _LISTED} more" if changes[_LISTED:] else ""
            log.warning(
                "WARNING: Since this job was submitted, the program has changed: %s%s. It runs as "
                "it is now.",
                ", ".join(changes[:_LISTED]),
                more,
            )


def made_of() -> dict[str, str]:
    """Versions, and a digest of each file of the program."""
    return {**versions(), **source_files()}


def _outcome_path() -> Path:
    job_id = slurm_job(os.environ)
    assert job_id is not None
    return outcome_path(Path(os.environ["SUBMITIT_FOLDER"].replace("%j", job_id)), job_id)


def _write_outcome(code: int) -> None:
    path = _outcome_path()
    try:
        write_json(path, {"exit_code": code}, temp_dir=path.parent)
    except OSError as error:  # what was done is done; SLURM has the exit code as well
        log.warning("WARNING: The exit code could not be noted: %s", error)

"""Small jobs on the real SLURM of the tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distributed.slurm.queue import JobState, ask

Submit = Callable[..., str]


@pytest.fixture
def submit(slurm: object, tmp_path: Path) -> Iterator[Submit]:
    """`submit(script, *options)` gives the id of the job; what is left is cancelled."""
    jobs: list[str] = []

    def sbatch(script: str, *options: str) -> str:
        command = ["sbatch", "--parsable", f"--output={tmp_path}/log/%x-%j.out", *options]
        told = subprocess.run(
            [*command, f"--chdir={tmp_path}"],
            input=f"#!/bin/bash\n{script}\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        jobs.append(told.stdout.strip())
        return jobs[-1]

    (tmp_path / "log").mkdir()
    yield sbatch
    if jobs:
        subprocess.run(["scancel", *jobs], check=False, timeout=60)


def wait_for_state(job_id: str, *names: str, timeout_s: float = 90) -> JobState:
    """The job's state, as soon as it is one of these."""
    deadline = time.monotonic() + timeout_s
    while (state := ask([job_id])[job_id]).state not in names:
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    return state

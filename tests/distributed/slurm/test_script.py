"""`slurm/artifacts.sbatch`, with a small program in place of ours: how it is run, and run again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers.slurm import DEV, Slurm

pytestmark = pytest.mark.slurm

SCRIPT = DEV.parent / "artifacts.sbatch"
PROGRAM = """\
#!/bin/bash
# The first rank decides how the job ends; the other waits for it, whatever it is told.
echo "$SLURM_PROCID of $SLURM_NTASKS, start ${SLURM_RESTART_COUNT:-0}, $SLURM_CPUS_PER_TASK: $*"
[[ -n ${SLURM_RESTART_COUNT:-} ]] && exit 0
case $SLURM_PROCID in
  0) trap 'touch done; exit CODE' USR2; trap 'touch done; exit 143' TERM ;;
  1) trap '' USR2 TERM ;;
esac
touch "up-$SLURM_PROCID"
until [[ -e done ]]; do sleep 0.1; done
"""


@pytest.fixture
def submit(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the script is submitted from; `generate_artifacts` is a program of the test."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(slurm: Slurm, folder: Path, *, code: int) -> str:
    """Submit the script; both ranks are up when this returns. Told to stop, it exits so."""
    program = folder / "generate_artifacts"
    program.write_text(PROGRAM.replace("CODE", str(code)))
    program.chmod(0o755)
    job = slurm.run("sbatch", "--parsable", "--cpus-per-task=1", str(SCRIPT), "splits=[train, val]")
    deadline = time.monotonic() + 60
    while len(list(folder.glob("up-*"))) < 2:
        assert time.monotonic() < deadline, slurm.show(job)
        time.sleep(0.1)
    return job


def test_told_to_stop_it_is_queued_again_and_goes_on(slurm: Slurm, submit: Path) -> None:
    job = start(slurm, submit, code=130)
    slurm.run("scancel", "--signal=USR2", job)
    slurm.wait_for(job, "COMPLETED")
    for rank in (0, 1):
        log = (submit / f"artifacts-{job}-{rank}.log").read_text().splitlines()
        assert [line for line in log if "start" in line] == [
            f"{rank} of 2, start {start}, 1: cluster=slurm splits=[train, val]" for start in (0, 1)
        ]


def test_a_failure_is_one(slurm: Slurm, submit: Path) -> None:
    job = start(slurm, submit, code=1)
    slurm.run("scancel", "--signal=USR2", job)
    slurm.wait_for(job, "FAILED")
    assert slurm.show(job)["ExitCode"] == "1:0"
    assert slurm.processes(job=job) == []


def test_a_job_that_was_cancelled_is_not_queued_again(slurm: Slurm, submit: Path) -> None:
    job = start(slurm, submit, code=130)
    slurm.cancel(job)
    assert slurm.state(job) == "CANCELLED"
    assert slurm.show(job)["Restarts"] == "0"
    assert slurm.processes(job=job) == []

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.jobs import Submit, wait_for_state

from artifactgen.store.layout import Layout
from distributed.slurm.submissions import Submission, remember
from distributed.status import report

RESUME = "Not running, not complete: run the same command again to resume."


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "run")


@pytest.fixture
def note(layout: Layout, tmp_path: Path) -> Callable[..., str]:
    """Note that a job was submitted; the path of its log."""

    def note(job_id: str, submitted: str = "2026-01-01T00:00:00") -> str:
        log = str(tmp_path / "log" / f"{job_id}.out")
        remember(layout, Submission(job_id, log, submitted, "generate_artifacts"))
        return log

    return note


Note = Callable[..., str]


def test_a_job_that_waits(submit: Submit, layout: Layout, note: Note) -> None:
    job_id = submit("true", "--hold")
    note(job_id)
    assert list(report(layout.root)) == [
        f"Job {job_id}: PENDING (JobHeldUser)",
        f"Not complete: job {job_id} is in the queue. To cancel: scancel {job_id}",
    ]


def test_a_job_that_runs_and_what_was_before(submit: Submit, layout: Layout, note: Note) -> None:
    failed, job_id = submit("exit 1"), submit("sleep 60")
    wait_for_state(failed, "FAILED")
    wait_for_state(job_id, "RUNNING")
    note(failed, "2026-01-01T00:00:00")
    log = Path(note(job_id, "2026-01-02T00:00:00"))
    log.write_text("begun\n", "utf-8")
    line, last = report(layout.root)
    assert re.fullmatch(rf"Job {job_id}: RUNNING on n\d, 0:\d\d:\d\d; log {log}", line)
    assert last.startswith(f"Not complete: job {job_id} is in the queue.")


def test_jobs_that_are_over(submit: Submit, layout: Layout, note: Note) -> None:
    failed, cancelled = submit("exit 3"), submit("true", "--hold")
    subprocess.run(["scancel", cancelled], check=True, timeout=60)
    wait_for_state(failed, "FAILED")
    note(failed)
    assert list(report(layout.root)) == [f"Job {failed}: FAILED, exit code 3:0", RESUME]
    note(cancelled, "2026-01-02T00:00:00")
    assert list(report(layout.root)) == [f"Job {cancelled}: CANCELLED", RESUME]
    note("99999999", "2026-01-03T00:00:00")
    forgotten = "Job 99999999: UNKNOWN (SLURM does not know it any more)"
    assert list(report(layout.root)) == [forgotten, RESUME]


def test_two_jobs_that_wait(submit: Submit, layout: Layout, note: Note) -> None:
    ids = [submit("true", "--hold") for _ in range(2)]
    for job_id in ids:
        note(job_id)
    *lines, last = report(layout.root)
    assert lines == [f"Job {job_id}: PENDING (JobHeldUser)" for job_id in sorted(ids)]
    one, two = sorted(ids)
    assert last == (
        f"Not complete: jobs {one}, {two} are in the queue. To cancel: scancel {one} {two}"
    )


def test_slurm_that_does_not_answer(
    layout: Layout, note: Note, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note("12")
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'error: no route' >&2\nexit 1\n", "utf-8")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert list(report(layout.root)) == [
        "Job 12: UNKNOWN (error: no route)",
        "Not complete. Unless a job is in the queue: run the same command again to resume.",
    ]


def test_an_array_is_one_line(submit: Submit, layout: Layout, note: Note, tmp_path: Path) -> None:
    array = submit("[ $SLURM_ARRAY_TASK_ID = 0 ] && exit 1; sleep 60", "--array=0-4%1")
    wait_for_state(f"{array}_0", "FAILED")
    wait_for_state(f"{array}_1", "RUNNING")
    for task in range(5):
        note(f"{array}_{task}")
    assert list(report(layout.root)) == [
        f"Job {array}: 1 FAILED, 1 RUNNING, 3 PENDING (JobArrayTaskLimit); "
        f"logs in {tmp_path / 'log'}",
        f"Not complete: job {array} is in the queue. To cancel: scancel {array}",
    ]


def test_a_complete_run_says_only_what_still_waits(
    submit: Submit, layout: Layout, note: Note
) -> None:
    held, failed = submit("true", "--hold"), submit("exit 1")
    wait_for_state(failed, "FAILED")
    note(held)
    note(failed)
    layout.success.write_text("{}", "utf-8")
    assert list(report(layout.root)) == [f"Job {held}: PENDING (JobHeldUser)", "Complete."]


def test_a_machine_without_slurm(
    layout: Layout, note: Note, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note("12_0")
    note("12_1")
    note("13", "2026-01-02T00:00:00")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(report(layout.root)) == [
        "No SLURM on this machine (no squeue): what became of job 12, 13 is not known.",
        "Not complete. Unless a job is in the queue: run the same command again to resume.",
    ]
    layout.success.write_text("{}", "utf-8")
    assert list(report(layout.root)) == ["Complete."]

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.jobs import Submit, wait_for_state
from helpers.workspace import Outcome, process_state

from artifactgen.store.layout import Layout
from distributed.console import log_to_stderr
from distributed.process import how_to_resume
from distributed.slurm import follow as module
from distributed.slurm.follow import follow
from distributed.slurm.outcome import explain
from distributed.slurm.queue import JobState
from distributed.slurm.submissions import Submission

END = 'printf \'{"exit_code": %d}\' "$1" > log/new-$JOB && mv log/new-$JOB log/outcome-$JOB.json'
COMMAND = "generate_artifacts experiment=mine"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and ask more often than people need."""
    monkeypatch.setattr(module, "_LOOK_S", 0.1)
    monkeypatch.setattr(module, "_ASK_S", 0.3)
    monkeypatch.setattr(module, "_GRACE_S", 1.5)


@pytest.fixture
def start(submit: Submit, tmp_path: Path) -> Callable[..., Submission]:
    """Submit a script in which `end CODE` says how the job ends."""

    def start(script: str, *options: str) -> Submission:
        whole = f"JOB=$SLURM_JOB_ID\nend() {{ {END}; exit $1; }}\n{script}"
        job_id = submit(whole, "--job-name=job", "--open-mode=append", *options)
        return Submission(job_id, f"{tmp_path}/log/job-{job_id}.out", "2026-01-01", COMMAND)

    return start


Start = Callable[..., Submission]


def wait_for(jobs: Sequence[Submission], layout: Layout) -> Outcome:
    """Follow jobs, with all that is said meanwhile."""
    told = io.StringIO()
    with process_state(), contextlib.redirect_stderr(told):
        log_to_stderr()
        code = follow(jobs, layouts=[layout])
    return Outcome(code, told.getvalue())


def test_a_job_that_ends_well(start: Start, tmp_path: Path) -> None:
    job = start("echo 'submitit INFO: noise'; echo hello; sleep 1; echo more >&2; end 0")
    outcome = wait_for([job], Layout(tmp_path))
    assert outcome.exit_code == 0, outcome.text
    text = outcome.text
    lines = text.splitlines()
    assert [line for line in lines if line in ("hello", "more")] == ["hello", "more"]
    assert "submitit" not in text
    assert f" Job {job.job_id} runs on n" in text
    assert lines[-1].endswith(f" Job {job.job_id} ended: COMPLETED")


def test_a_job_that_says_that_it_failed(start: Start, tmp_path: Path) -> None:
    job = start("echo 'there is no such option'; end 2")
    outcome = wait_for([job], Layout(tmp_path))
    assert outcome.exit_code == 2, outcome.text
    text = outcome.text
    assert "there is no such option\n" in text
    assert f"Job {job.job_id} ended: FAILED, exit code 2:0" in text
    assert "without saying how" not in text


def test_a_job_that_ends_without_a_word(start: Start, tmp_path: Path) -> None:
    job = start("for i in $(seq 30); do echo line $i; done; printf unended; exit 3")
    outcome = wait_for([job], Layout(tmp_path))
    assert outcome.exit_code == 1, outcome.text
    last = "".join(f"\n  {line}" for line in (*(f"line {i}" for i in range(12, 31)), "unended"))
    own = outcome.text.partition(f"Job {job.job_id} ended without saying how; ")[2]
    error, resume = own.split("\n  unended\n")
    assert error + "\n  unended" == (
        "for SLURM it is FAILED, exit code 3:0.\n"
        "It failed before or outside of the program: its log says more.\n"
        f"The end of {job.log}:{last}"
    )
    assert resume.endswith(f" What is done stays done. Resume with:\n  {COMMAND}\n")


def test_a_job_that_is_cancelled_before_it_starts(start: Start, tmp_path: Path) -> None:
    job = start("end 0", "--hold")
    threading.Timer(2, subprocess.run, [["scancel", job.job_id]]).start()
    outcome = wait_for([job], Layout(tmp_path))
    assert outcome.exit_code == 130, outcome.text
    text = outcome.text
    assert f" Job {job.job_id} is pending (JobHeldUser)\n" in text
    assert f" Job {job.job_id}: Somebody has cancelled it: scancel, or an administrator." in text
    assert text.endswith(f" What is done stays done. Resume with:\n  {COMMAND}\n")


@pytest.mark.parametrize(
    ("words", "most_shown", "by_us"),
    [("working", 4, True), (how_to_resume("mine"), 4, False), (how_to_resume("mine"), 0, True)],
    ids=["the log does not say it", "the log says it", "the log says it and is not shown"],
)
def test_how_to_go_on_is_told_once_of_a_job_that_is_cancelled(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, most_shown, by_us
) -> None:
    monkeypatch.setattr(module, "_MAX_SHOWN", most_shown)
    job = start(f"echo '{words}'; sleep 99")

    def cancel() -> None:
        wait_for_state(job.job_id, "RUNNING")
        while words not in (log.read_text() if (log := Path(job.log)).exists() else ""):
            time.sleep(0.1)
        time.sleep(1)  # it is followed meanwhile
        subprocess.run(["scancel", job.job_id], check=True, timeout=60)

    thread = threading.Thread(target=cancel)
    thread.start()
    outcome = wait_for([job], Layout(tmp_path))
    thread.join()
    assert outcome.exit_code == 130, outcome.text
    assert outcome.text.count("Resume with:") == 1, outcome.text
    ours = f" What is done stays done. Resume with:\n  {COMMAND}\n"
    assert outcome.text.endswith(ours) == by_us, outcome.text


def test_a_job_that_is_requeued(start: Start, tmp_path: Path) -> None:
    script = 'echo run ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] && end 0; sleep 99'
    job = start(script, "--requeue")

    def requeue() -> None:
        wait_for_state(job.job_id, "RUNNING")
        time.sleep(1)
        subprocess.run(["scontrol", "requeue", job.job_id], check=True, timeout=60)
        time.sleep(1)  # SLURM would wait for two minutes
        start_now = ["scontrol", "update", f"JobId={job.job_id}", "StartTime=now"]
        subprocess.run(start_now, check=True, timeout=60)

    thread = threading.Thread(target=requeue)
    thread.start()
    outcome = wait_for([job], Layout(tmp_path))
    thread.join()
    assert outcome.exit_code == 0, outcome.text
    text = outcome.text
    assert "run 0\n" in text
    assert text.index("run 0") < text.index(f"Job {job.job_id} was requeued") < text.index("run 1")
    assert text.count("was requeued") == 1


def test_an_array(start: Start, tmp_path: Path) -> None:
    task = "$SLURM_ARRAY_TASK_ID"
    script = f"JOB=${{SLURM_ARRAY_JOB_ID}}_{task}; echo task $JOB; sleep 1; end {task}"
    array = start(script, "--array=0-2", f"--output={tmp_path}/log/%A_%a.out").job_id
    ids = [f"{array}_{task}" for task in range(3)]
    jobs = [Submission(i, f"{tmp_path}/log/{i}.out", "2026-01-01", COMMAND) for i in ids]
    outcome = wait_for(jobs, Layout(tmp_path))
    assert outcome.exit_code == 1, outcome.text
    text = outcome.text
    assert all(f"[{i}] task {i}\n" in text for i in ids)


def test_a_job_that_has_ended_but_not_for_slurm(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OUTCOME_S", 2.0)
    job = start(f"set -- 0; {END}; sleep 99")
    outcome = wait_for([job], Layout(tmp_path))
    assert outcome.exit_code == 0, outcome.text
    assert wait_for_state(job.job_id, "RUNNING").state == "RUNNING"


def test_ctrl_c_ends_the_waiting_and_not_the_job(start: Start, tmp_path: Path) -> None:
    job = start("echo begun; sleep 99")
    folder = tmp_path / "my run"
    wait_for_state(job.job_id, "RUNNING")
    threading.Timer(2, os.kill, [os.getpid(), signal.SIGINT]).start()
    outcome = wait_for([job], Layout(folder))
    assert outcome.exit_code == 130, outcome.text
    assert outcome.text.endswith(
        f"Job {job.job_id} goes on without this command. How far it is:\n"
        f"  python -m distributed.status '{folder}'\n"
        f"To cancel:\n  scancel {job.job_id}\n"
    )
    assert wait_for_state(job.job_id, "RUNNING").state == "RUNNING"


def test_a_machine_that_loses_slurm_waits_for_the_word_of_the_job(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start("sleep 2; end 0")
    monkeypatch.setattr(module, "_OUTCOME_S", 1.0)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        outcome = wait_for([job], Layout(tmp_path))
    assert outcome.exit_code == 0, outcome.text
    assert "SLURM does not say how it is: there is no squeue on this machine" in outcome.text


@pytest.mark.parametrize(
    ("state", "exit_code", "meant"),
    [
        ("OUT_OF_MEMORY", "0:125", "mem_gb"),
        ("TIMEOUT", "0:0", "max_num_timeout"),
        ("NODE_FAIL", "1:0", "node was lost"),
        ("FAILED", "0:9", "mem_gb"),
        ("FAILED", "137:0", "mem_gb"),
        ("FAILED", "0:15", "signal 15"),
        ("FAILED", "127:0", "its log says more"),
        ("UNKNOWN", "", "SLURM has forgotten it"),
    ],
)
def test_what_a_state_means_is_told(state: str, exit_code: str, meant: str) -> None:
    assert meant in explain(JobState("1", state, exit_code=exit_code))

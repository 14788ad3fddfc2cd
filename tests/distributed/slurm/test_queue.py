from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.jobs import Submit, wait_for_state

from distributed.slurm import queue
from distributed.slurm.queue import OVER, JobState, ask, parse_sacct, parse_squeue

SQUEUE = """\
5|PENDING|0||0|0:00|Resources|
6_3|PENDING|0||0|0:00|JobArrayTaskLimit|
3|RUNNING|0|n[1-2]|2|1-02:03:04|None|
4|FAILED|768|n1|0|0:00|NonZeroExitCode|
15|FAILED|9|n1|0|12:03|JobLaunchFailure|
16|CANCELLED|0|(null)|1|INVALID|BeginTime|
17|PENDING|0||3|0:00|(launch failed | requeued held)|
18|COMPLETING|0|n1|0|0:07|None|
"""
"""As SLURM 22.05 printed it, and a reason with a bar in it."""

SACCT = """\
1234|COMPLETED|0:0|n[1-2]|00:12:03
1235_7|CANCELLED by 1000|0:0|None assigned|00:00:00
1236|TIMEOUT|0:0|n1|1-00:00:07
1237|NODE_FAIL|1:0|n2|00:00:05
1238|OUT_OF_MEMORY|0:125|n2|00:00:05
1239_[3-7%2]|PENDING|0:0|None assigned|00:00:00
1240|RUNNING|0:0|n1|00:00:05
"""
"""After the manual of `sacct --parsable2`: no accounting was at hand."""


def test_what_squeue_prints() -> None:
    found = parse_squeue(SQUEUE)
    assert list(found.values()) == [
        JobState("5", "PENDING", reason="Resources", exit_code="0:0"),
        JobState("6_3", "PENDING", reason="JobArrayTaskLimit", exit_code="0:0"),
        JobState("3", "RUNNING", exit_code="0:0", nodes="n[1-2]", restarts=2, elapsed_s=93784),
        JobState("4", "FAILED", reason="NonZeroExitCode", exit_code="3:0", nodes="n1"),
        JobState(
            "15", "FAILED", reason="JobLaunchFailure", exit_code="0:9", nodes="n1", elapsed_s=723
        ),
        JobState("16", "CANCELLED", reason="BeginTime", exit_code="0:0", restarts=1),
        JobState(
            "17", "PENDING", reason="(launch failed | requeued held)", exit_code="0:0", restarts=3
        ),
        JobState("18", "COMPLETING", exit_code="0:0", nodes="n1", elapsed_s=7),
    ]
    assert [job_id for job_id, job in found.items() if job.is_over] == ["4", "15", "16"]


def test_what_sacct_prints() -> None:
    found = parse_sacct(SACCT)
    assert {job_id: job.state for job_id, job in found.items()} == {
        "1234": "COMPLETED",
        "1235_7": "CANCELLED",
        "1236": "TIMEOUT",
        "1237": "NODE_FAIL",
        "1238": "OUT_OF_MEMORY",
        "1239_[3-7%2]": "PENDING",
        "1240": "RUNNING",
    }
    assert [job_id for job_id, job in found.items() if not job.is_over] == ["1239_[3-7%2]", "1240"]
    assert found["1234"] == JobState(
        "1234", "COMPLETED", exit_code="0:0", nodes="n[1-2]", elapsed_s=723
    )
    assert (found["1236"].elapsed_s, found["1235_7"].nodes) == (86407, "")


def test_lines_of_another_form_are_left_out() -> None:
    assert parse_squeue("CLUSTER: lab\nslurm_load_jobs error\n\n") == {}
    assert parse_sacct("Slurm accounting storage is disabled\n") == {}


@pytest.mark.parametrize(
    "state",
    [
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED"),
        *("REQUEUE_HOLD", "REQUEUE_FED", "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT"),
        *("RESV_DEL_HOLD", "A_STATE_OF_THE_FUTURE"),
    ],
)
def test_a_job_in_any_other_state_may_go_on(state: str) -> None:
    assert not JobState("1", state).is_over


def test_jobs_of_all_kinds_in_one_answer(submit: Submit) -> None:
    failed = submit("exit 3")
    killed = submit("kill -9 $$")
    fine = submit("true")
    array = submit("sleep 60", "--array=0-3%1")
    held = submit("true", "--hold")
    dropped = submit("true", "--hold")
    subprocess.run(["scancel", dropped], check=True, timeout=60)
    wait_for_state(fine, "COMPLETED")
    wait_for_state(failed, "FAILED")
    wait_for_state(killed, "FAILED")
    running = wait_for_state(f"{array}_0", "RUNNING")
    ids = [failed, killed, fine, f"{array}_0", f"{array}_3", held, dropped, "99999999"]
    found = ask(ids)
    assert list(found) == ids
    assert [(job.state, job.is_over) for job in found.values()] == [
        ("FAILED", True),
        ("FAILED", True),
        ("COMPLETED", True),
        ("RUNNING", False),
        ("PENDING", False),
        ("PENDING", False),
        ("CANCELLED", True),
        ("UNKNOWN", True),
    ]
    assert [found[job].exit_code for job in (failed, killed, fine)] == ["3:0", "0:9", "0:0"]
    assert re.fullmatch(r"\w+", running.nodes)
    assert found[f"{array}_3"].reason == "JobArrayTaskLimit"
    assert found[held].reason == "JobHeldUser"


def test_a_job_for_which_there_are_no_nodes_yet(submit: Submit) -> None:
    first = submit("sleep 60", "--nodes=2", "--exclusive")
    second = submit("true", "--nodes=2", "--exclusive")
    running = wait_for_state(first, "RUNNING")
    assert "," in running.nodes or "[" in running.nodes
    waiting = ask([second])[second]
    assert (waiting.state, waiting.is_over, waiting.nodes) == ("PENDING", False, "")
    subprocess.run(["scancel", first], check=True, timeout=60)
    assert wait_for_state(second, "COMPLETED").is_over


def test_a_job_that_was_requeued_is_not_over(submit: Submit) -> None:
    job_id = submit("sleep 60", "--requeue")
    assert wait_for_state(job_id, "RUNNING").restarts == 0
    subprocess.run(["scontrol", "requeue", job_id], check=True, timeout=60)
    found = wait_for_state(job_id, "PENDING", "RUNNING")
    assert (found.restarts, found.is_over) == (1, False)


def test_one_job_alone_that_is_not_known(slurm: object) -> None:
    found = ask(["99999999"])["99999999"]
    assert (found.state, found.is_over, found.answered) == ("UNKNOWN", True, True)
    assert ask([]) == {}


def test_what_a_user_wants_of_squeue_hides_no_job(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit("true", "--hold")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_NAMES", "another")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    assert ask([job_id])[job_id].state == "PENDING"


def test_a_controller_that_cannot_be_reached_ends_no_job(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit("true", "--hold")
    elsewhere = tmp_path / "slurm.conf"
    text = Path(os.environ["SLURM_CONF"]).read_text("utf-8")
    elsewhere.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", text), "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_LIMIT_S", 1.0)
        patch.setenv("SLURM_CONF", str(elsewhere))
        found = ask([job_id, "99999999"])
    assert [job.state for job in found.values()] == ["UNKNOWN", "UNKNOWN"]
    assert not any(job.is_over for job in found.values())
    assert found[job_id].reason == "squeue did not answer in 1 s"
    assert ask([job_id])[job_id].state == "PENDING"


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ask(["12"])["12"]
    assert not queue.has_slurm()
    assert not found.is_over
    assert found.reason == "there is no squeue on this machine"


Write = Callable[[str, Sequence[str]], None]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Commands that stand for those of another site, before all others on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, lines: Sequence[str]) -> None:
        (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]), "utf-8")
        (folder / name).chmod(0o755)

    return write


def test_what_only_the_accounting_remembers(slurm: object, commands: Write) -> None:
    told = ["99999991|TIMEOUT|0:0|n1|00:01:00", "99999992_3|CANCELLED by 0|0:0|n1|00:01:00"]
    told.append("99999993|RUNNING|0:0|n1|00:01:00")
    commands("sacct", ["cat <<END", *told, "END"])
    found = ask(["99999991", "99999992_3", "99999993"])
    assert [job.state for job in found.values()] == ["TIMEOUT", "CANCELLED", "UNKNOWN"]
    assert found["99999991"].elapsed_s == 60


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["echo JOBID", "echo 12"], "squeue answered 'JOBID'"),
        (["echo Nothing >&2", "echo 'error: no way' >&2", "exit 1"], "error: no way"),
        (["exit 1"], "squeue failed"),
    ],
    ids=["another-form", "an-error", "no-word"],
)
def test_an_answer_that_says_nothing_ends_no_job(
    commands: Write, lines: Sequence[str], reason: str
) -> None:
    commands("squeue", lines)
    found = ask(["12"])["12"]
    assert (found.state, found.reason, found.is_over) == ("UNKNOWN", reason, False)


def test_every_state_that_is_over_is_told_from_the_rest() -> None:
    assert {name for name in OVER if not JobState("1", name).is_over} == set()
    assert not JobState("1", "UNKNOWN", answered=False).is_over

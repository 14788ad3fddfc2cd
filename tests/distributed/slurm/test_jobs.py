"""The command on a real SLURM of two nodes: from submission to every end that a job may take."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from helpers.site import Site, wait_until
from helpers.workspace import CKPT, EXPERIMENT, Workspace, artifacts, assert_exact

from distributed.status import report

pytestmark = [pytest.mark.slurm, pytest.mark.ray]

WRAPPER = """\
#!/bin/bash
{before}
exec {python} "$@"
"""


def wrapper(site: Site, before: str) -> str:
    """`hydra.launcher.python`: this Python, with lines of bash before it."""
    path = site.workspace.root / "python.sh"
    path.write_text(WRAPPER.format(before=before, python=sys.executable))
    path.chmod(0o755)
    return f"hydra.launcher.python={path}"


def other_version(site: Site) -> Path:
    """A folder that says, first on the path of a Python, that timm is another one."""
    folder = site.workspace.root / "other" / "timm-9.9.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 9.9\n")
    return folder.parent


def hold_all_nodes(site: Site) -> str:
    """A job that leaves no room for another one."""
    command = ["--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"]
    job = site.slurm.run("sbatch", *command)
    site.slurm.wait_for(job, "RUNNING")
    return job


def test_two_nodes_give_the_bytes_of_a_laptop(
    site: Site, finished: Workspace, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("of long ago")
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    submitted = site.submit(HOME=str(home), RAY_ADDRESS="192.0.2.1:1")
    outcome = submitted.finish()
    assert outcome.exit_code == 0, outcome.text
    log = site.logs / submitted.job / f"{submitted.job}_0_log.out"
    for line in (
        f"Log: {log}",
        f"Status: python -m distributed.status {site.output}",
        f"Cancel: scancel {submitted.job}",
        "1 thread each, Ray on 2 nodes; batches of 2",
        "Ray: all 2 nodes have joined",
        f"Job {submitted.job} ended: COMPLETED",
    ):
        assert line in outcome.text
    assert "submitit INFO" not in outcome.text
    assert_exact(site.output, finished.output)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before
    site.require_nothing_left(submitted.job)


def test_a_home_that_cannot_be_written_is_no_obstacle(site: Site, finished: Workspace) -> None:
    outcome = site.run(HOME="/dev/null/home")
    assert outcome.exit_code == 0, outcome.text
    assert_exact(site.output, finished.output)


def test_a_job_waits_in_the_queue_and_outlives_the_command(site: Site, finished: Workspace) -> None:
    filler = hold_all_nodes(site)
    outcome = site.run("wait=false")
    assert outcome.exit_code == 0, outcome.text
    job = outcome.text.partition("Submitted job ")[2].split()[0]
    told = list(report(site.output))
    assert any(f"Job {job}: PENDING" in line for line in told), told
    assert "in the queue" in told[-1]
    second = site.workspace.start("hydra/launcher=submitit_slurm", EXPERIMENT, CKPT).finish()
    assert second.exit_code == 2
    assert f"job {job} is PENDING for this directory" in second.text
    site.slurm.cancel(filler)
    site.slurm.wait_for(job, "COMPLETED", timeout_s=180)
    assert_exact(site.output, finished.output)
    assert list(report(site.output))[-1] == "Complete."


def test_ctrl_c_ends_the_waiting_and_not_the_job(site: Site) -> None:
    hold_all_nodes(site)
    submitted = site.submit()
    submitted.started.wait_for(
        lambda: "is pending" in submitted.started.log.read_text(), what="pending"
    )
    submitted.started.process.send_signal(signal.SIGINT)
    outcome = submitted.finish()
    assert outcome.exit_code == 130
    assert f"Job {submitted.job} goes on without this command." in outcome.text
    assert f"python -m distributed.status {site.output}" in outcome.text
    assert f"scancel {submitted.job}" in outcome.text
    assert site.slurm.state(submitted.job) == "PENDING"


def test_a_run_that_fails_is_a_job_that_failed(site: Site) -> None:
    submitted = site.submit("data.breaks_at=3")
    outcome = submitted.finish()
    assert outcome.exit_code == 1, outcome.text
    assert "Slow raised RuntimeError while reading row" in outcome.text
    assert "the scanner is on fire" in outcome.text
    assert site.slurm.state(submitted.job) == "FAILED"
    assert site.slurm.show(submitted.job)["ExitCode"] == "1:0"
    site.require_nothing_left(submitted.job)


def test_a_cancelled_job_is_resumed(site: Site, finished: Workspace) -> None:
    submitted = site.submit()
    submitted.wait_for_shards(3)
    started = time.monotonic()
    site.slurm.cancel(submitted.job)
    assert time.monotonic() - started < 25, "before KillWait is over, and SLURM kills it"
    outcome = submitted.finish()
    assert outcome.exit_code == 130
    assert "CANCELLED" in outcome.text
    assert "Resume with:" in outcome.text
    site.require_nothing_left(submitted.job)
    again = site.run()
    assert again.exit_code == 0, again.text
    assert "Resuming: " in again.text
    assert_exact(site.output, finished.output)


def test_the_first_rank_is_killed(site: Site, finished: Workspace) -> None:
    submitted = site.submit()
    submitted.wait_for_shards(3)
    submitted.rank(0).kill()
    outcome = submitted.finish()
    assert outcome.exit_code == 1
    assert f"Job {submitted.job} ended without saying how; for SLURM it is FAILED" in outcome.text
    site.require_nothing_left(submitted.job)
    site.resume_here(finished)


def test_another_rank_is_killed(site: Site, finished: Workspace) -> None:
    submitted = site.submit()
    submitted.wait_for_shards(3)
    submitted.rank(1).kill()
    outcome = submitted.finish()
    assert outcome.exit_code == 1
    assert "n2 (rank 1) is gone." in outcome.text
    assert site.slurm.state(submitted.job) == "FAILED"
    site.require_nothing_left(submitted.job)
    site.resume_here(finished)


def test_a_node_that_loses_its_ray_comes_back(site: Site, finished: Workspace) -> None:
    submitted = site.submit("data.sleep_s=2")
    submitted.wait_for_shards(3)
    submitted.raylet(1).kill()
    outcome = submitted.finish()
    assert outcome.exit_code == 0, outcome.text
    log = site.logs / submitted.job / f"{submitted.job}_1_log.out"
    assert "Ray has ended on this node" in log.read_text()
    assert_exact(site.output, finished.output)
    site.require_nothing_left(submitted.job)


def test_the_head_of_ray_is_killed(site: Site, finished: Workspace) -> None:
    submitted = site.submit("data.sleep_s=2")
    submitted.wait_for_shards(3)
    head = submitted.rank(0).children(recursive=True)
    next(process for process in head if process.name() == "gcs_server").kill()
    outcome = submitted.finish()
    assert outcome.exit_code == 1, outcome.text
    assert "Ray's head has ended on " in outcome.text
    assert site.slurm.state(submitted.job) == "FAILED"
    site.require_nothing_left(submitted.job)
    site.resume_here(finished, "data.sleep_s=2")


def test_a_rank_that_never_starts_is_named(site: Site) -> None:
    python = wrapper(site, "[[ $SLURM_PROCID == 1 ]] && sleep 600")
    submitted = site.submit(python, "cluster.join_s=15")
    outcome = submitted.finish()
    assert outcome.exit_code == 1
    assert "n2 (rank 1) did not start within 15 s." in outcome.text
    assert site.slurm.state(submitted.job) == "FAILED"
    site.require_nothing_left(submitted.job)


def test_a_rank_with_other_versions_is_named(site: Site) -> None:
    folder = other_version(site)
    python = wrapper(site, f"[[ $SLURM_PROCID == 1 ]] && export PYTHONPATH={folder}:$PYTHONPATH")
    outcome = site.run(python)
    assert outcome.exit_code == 1
    assert "n2: This node has other versions than the first one: timm " in outcome.text


def test_a_program_that_changed_since_is_named(site: Site) -> None:
    folder = other_version(site)
    outcome = site.run(wrapper(site, f"export PYTHONPATH={folder}:$PYTHONPATH"), nodes=1)
    assert outcome.exit_code == 0, outcome.text
    assert "WARNING: Since this job was submitted, the program has changed: timm " in outcome.text
    assert " → 9.9. It runs as it is now." in outcome.text


def test_a_time_limit_is_survived(site: Site, finished: Workspace) -> None:
    limit = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=30")
    submitted = site.submit(*limit, "data.sleep_s=8")
    outcome = submitted.finish()
    assert outcome.exit_code == 0, outcome.text
    assert "is requeued (time limit, 1 of at most 100), and will go on." in outcome.text
    assert "Resuming: " in outcome.text
    assert_exact(site.output, finished.output)
    # One on an idle machine; and each of them was said.
    restarts = int(site.slurm.show(submitted.job)["Restarts"])
    assert outcome.text.count("is requeued (time limit, ") == restarts
    site.require_nothing_left(submitted.job)


def test_a_job_that_does_not_get_on_is_not_started_again(site: Site) -> None:
    submitted = site.submit("data.sleep_s=60")
    wait_until(
        lambda: "nodes have joined" in submitted.started.log.read_text(), "waiting for the nodes"
    )
    site.slurm.run("scancel", "--signal=USR2", submitted.job)
    outcome = submitted.finish()
    assert outcome.exit_code == 1
    assert "not one shard was finished in this start of the job" in outcome.text
    assert site.slurm.show(submitted.job)["Restarts"] == "0"


@pytest.mark.parametrize("how", ["requeue", "preemption"])
def test_a_job_that_is_put_back_goes_on(site: Site, finished: Workspace, how: str) -> None:
    submitted = site.submit()
    submitted.wait_for_shards(3)
    if how == "requeue":
        site.slurm.run("scontrol", "requeue", submitted.job)
    else:
        urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
        site.slurm.run("sbatch", *urgent, "--wrap=sleep 5")
    outcome = submitted.finish()
    assert outcome.exit_code == 0, outcome.text
    assert f"Job {submitted.job} was requeued" in outcome.text
    assert_exact(site.output, finished.output)
    site.require_nothing_left(submitted.job)


def test_a_lost_node_costs_what_it_had_at_work(site: Site, finished: Workspace) -> None:
    submitted = site.submit()
    submitted.wait_for_shards(3)
    site.slurm.lose("n2")
    wait_until(lambda: site.slurm.state(submitted.job) != "RUNNING", "the lost node")
    site.slurm.restore()
    outcome = submitted.finish()
    assert outcome.exit_code == 0, outcome.text
    assert "Resuming: " in outcome.text
    assert_exact(site.output, finished.output)


def test_a_sweep_is_one_array(site: Site) -> None:
    command = ["hydra/launcher=submitit_slurm", EXPERIMENT, "hydra.launcher.cpus_per_task=1"]
    outcome = site.workspace.start("-m", *command, "ckpt_path=a.ckpt,b.ckpt").finish(240)
    assert outcome.exit_code == 0, outcome.text
    assert "(2 jobs of an array)" in outcome.text
    folders = sorted(site.output.iterdir())
    assert [folder.name for folder in folders] == ["ckpt_path-a.ckpt", "ckpt_path-b.ckpt"]
    # Pictures name their checkpoint, which has another name in the run of the other tests.
    here = site.workspace.root / "here"
    local = ["ckpt_path=a.ckpt", f"output_dir={here}", "cluster=inline"]
    assert site.workspace.run(EXPERIMENT, *local).exit_code == 0
    assert_exact(folders[0], here)
    assert (folders[1] / "_SUCCESS.json").exists()
    assert artifacts(folders[1]) != artifacts(folders[0])


def test_parts_of_which_one_is_killed_are_finished_by_the_same_command(
    site: Site, finished: Workspace
) -> None:
    parts = ["cluster.jobs=3", "data.always=true"]
    submitted = site.submit(*parts, nodes=1)
    submitted.wait_for_shards(4)
    assert site.slurm.state(f"{submitted.job}_2") == "RUNNING"
    site.slurm.run("scancel", "--signal=KILL", f"{submitted.job}_2")
    outcome = submitted.finish()
    assert outcome.exit_code != 0, outcome.text
    assert not (site.output / "_SUCCESS.json").exists()
    again = site.run(*parts, nodes=1)
    assert again.exit_code == 0, again.text
    assert_exact(site.output, finished.output)


def test_the_plain_script_does_the_same(site: Site, finished: Workspace) -> None:
    script = Path(__file__).parents[3] / "slurm" / "artifacts.sbatch"
    root = site.workspace.root
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = site.slurm.run(
        *("sbatch", "--parsable", "--cpus-per-task=1", f"--chdir={root}"),
        *(f"--export=ALL,PATH={path}", f"--output={root}/batch-%j.log", str(script)),
        *("--config-dir", str(site.workspace.conf), EXPERIMENT, CKPT),
    )
    site.slurm.wait_for(job, "COMPLETED", "FAILED", timeout_s=180)
    log = (root / f"artifacts-{job}-0.log").read_text()
    assert site.slurm.state(job) == "COMPLETED", log
    assert "Ray on 2 nodes" in log
    assert_exact(site.output, finished.output)
    site.require_nothing_left(job)


def test_the_outcome_of_a_job_is_told_beside_its_log(site: Site) -> None:
    outcome = site.run("max_failures=0", nodes=1)
    assert outcome.exit_code == 0, outcome.text
    told = [json.loads(file.read_text()) for file in site.logs.rglob("outcome-*.json")]
    assert told == [{"exit_code": 0}]

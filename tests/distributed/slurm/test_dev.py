from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
from helpers.linux_user import LinuxUser
from helpers.slurm import DEV, Slurm, script, slurm_folder, succeed

pytestmark = pytest.mark.slurm

SBATCH = ("sbatch", "--parsable", "--output=/dev/null")


def belonging_to(folder: Path) -> list[psutil.Process]:
    """Daemons and what guards steps of a SLURM: each has a file in its folder open."""
    found = []
    for process in psutil.process_iter():
        try:
            files = [str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if any(file.startswith(f"{folder}/") for file in files):
            found.append(process)
    return found


def test_both_nodes_run_a_job(slurm: Slurm) -> None:
    assert slurm.run("sinfo", "--noheader", "--format=%P %D %T").splitlines() == [
        "debug* 2 idle",
        "urgent 2 idle",
    ]
    hosts = slurm.run("srun", "--nodes=2", "hostname").split()
    assert hosts == [socket.gethostname()] * 2
    nodes = slurm.run("srun", "--nodes=2", "printenv", "SLURMD_NODENAME").split()
    assert sorted(nodes) == ["n1", "n2"]


def test_a_job_may_have_all_cores_of_both_nodes(slurm: Slurm) -> None:
    cores = len(os.sched_getaffinity(0))
    text = slurm.run("srun", "--nodes=2", f"--cpus-per-task={cores}", "printenv", "SLURM_JOB_ID")
    assert len(text.split()) == 2


def test_starting_twice_reports_the_first(slurm: Slurm) -> None:
    before = {process.pid for process in belonging_to(slurm.folder)}
    assert succeed(str(DEV / "start"), str(slurm.folder)) == f"export SLURM_CONF={slurm.conf}\n"
    assert {process.pid for process in belonging_to(slurm.folder)} == before


def test_stopping_leaves_no_process_and_no_folder(slurm: Slurm) -> None:
    folder = slurm_folder()
    succeed(str(DEV / "start"), str(folder))
    other = Slurm(folder)
    job = other.run(
        "sbatch", "--parsable", "--nodes=2", "--output=/dev/null", "--wrap=srun sleep 99"
    )
    other.wait_for(job, "RUNNING")
    assert len(belonging_to(folder)) >= 4
    succeed(str(DEV / "stop"), str(folder))
    assert not folder.exists()
    assert belonging_to(folder) + other.processes() == []
    assert slurm.run("scontrol", "ping").endswith("is UP")


@pytest.mark.parametrize("after_s", [0.05, 0.15], ids=["early", "late"])
def test_a_start_that_was_killed_is_cleaned_up_by_the_next(
    slurm_is_installed: None, after_s: float
) -> None:
    folder = slurm_folder()
    started = subprocess.Popen([DEV / "start", folder], start_new_session=True)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(after_s)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    succeed(str(DEV / "start"), str(folder))
    assert len(belonging_to(folder)) >= 4
    succeed(str(DEV / "stop"), str(folder))
    assert not folder.exists()
    assert belonging_to(folder) == []


def test_a_folder_of_someone_else_is_left_alone(slurm_is_installed: None, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for name in ("start", "stop"):
        done = subprocess.run(
            [DEV / name, tmp_path], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert str(tmp_path) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_only_a_process_of_ours_is_taken_for_a_daemon(tmp_path: Path) -> None:
    """Process ids are used again: one alone says nothing."""
    lookup = 'source "$1"; DIR=$2; pid_of n1 || echo none'
    started_at = script('source "$1"; started_at "$2"', os.getpid()).strip()
    (tmp_path / "n1.pid").write_text(f"{os.getpid()} {started_at}\n")
    assert script(lookup, tmp_path).strip() == str(os.getpid())
    (tmp_path / "n1.pid").write_text(f"{os.getpid()} {int(started_at) - 1}\n")
    assert script(lookup, tmp_path).strip() == "none"


def test_a_command_has_a_slurm_of_its_own(slurm_is_installed: None) -> None:
    done = subprocess.run(
        [DEV / "run", "sh", "-c", "echo $SLURM_CONF; srun -N2 hostname; exit 7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    conf, *hosts = done.stdout.split()
    assert (done.returncode, hosts) == (7, [socket.gethostname()] * 2), done.stderr
    assert not Path(conf).parent.exists()


def test_a_lost_node_is_noticed_and_comes_back(slurm: Slurm) -> None:
    job = slurm.run(*SBATCH, "--nodes=2", "--no-requeue", "--wrap=srun sleep 99")
    slurm.wait_for(job, "RUNNING")
    slurm.lose("n2")
    slurm.wait_for(job, "NODE_FAIL")
    slurm.restore()
    assert len(slurm.run("srun", "--nodes=2", "hostname").split()) == 2
    assert slurm.processes() == []


def test_the_urgent_partition_preempts(slurm: Slurm) -> None:
    job = slurm.run(*SBATCH, "--nodes=2", "--exclusive", "--wrap=srun sleep 99")
    slurm.wait_for(job, "RUNNING")
    slurm.run("srun", "--partition=urgent", "--nodes=2", "--exclusive", "true")
    slurm.wait_for(job, "RUNNING")
    assert slurm.show(job)["Restarts"] == "1"
    slurm.cancel(job)


def test_two_users_have_jobs_on_one_node_at_once(slurm: Slurm, other_user: LinuxUser) -> None:
    submit = (*SBATCH, "--nodelist=n1", "--wrap=sleep 99")
    theirs, ours = other_user.run(*submit), slurm.run(*submit)
    for job in (theirs, ours):
        slurm.wait_for(job, "RUNNING")
    owners = {p.username() for job in (theirs, ours) for p in slurm.processes(job=job, node="n1")}
    assert owners == {"root", other_user.name}
    for job in (theirs, ours):
        slurm.cancel(job)


def test_the_other_user_has_our_packages_and_a_home_that_is_read_only(
    other_user: LinuxUser,
) -> None:
    imported = "import torch, distributed; print(distributed.__file__)"
    assert Path(other_user.run(str(other_user.python), "-c", imported)).is_relative_to(
        DEV.parents[1]
    )
    tried = subprocess.run(
        other_user.command("touch", str(other_user.home / "file")), check=False, capture_output=True
    )
    assert tried.returncode == 1
    other_user.run("touch", "file")


def test_anyone_else_than_root_has_a_slurm_for_their_own_jobs(
    slurm_is_installed: None, other_user: LinuxUser
) -> None:
    folder = other_user.folder / "slurm"
    setting = other_user.run(str(DEV / "start"), str(folder))
    conf = setting.removeprefix("export ")
    assert (
        other_user.run("env", conf, "srun", "--nodes=2", "id", "-un").split()
        == [other_user.name] * 2
    )
    other_user.run(str(DEV / "stop"), str(folder))
    assert not folder.exists()

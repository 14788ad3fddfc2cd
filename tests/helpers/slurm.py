"""A SLURM of two nodes on this machine, for the session of the tests that ask for it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

DEV = Path(__file__).parents[2] / "slurm" / "dev"
LIMIT_S = 300
"""For every command of SLURM and of `slurm/dev`; installing takes the longest."""
ENDED = ("CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
"""States of a job that nothing runs of any more: before them it is COMPLETING."""


@dataclass(frozen=True, slots=True)
class Slurm:
    """A SLURM that `slurm/dev/start` has started; its nodes are n1 and n2."""

    folder: Path

    @property
    def conf(self) -> Path:
        """What `SLURM_CONF` is while tests use it."""
        return self.folder / "slurm.conf"

    def run(self, *command: str) -> str:
        """Standard output of a command of SLURM, such as `squeue`; fails where it does."""
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        return succeed(*command, env=environment).strip()

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol` knows of a job, `12` or `12_3`: JobState, Restarts, ExitCode, …"""
        text = self.run("scontrol", "show", "job", "--oneliner", job).splitlines()[0]
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, …"""
        return self.show(job)["JobState"]

    def wait_for(self, job: str, *states: str, timeout_s: float = 120) -> str:
        """Wait until a job is in one of some states, and tell in which."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"job {job} is {state} and not in {states}"
            time.sleep(0.2)
        return state

    def cancel(self, job: str) -> None:
        """Cancel a job and wait until SLURM is done with it."""
        self.run("scancel", job)
        self.wait_for(job, *ENDED, timeout_s=LIMIT_S)

    def processes(self, *, job: str | None = None, node: str | None = None) -> list[psutil.Process]:
        """Living processes of jobs, by their environment: also those that left their parents."""
        wanted = {"SLURM_CONF": str(self.conf), "SLURM_JOB_ID": job, "SLURMD_NODENAME": node}
        return [process for process in psutil.process_iter() if _carries(process, wanted)]

    def lose(self, node: str) -> None:
        """End everything of a node at once, as a power failure does; `restore` brings it back."""
        guards = script('source "$1"; DIR=$2; step_guards "$3"', self.folder, node).split()
        daemon = (self.folder / f"{node}.pid").read_text().split()[0]
        for pid in (daemon, *guards):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(int(pid)).kill()
        for process in self.processes(node=node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def restore(self) -> None:
        """Start again the nodes that were lost, and wait until they take jobs."""
        succeed(str(DEV / "start"), str(self.folder))


def _carries(process: psutil.Process, wanted: dict[str, str | None]) -> bool:
    try:
        found = process.environ()
    except psutil.Error:
        return False
    # Only what SLURM has started knows its node.
    return "SLURMD_NODENAME" in found and all(
        found.get(name) == value for name, value in wanted.items() if value is not None
    )


def script(text: str, *arguments: object) -> str:
    """Standard output of lines of bash that may use `slurm/dev/common.sh`, their `$1`."""
    return succeed("bash", "-c", text, "bash", str(DEV / "common.sh"), *map(str, arguments))


def succeed(*command: str, env: dict[str, str] | None = None) -> str:
    """Standard output of a command; fails with what it says if it fails."""
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def slurm_folder() -> Path:
    """An empty folder for a SLURM; those of pytest are closed to other users, and deep."""
    return Path(tempfile.mkdtemp(prefix="artifactgen-slurm-", dir="/tmp"))


@pytest.fixture(scope="session")
def slurm_is_installed() -> None:
    """Install SLURM if it is missing; skip where that is impossible, unless it must be there."""
    done = subprocess.run(
        [DEV / "install"], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    if done.returncode:
        unavailable(done.stderr)


def unavailable(reason: str) -> NoReturn:
    """Skip the test; in CI, where everything must be there, fail."""
    if os.environ.get("CI") or os.environ.get("ARTIFACTGEN_REQUIRE_SLURM"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm(slurm_is_installed: None) -> Iterator[Slurm]:
    """Two nodes; `SLURM_CONF` of this process names them from here to the end of the session."""
    folder = slurm_folder()
    succeed(str(DEV / "start"), str(folder))
    started = Slurm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(started.conf))
        yield started
    succeed(str(DEV / "stop"), str(folder))

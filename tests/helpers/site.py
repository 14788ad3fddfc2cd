"""A user of the SLURM of the tests: a workspace with slow records, and the jobs that it submits."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from helpers.slurm import Slurm
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    Outcome,
    Started,
    Workspace,
    assert_exact,
    entries,
    with_source,
)

LAUNCHER = "hydra/launcher=submitit_slurm"
RESOURCES = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=5")
SOURCE = """
from __future__ import annotations

import os
import time
from dataclasses import dataclass

from artifactgen.data.hdf5 import Hdf5


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Hdf5):
    sleep_s: float
    breaks_at: int | None
    always: bool

    def read(self, catalog, split, start, stop):
        # The first records are looked at in the process that drives, which must not wait.
        if self.always or os.environ.get("ARTIFACTGEN_RAY"):
            time.sleep(self.sleep_s)
            if split == "test" and self.breaks_at is not None and start <= self.breaks_at < stop:
                raise RuntimeError("the scanner is on fire")
        return Hdf5.read(self, catalog, split, start, stop)
"""
OPTIONS = "sleep_s: 0.5\nbreaks_at: null\nalways: false\n"


@dataclass(frozen=True, slots=True)
class Site:
    """Where jobs are submitted from."""

    workspace: Workspace
    slurm: Slurm

    @property
    def output(self) -> Path:
        return self.workspace.output

    @property
    def logs(self) -> Path:
        return self.workspace.root / "logs" / "slurm"

    def submit(self, *arguments: str, nodes: int = 2, **environment: str) -> Submitted:
        """Submit a run, and wait until that is done; the command goes on, as it does."""
        command = [LAUNCHER, EXPERIMENT, CKPT, f"hydra.launcher.nodes={nodes}", *RESOURCES]
        started = self.workspace.start(*command, *arguments, **environment)
        pattern = re.compile(r"Submitted job (\d+)")
        started.wait_for(lambda: pattern.search(started.log.read_text()), what="submission")
        found = pattern.search(started.log.read_text())
        assert found
        return Submitted(self, started, found[1])

    def run(self, *arguments: str, nodes: int = 2, **environment: str) -> Outcome:
        """Submit a run, and wait until it is over."""
        return self.submit(*arguments, nodes=nodes, **environment).finish()

    def resume_here(self, finished: Workspace, *arguments: str) -> None:
        """Do the rest without SLURM, in one process: what is there is what a laptop would make."""
        outcome = self.workspace.run(EXPERIMENT, CKPT, "cluster=inline", *arguments)
        assert outcome.exit_code == 0, outcome.text
        assert "Resuming: " in outcome.text
        assert_exact(self.output, finished.output)

    def require_nothing_left(self, *jobs: str) -> None:
        """No process of jobs, no folder of Ray, nothing by which ranks found each other."""
        wait_until(lambda: not any(self.slurm.processes(job=job) for job in jobs), "processes")
        wait_until(
            lambda: not [p for p in psutil.process_iter() if _is_left(p)], "processes of Ray"
        )
        wait_until(lambda: not any(map(_owner_is_gone, _folders_of_ray())), "folders of Ray")
        # For a rank that never came, the word of the end stays, and nothing else.
        left = [file.name for folder in self.logs.glob("ranks-*") for file in folder.iterdir()]
        assert set(left) <= {"done.json"}


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job, and the command that has submitted it."""

    site: Site
    started: Started
    job: str

    def wait_for_shards(self, number: int) -> None:
        """Wait until so many shards are committed."""
        self.started.wait_for(
            lambda: len(entries(self.site.output)) >= number, what=f"{number} shards"
        )

    def finish(self) -> Outcome:
        return self.started.finish(timeout_s=240)

    def rank(self, rank: int) -> psutil.Process:
        """The process of the program on a rank."""
        wanted = {"SLURM_JOB_ID": self.job, "SLURM_PROCID": str(rank)}
        found = [
            process
            for process in self.site.slurm.processes(job=self.job, node=f"n{rank + 1}")
            if "submitit.core._submit" in " ".join(process.cmdline())
            and wanted.items() <= process.environ().items()
            and process.name() != "srun"
        ]
        return min(found, key=lambda process: process.create_time())

    def raylet(self, rank: int) -> psutil.Process:
        """The process that is the node of a rank in Ray."""
        below = self.rank(rank).children(recursive=True)
        return next(process for process in below if process.name() == "raylet")


def wait_until(condition: Callable[[], object], what: str, *, timeout_s: float = 60) -> None:
    """Wait until a condition holds, and fail if it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still: {what}"
        time.sleep(0.1)


def _folders_of_ray() -> list[str]:
    return [folder.name for folder in Path("/tmp").glob("artifactgen-ray-*")]


def _owner_is_gone(words: str) -> bool:
    """Whether words name a folder of Ray whose run is dead; other tests have theirs."""
    found = re.search(r"artifactgen-ray-(\d+)-", words)
    return found is not None and not psutil.pid_exists(int(found[1]))


def _is_left(process: psutil.Process) -> bool:
    """Whether a process of a Ray has outlived its run."""
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline())
        is_orphan = words.startswith("ray::") and process.ppid() == 1
        return process.status() != psutil.STATUS_ZOMBIE and (is_orphan or _owner_is_gone(words))
    return False


@pytest.fixture
def site(workspace: Workspace, slurm: Slurm) -> Iterator[Site]:
    """A workspace with a slow source; what is left in the queue is cancelled."""
    yield Site(with_source(workspace, "slow", SOURCE, OPTIONS), slurm)
    slurm.run("scancel", "--quiet", "--user=root")
    wait_until(lambda: not slurm.run("squeue", "--noheader"), "jobs")

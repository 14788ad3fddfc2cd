"""What every runner keeps to: walks the YAMLs of `configs/cluster/`."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.workspace import CKPT, EXPERIMENT, Workspace, assert_exact

from artifactgen.device import Devices, find_devices
from artifactgen.errors import ConfigError
from distributed.cores import allowed_cores, threads_for
from distributed.runners.base import Runner
from distributed.runners.slurm import Leader, Slurm
from distributed.slurm.requeue import Life

CONFIGS = Path(__file__).parents[2] / "configs" / "cluster"
CPU = Devices("cpu", "cpu", 0, False)
FOUR_GPUS = Devices("cuda", "NVIDIA H100", 4, True)
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


STEP = {
    "SLURM_PROCID": "0",
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "1",
    "SLURM_NNODES": "1",
    "SLURM_CPUS_PER_TASK": "1",
}
"""What `srun` tells the only task of a job."""


def make(name: str, **changes: Any) -> Runner:
    """With the options of its YAML. Of SLURM's, what drives a job of one node."""
    options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text("utf-8"))
    module, _, cls = options.pop("_target_").rpartition(".")
    made = getattr(importlib.import_module(module), cls)(**{**options, **changes})
    if isinstance(made, Slurm):
        return Leader(options=made, own=None, life=Life())
    assert isinstance(made, Runner)
    return made


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runner(name: str) -> Runner:
    return make(name)


def test_it_knows_the_devices_that_compute(runner: Runner) -> None:
    assert runner.devices("cpu") == find_devices("cpu")
    assert runner.devices("cpu").kind == "cpu"


def test_a_staff_has_workers_with_threads(runner: Runner) -> None:
    for devices in (CPU, FOUR_GPUS):
        for tasks in (0, 1, 1000):
            workers = runner.staff(devices, tasks=tasks)
            assert workers.count >= 1
            assert workers.threads_each >= 1
            assert workers.where
            assert workers.count == 1 or not workers.in_this_process


def test_bytes_do_not_depend_on_how_many_tasks_are_left(runner: Runner) -> None:
    """Threads decide how sums are rounded."""
    threads = {runner.staff(CPU, tasks=tasks).threads_each for tasks in (1, 2, 1000)}
    assert len(threads) == 1


def test_more_workers_than_gpus_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.workers=5"):  # noqa: PT012
        runner = make(name, workers=5)
        runner.staff(FOUR_GPUS, tasks=100)


def test_a_worker_for_each_gpu() -> None:
    assert make("local").staff(FOUR_GPUS, tasks=100).count == 4
    assert make("local").staff(FOUR_GPUS, tasks=1).in_this_process
    assert make("ray", workers=None).staff(FOUR_GPUS, tasks=100).count == 4
    assert make("local", workers=2).staff(CPU, tasks=100).where == "Ray"


@pytest.mark.ray
def test_it_gives_the_bytes_of_the_others(
    name: str, workspace: Workspace, finished: Workspace
) -> None:
    # In a process of its own: cluster=slurm ends all that its process has started.
    options = (EXPERIMENT, CKPT, f"cluster={name}", "cluster.threads_per_worker=1")
    outcome = workspace.start(*options, **(STEP if name == "slurm" else {})).finish()
    assert outcome.exit_code == 0, outcome.text
    assert_exact(workspace.output, finished.output)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("50000 100000", 1), ("150000 100000", 1), ("garbage", None)],
)
def test_a_containers_quota_counts(tmp_path: Path, quota: str, cores: int | None) -> None:
    unlimited = allowed_cores(tmp_path / "none")
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert allowed_cores(tmp_path) == (unlimited if cores is None else min(cores, unlimited))


def test_the_older_files_of_a_quota_count(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    assert allowed_cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert allowed_cores(tmp_path) == allowed_cores(tmp_path / "none")


@pytest.mark.parametrize(
    ("task", "given", "cores"),
    [
        ({"SLURM_PROCID": "0"}, "1", 1),
        ({"SLURM_PROCID": "0"}, "4096", None),
        ({"SLURM_PROCID": "0"}, "", None),
        ({}, "1", None),
    ],
    ids=["fewer", "more", "unknown", "outside of a step"],
)
def test_what_slurm_means_for_a_task_counts_inside_of_it(
    monkeypatch: pytest.MonkeyPatch, task: dict[str, str], given: str, cores: int | None
) -> None:
    """A shell on a login node may have the variable of some other job."""
    for name in ("SLURM_PROCID", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    free = allowed_cores()
    for name, value in {**task, "SLURM_CPUS_PER_TASK": given}.items():
        monkeypatch.setenv(name, value)
    assert allowed_cores() == (cores or free)


@pytest.mark.parametrize(
    ("limit", "expected"), [("1", 1), ("1,2", 1), ("0", None), ("", None), ("many", None)]
)
def test_omp_num_threads_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = threads_for(1)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert threads_for(1) == (expected or free)
    assert make("local").staff(CPU, tasks=1).threads_each == (expected or free)
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert threads_for(1) == free, "a limit, not a wish"
    assert replace(make("local"), threads_per_worker=3).staff(CPU, tasks=1).threads_each == 3

"""Which of several jobs a job of SLURM is, and what its nodes come to as workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifactgen.device import Devices
from artifactgen.errors import ConfigError
from artifactgen.types import Part
from distributed.runners.slurm import Leader, Slurm
from distributed.slurm.allocation import Allocation
from distributed.slurm.requeue import Life

STEP = {"SLURM_JOB_ID": "19", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}
CPU = Devices("cpu", "cpu", 0, False)
FOUR_GPUS = Devices("cuda", "NVIDIA H100", 4, True)


def runner(**options: Any) -> Slurm:
    return Slurm(log_dir=Path("logs"), **options)


def allocation(index: int | None) -> Allocation:
    of_array = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": str(index)}
    return Allocation.of(STEP if index is None else {**STEP, **of_array})


@pytest.mark.parametrize(
    ("options", "index", "part"),
    [
        ({}, None, None),
        ({}, 3, None),
        ({"jobs": 8}, 3, Part(3, 8)),
        ({"jobs": 8, "job": 0}, 3, Part(0, 8)),
        ({"jobs": 8, "job": 7}, None, Part(7, 8)),
    ],
    ids=["alone", "of a sweep", "of an array", "told, in an array", "told"],
)
def test_which_job_this_is(options: dict[str, Any], index: int | None, part: Part | None) -> None:
    """A sweep is an array as well: each of its jobs has a run of its own."""
    assert runner(**options).own_part(allocation(index)) == part


@pytest.mark.parametrize("index", [None, 8])
def test_a_job_that_cannot_be_told_from_others_is_refused(index: int | None) -> None:
    with pytest.raises(ConfigError, match=rf"number {index} of an array: .*--array=0-7, or set"):
        runner(jobs=8).own_part(allocation(index))


@pytest.mark.parametrize(
    "options", [{"jobs": 0}, {"jobs": 2, "job": 2}, {"jobs": 2, "job": -1}, {"job": 1}], ids=str
)
def test_numbers_of_jobs_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"jobs must be 1 or more, and job one of 0 to jobs - 1"):
        runner(**options)


def test_one_node_works_as_a_machine_does() -> None:
    leader = Leader(options=runner(), own=Part(1, 2), life=Life())
    assert leader.part() == Part(1, 2)
    assert leader.staff(FOUR_GPUS, tasks=100).count == 4
    assert leader.staff(CPU, tasks=100).in_this_process
    with pytest.raises(ConfigError, match=r"cluster\.workers=5"):
        Leader(options=runner(workers=5), own=None, life=Life()).staff(FOUR_GPUS, tasks=100)

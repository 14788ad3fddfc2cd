"""What a task of a job reads from its environment, as `srun` of SLURM 22.05 set it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from artifactgen.errors import ConfigError
from artifactgen.store.lock import slurm_job
from distributed.slurm.allocation import Allocation


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.split())


TWO_NODES = environment("""
    SLURMD_NODENAME=n2 SLURM_CLUSTER_NAME=dev SLURM_CPUS_ON_NODE=1 SLURM_CPUS_PER_TASK=1
    SLURM_DISTRIBUTION=cyclic SLURM_GTIDS=1 SLURM_JOBID=11 SLURM_JOB_CPUS_PER_NODE=1(x2)
    SLURM_JOB_ID=11 SLURM_JOB_NAME=env SLURM_JOB_NODELIST=n[1-2] SLURM_JOB_NUM_NODES=2
    SLURM_JOB_PARTITION=debug SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 SLURM_LOCALID=0 SLURM_NNODES=2
    SLURM_NODEID=1 SLURM_NODELIST=n[1-2] SLURM_NPROCS=2 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=1
    SLURM_PRIO_PROCESS=0 SLURM_PROCID=1 SLURM_SRUN_COMM_HOST=127.0.0.1 SLURM_SRUN_COMM_PORT=36329
    SLURM_STEPID=0 SLURM_STEP_ID=0 SLURM_STEP_LAUNCHER_PORT=36329 SLURM_STEP_NODELIST=n[1-2]
    SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=1(x2)
    SLURM_SUBMIT_DIR=/tmp SLURM_SUBMIT_HOST=vm SLURM_TASKS_PER_NODE=1(x2) SLURM_TASK_PID=32560
    SLURM_TOPOLOGY_ADDR=n2 SLURM_TOPOLOGY_ADDR_PATTERN=node SLURM_UMASK=0022
    SLURM_WORKING_CLUSTER=dev:127.0.0.1:7163:9728:109
""")
"""The second rank of `srun --nodes=2 --ntasks-per-node=1 --cpus-per-task=1`."""
OF_ARRAY = environment("""
    SLURMD_NODENAME=n1 SLURM_ARRAY_JOB_ID=12 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_ID=1
    SLURM_ARRAY_TASK_MAX=1 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_STEP=1 SLURM_CPUS_ON_NODE=1
    SLURM_GTIDS=0 SLURM_JOBID=13 SLURM_JOB_CPUS_PER_NODE=1 SLURM_JOB_ID=13 SLURM_JOB_NAME=wrap
    SLURM_JOB_NODELIST=n1 SLURM_JOB_NUM_NODES=1 SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 SLURM_LOCALID=0
    SLURM_MEM_PER_CPU=100 SLURM_NNODES=1 SLURM_NODEID=0 SLURM_NODELIST=n1 SLURM_NPROCS=1
    SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_SRUN_COMM_PORT=36151 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n1
    SLURM_STEP_NUM_NODES=1 SLURM_STEP_NUM_TASKS=1 SLURM_STEP_TASKS_PER_NODE=1
    SLURM_TASKS_PER_NODE=1
""")
"""The second job of `sbatch --array=0-1 --mem-per-cpu=100`, in which `srun` is called."""


def without(taken: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in taken.items() if name not in names}


def test_a_step_on_two_nodes() -> None:
    assert Allocation.of(TWO_NODES) == Allocation(
        job_id="11",
        rank=1,
        ranks=2,
        array_index=None,
        memory_mb=None,
        node_list="n[1-2]",
        launched_from="127.0.0.1",
        step="11-0-0-36329",
    )


def test_a_job_of_an_array_has_the_id_that_commands_take() -> None:
    found = Allocation.of(OF_ARRAY)
    assert (found.job_id, found.array_index) == ("12_1", 1)
    assert (found.rank, found.ranks) == (0, 1)
    assert slurm_job(OF_ARRAY) == "12_1"
    assert slurm_job(TWO_NODES) == "11"
    assert slurm_job({}) is None


def test_ranks_of_a_step_agree_on_its_name_and_lives_of_a_job_do_not() -> None:
    other_rank = {**TWO_NODES, "SLURM_PROCID": "0", "SLURM_NODEID": "0"}
    assert Allocation.of(other_rank).step == Allocation.of(TWO_NODES).step
    requeued = Allocation.of({**TWO_NODES, "SLURM_RESTART_COUNT": "2"})
    next_step = Allocation.of({**TWO_NODES, "SLURM_STEP_ID": "1"})
    other_cluster = Allocation.of({**TWO_NODES, "SLURM_SRUN_COMM_PORT": "40000"})
    steps = {found.step for found in (requeued, next_step, other_cluster)}
    assert len({*steps, Allocation.of(TWO_NODES).step}) == 4


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "8"}, 800),
        ({"SLURM_MEM_PER_CPU": "0", "SLURM_CPUS_ON_NODE": "8"}, None),
        ({"SLURM_MEM_PER_NODE": "UNLIMITED"}, None),
        ({}, None),
    ],
    ids=["node", "all of it", "cores", "all by core", "no number", "unknown"],
)
def test_memory_of_the_node(memory: dict[str, str], expected: int | None) -> None:
    assert Allocation.of({**TWO_NODES, **memory}).memory_mb == expected
    assert Allocation.of(OF_ARRAY).memory_mb == 100


def test_several_tasks_on_a_node_are_refused() -> None:
    many = {**TWO_NODES, "SLURM_NTASKS": "8"}
    with pytest.raises(ConfigError, match=r"8 tasks on 2 nodes\. Set --ntasks-per-node=1"):
        Allocation.of(many)


def test_a_step_on_a_part_of_the_job_counts_by_itself() -> None:
    """`srun --nodes=1 --ntasks=1` in a job of two nodes."""
    part = {**OF_ARRAY, "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_NODELIST": "n[1-2]"}
    assert Allocation.of(part).ranks == 1
    assert Allocation.of(part).node_list == "n1"


def test_an_older_srun_tells_less() -> None:
    less = without(TWO_NODES, "SLURM_STEP_NUM_NODES", "SLURM_STEP_NODELIST")
    assert Allocation.of(less) == Allocation.of(TWO_NODES)


@pytest.mark.parametrize("missing", ["SLURM_PROCID", "SLURM_JOB_ID"])
def test_outside_of_a_step_it_says_how_to_submit(missing: str) -> None:
    with pytest.raises(ConfigError, match=r"runs inside a job: .*hydra/launcher=submitit_slurm"):
        Allocation.of(without(TWO_NODES, missing))


def test_names_of_nodes_that_slurm_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Allocation.of(TWO_NODES).hosts() == ["rank 0", "rank 1"]


@pytest.mark.parametrize("launched_from", ["127.0.0.1", "", "no address"])
def test_the_address_is_one_of_this_machine(launched_from: str) -> None:
    found = Allocation.of({**TWO_NODES, "SLURM_LAUNCH_NODE_IPADDR": launched_from}).address()
    with socket.socket() as probe:
        probe.bind((found, 0))

"""What SLURM has given to this process: read from the environment that `srun` sets."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from artifactgen.errors import ConfigError
from artifactgen.store.lock import slurm_job

_ANYWHERE = "192.0.2.1"
"""An address of no machine (RFC 5737): which of ours a packet to it would leave from is asked."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A job step with one task on each node, as the task of one of them sees it."""

    job_id: str
    """`1234`; of an array `1234_7`, as SLURM's commands take it."""
    rank: int
    ranks: int
    array_index: int | None
    memory_mb: int | None
    """Of this node; None = no limit."""
    node_list: str
    """Names of the nodes in SLURM's short form: `n[1-2]`."""
    launched_from: str
    """Address of the machine that `srun` runs on."""
    step: str
    """Names this step of this life of the job, equal on all of its ranks."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read it.

        Raises:
            ConfigError: this process is no task of a job step, or several are on one node.
        """
        job_id = slurm_job(environment)
        if "SLURM_PROCID" not in environment or job_id is None:
            raise ConfigError(
                "cluster=slurm runs inside a job: submit this command with "
                "hydra/launcher=submitit_slurm, or by slurm/artifacts.sbatch."
            )
        if int(environment.get("SLURM_NNODES", "1")) > 1 and "SLURM_STEP_ID" not in environment:
            raise ConfigError(
                "cluster=slurm on several nodes is started on each of them by srun, as in "
                "slurm/artifacts.sbatch."
            )
        ranks = int(environment.get("SLURM_NTASKS", "1"))
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
        if ranks != nodes:
            raise ConfigError(
                f"cluster=slurm needs one task on each node, and there are {ranks} tasks on "
                f"{nodes} nodes. Set --ntasks-per-node=1; a task owns all GPUs of its node."
            )
        return cls(
            job_id=job_id,
            rank=int(environment["SLURM_PROCID"]),
            ranks=ranks,
            array_index=_number(environment.get("SLURM_ARRAY_TASK_ID")),
            memory_mb=_memory_mb(environment),
            node_list=environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "")),
            launched_from=environment.get("SLURM_LAUNCH_NODE_IPADDR", ""),
            step=_step(environment),
        )

    def address(self) -> str:
        """This node's IPv4 address in the network that the job's nodes share.

        The one that reaches the machine which launched the step: of several networks of a node,
        that is SLURM's own.
        """
        for target in (self.launched_from, _ANYWHERE):
            found = _source_towards(target)
            if found and not found.startswith("127."):
                return found
        return socket.gethostbyname(socket.gethostname())

    def hosts(self) -> list[str]:
        """Names of the nodes, by rank; `rank 3` where SLURM does not tell."""
        command = ["scontrol", "show", "hostnames", self.node_list]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            names = answer.stdout.split()
        except (OSError, subprocess.SubprocessError):
            names = []
        return [*names, *(f"rank {rank}" for rank in range(len(names), self.ranks))]


def _step(environment: Mapping[str, str]) -> str:
    """Job, restart and srun's own port: ids begin anew where a cluster is set up again."""
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID", "SLURM_SRUN_COMM_PORT")
    return "-".join(environment.get(name, "0") for name in names)


def _memory_mb(environment: Mapping[str, str]) -> int | None:
    """`SLURM_MEM_PER_NODE`, or per core; 0 stands for all of the node."""
    node = _number(environment.get("SLURM_MEM_PER_NODE"))
    core, cores = (_number(environment.get(f"SLURM_{n}")) for n in ("MEM_PER_CPU", "CPUS_ON_NODE"))
    return node or (core * cores if core and cores else None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _source_towards(target: str) -> str | None:
    """The address of ours that packets to `target` leave from; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 1))
        except OSError:
            return None
        return str(probe.getsockname()[0])

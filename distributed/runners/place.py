"""Where a rank of a job stands, and what it gives to the Ray of all."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from distributed.runners.base import RunnerOptions
from distributed.runners.ray_node import NodeOptions
from distributed.runners.rendezvous import Rendezvous
from distributed.runners.watch import Watch
from distributed.slurm.allocation import Allocation

if TYPE_CHECKING:
    from artifactgen.device import Devices

log = logging.getLogger(__name__)

TRIES = 3
"""Starts of a node's Ray, before it is given up."""
_PORTS_APART = 7
"""Between the wishes of neighbouring jobs, so that their ranks seldom meet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank stands: its job, and the files by which the ranks find each other."""

    allocation: Allocation
    rendezvous: Rendezvous
    join_s: float
    quiet: bool

    @classmethod
    def of(cls, allocation: Allocation, log_dir: Path, *, join_s: float) -> Self:
        """The place of this process."""
        rendezvous = Rendezvous.of_step(log_dir, allocation.step)
        return cls(allocation, rendezvous, join_s, not log.isEnabledFor(logging.DEBUG))

    def watch(self, *ranks: int) -> Watch:
        """Watch some of the ranks."""
        names = self.allocation.hosts()
        hosts = {rank: names[rank] for rank in ranks}
        return Watch(self.rendezvous, hosts, start_s=self.join_s)

    def wish(self) -> int:
        """Which block of ports to try first."""
        job = zlib.crc32(self.allocation.step.encode())
        return job * _PORTS_APART + self.allocation.rank

    def node(
        self, folder: Path, token: str, runner: RunnerOptions, devices: Devices
    ) -> NodeOptions:
        """What this rank's node of Ray is to be."""
        return NodeOptions(
            folder=folder,
            name=node_name(self.allocation.rank, 0),
            address=self.allocation.address(),
            token=token,
            workers=runner.count(devices),
            gpus=devices.gpus,
            memory_mb=self.allocation.memory_mb,
        )


def node_name(rank: int, restarts: int) -> str:
    """The name of a node in Ray, which knows a dead one for a while."""
    return f"{rank}.{restarts}"

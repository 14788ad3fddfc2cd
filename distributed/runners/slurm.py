"""A job of SLURM: the first rank drives, and on several nodes the others lend it theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from artifactgen.errors import ConfigError
from artifactgen.types import Accelerator, Part, Receipt, Task
from distributed.runners.base import Runner, RunnerOptions, Workers
from distributed.runners.descendants import ending_descendants
from distributed.runners.local import Local
from distributed.runners.place import Place
from distributed.runners.ray_cluster import Cluster, lead
from distributed.runners.ray_member import serve
from distributed.slurm.allocation import Allocation
from distributed.slurm.requeue import Life, requeueing

if TYPE_CHECKING:
    from artifactgen.assembly import Assembly
    from artifactgen.device import Devices
    from artifactgen.job import Job


@dataclass(frozen=True, kw_only=True)
class Slurm(RunnerOptions):
    """All nodes of the job that this process runs in, one task on each."""

    log_dir: Path
    """A folder that all nodes see."""
    jobs: int = 1
    """Independent jobs that share the run."""
    job: int | None = None
    """Which of them this is; None = `SLURM_ARRAY_TASK_ID`."""
    join_s: float = 300.0
    """Seconds until every node must have joined."""
    max_num_timeout: int = 100
    """How often a job that met its time limit is requeued."""

    def __post_init__(self) -> None:
        RunnerOptions.__post_init__(self)
        if self.jobs < 1 or not 0 <= (self.job or 0) < self.jobs:
            raise ConfigError(
                f"cluster.jobs={self.jobs}, cluster.job={self.job}: jobs must be 1 or more, and "
                "job one of 0 to jobs - 1."
            )

    @contextmanager
    def enter(self, accelerator: Accelerator) -> Iterator[Runner | None]:
        allocation = Allocation.of(os.environ)
        own = self.own_part(allocation)
        place = Place.of(allocation, self.log_dir, join_s=self.join_s)
        with ending_descendants():
            if allocation.rank:
                serve(place, self, accelerator)
                yield None
                return
            with requeueing(allocation, self.log_dir, limit=self.max_num_timeout) as life:
                if allocation.ranks == 1:
                    yield Leader(options=self, own=own, life=life)
                    return
                with lead(place, self, accelerator, life) as cluster:
                    yield Leader(options=self, own=own, life=life, cluster=cluster)

    def own_part(self, allocation: Allocation) -> Part | None:
        """Which of several jobs this is.

        Raises:
            ConfigError: that cannot be told.
        """
        if self.jobs == 1:
            return None
        index = allocation.array_index if self.job is None else self.job
        if index is None or index >= self.jobs:
            raise ConfigError(
                f"cluster.jobs={self.jobs}, and this job is number {index} of an array: submit it "
                f"with --array=0-{self.jobs - 1}, or set cluster.job."
            )
        return Part(index, self.jobs)


@dataclass(frozen=True, kw_only=True)
class Leader(Runner):
    """The first rank of a job."""

    options: Slurm
    own: Part | None
    life: Life
    cluster: Cluster | None = None
    """The Ray of all nodes; None on a single one."""

    def part(self) -> Part | None:
        return self.own

    def staff(self, devices: Devices, *, tasks: int) -> Workers:
        each = self.options.count(devices)
        threads = self.options.threads(each)
        if self.cluster is None:
            return Local(workers=each, threads_per_worker=threads).staff(devices, tasks=tasks)
        nodes = self.cluster.nodes
        return Workers(nodes * each, threads, f"Ray on {nodes} nodes")

    def run(
        self, job: Job, tasks: Sequence[Task], workers: Workers, assembly: Assembly | None
    ) -> Iterator[Receipt]:
        if self.cluster is None:
            receipts = Local().run(job, tasks, workers, assembly)
        else:
            receipts = self.cluster.run(job, tasks, workers)
        self.life.is_at_shards = True
        for receipt in receipts:
            self.life.committed += 1
            yield receipt
        self.life.is_at_shards = False

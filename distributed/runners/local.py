"""This machine: in one process where one worker is enough, else a Ray of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifactgen.types import Receipt, Task
from distributed.runners.base import Runner, Workers
from distributed.runners.inline import Inline
from distributed.runners.ray import Ray

if TYPE_CHECKING:
    from artifactgen.assembly import Assembly
    from artifactgen.device import Devices
    from artifactgen.job import Job


@dataclass(frozen=True, kw_only=True)
class Local(Runner):
    """Ray only where it has a use: it takes ten seconds to start."""

    def staff(self, devices: Devices, *, tasks: int) -> Workers:
        workers = self.count(devices)
        # The same number of threads, and thereby the same bytes, however many tasks are left.
        threads = self.threads(workers)
        if workers > 1 and tasks > 1:
            return Ray(workers=workers, threads_per_worker=threads).staff(devices, tasks=tasks)
        return Inline(threads_per_worker=threads).staff(devices, tasks=tasks)

    def run(
        self, job: Job, tasks: Sequence[Task], workers: Workers, assembly: Assembly | None
    ) -> Iterator[Receipt]:
        runner = Inline() if workers.in_this_process else Ray()
        yield from runner.run(job, tasks, workers, assembly)

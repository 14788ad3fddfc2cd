"""A Ray of our own on this machine, with a process for each worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifactgen.types import Receipt, Task
from distributed.runners.base import Runner, Workers

if TYPE_CHECKING:
    from artifactgen.assembly import Assembly
    from artifactgen.device import Devices
    from artifactgen.job import Job


@dataclass(frozen=True, kw_only=True)
class Ray(Runner):
    """Workers as actors of Ray Data."""

    def staff(self, devices: Devices, *, tasks: int) -> Workers:
        workers = self.count(devices)
        return Workers(workers, self.threads(workers), "Ray")

    def run(
        self, job: Job, tasks: Sequence[Task], workers: Workers, assembly: Assembly | None
    ) -> Iterator[Receipt]:
        from distributed.runners.ray_data import run_on_ray  # Ray takes seconds to import
        from distributed.runners.ray_session import local_ray

        with local_ray(workers.count) as ray:
            yield from run_on_ray(job, tasks, workers.count, ray, gpu_each=self._needs_gpu(job))

    def _needs_gpu(self, job: Job) -> bool:
        return self.devices(job.accelerator).gpus > 0

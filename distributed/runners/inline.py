"""Everything in this process, one shard after another: for one device, and for pdb."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifactgen.errors import ConfigError
from artifactgen.types import Receipt, Task
from distributed.runners.base import Runner, Workers, do_task

if TYPE_CHECKING:
    from artifactgen.assembly import Assembly
    from artifactgen.device import Devices
    from artifactgen.job import Job


@dataclass(frozen=True, kw_only=True)
class Inline(Runner):
    """A `for` loop over one worker."""

    def __post_init__(self) -> None:
        Runner.__post_init__(self)
        if self.workers not in (None, 1):
            raise ConfigError(
                f"cluster.workers={self.workers}: in one process there is one. Set cluster=ray."
            )

    def staff(self, devices: Devices, *, tasks: int) -> Workers:
        return Workers(1, self.threads(1), "in this process", in_this_process=True)

    def run(
        self, job: Job, tasks: Sequence[Task], workers: Workers, assembly: Assembly | None
    ) -> Iterator[Receipt]:
        from artifactgen.worker import Worker  # torch takes seconds to import

        worker = Worker(job, assembly)
        for task in tasks:
            yield do_task(worker, task)

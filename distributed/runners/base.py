"""What a runner is to the program: it hands tasks to workers.

A runner is a frozen dataclass of options, named under `_target_` in a YAML of `configs/cluster/`.
It knows nothing of artifacts, and workers know nothing of it. To add a runner, write a file in this
folder and a YAML; see `docs/extending.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifactgen.errors import ConfigError, RunError, UsageError, forbid_exit, where_raised
from artifactgen.patience import patiently
from artifactgen.types import Accelerator, Part, Receipt, Task
from distributed.cores import threads_for

if TYPE_CHECKING:
    from artifactgen.assembly import Assembly
    from artifactgen.device import Devices
    from artifactgen.job import Job


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work."""

    count: int
    threads_each: int
    """CPU threads of torch in each."""
    where: str
    """For people: `in this process`, `Ray`."""
    in_this_process: bool = False
    """Whether they compute here, so that they can use the model that the driver has loaded."""


@dataclass(frozen=True, kw_only=True)
class RunnerOptions(ABC):
    """`cluster` in the configuration."""

    workers: int | None = None
    """On each machine; None = one for each GPU, or one on the CPU."""
    threads_per_worker: int | None = None
    """CPU threads of torch in each worker; None = the cores shared evenly."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_worker"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"cluster.{name}={value}: must be 1 or more.")

    @abstractmethod
    def enter(self, accelerator: Accelerator) -> AbstractContextManager[Runner | None]:
        """Take the place that this process has among those that do the run.

        Gives the runner that drives it from here, for the block; or None, once all is over, where
        another process does.

        Raises:
            UsageError: this runner cannot work here.
            RunError: a process that it needs did not come, or is gone.
        """

    def devices(self, accelerator: Accelerator) -> Devices:
        """The devices of this machine that compute. The driver may have others, or none.

        Raises:
            ConfigError: there are none such.
        """
        from artifactgen.device import find_devices  # torch takes seconds to import

        return find_devices(accelerator)

    def count(self, devices: Devices) -> int:
        """How many workers were asked for, or one for each GPU; checked."""
        if self.workers and devices.gpus and self.workers > devices.gpus:
            raise ConfigError(
                f"cluster.workers={self.workers}, but there are {devices.gpus} GPUs; a worker "
                "owns one each."
            )
        return self.workers or max(devices.gpus, 1)

    def threads(self, workers: int) -> int:
        """Threads of each of so many workers on this machine."""
        return self.threads_per_worker or threads_for(workers)


@dataclass(frozen=True, kw_only=True)
class Runner(RunnerOptions):
    """What hands tasks to workers."""

    @contextmanager
    def enter(self, accelerator: Accelerator) -> Iterator[Runner | None]:
        yield self

    def part(self) -> Part | None:
        """Which of several independent jobs on one run this is; None = the only one."""
        return None

    @abstractmethod
    def staff(self, devices: Devices, *, tasks: int) -> Workers:
        """As many workers as were asked for, or as there is use for.

        Args:
            devices: what `devices` gave.
            tasks: how many there are to do.

        Raises:
            ConfigError: more workers than devices, or than this runner can have.
        """

    @abstractmethod
    def run(
        self, job: Job, tasks: Sequence[Task], workers: Workers, assembly: Assembly | None
    ) -> Iterator[Receipt]:
        """Do every task; the receipts come as shards are committed, in no promised order.

        Args:
            job: the same for every worker.
            tasks: at least one.
            workers: what `staff` gave.
            assembly: the model that the driver has loaded, if `workers.in_this_process`.

        Raises:
            ArtifactGenError, OSError: what a worker raised.
            RunError: something else in a worker, or it died more often than it is retried.
        """


def do_task(worker: Callable[[Task], Receipt], task: Task) -> Receipt:
    """Do a shard; what may pass, such as a file server that does not answer, is tried again.

    Args:
        worker: a `Worker`, or what makes one first.
        task: the shard.

    Raises:
        OSError: of a kind that no repetition mends, such as a full disk.
        RunError: it failed as often as it is tried, the data set or its source is at fault, or
            somebody's code is, or would have ended the program; the message names the shard.
    """
    name = task.shard.name

    def do() -> Receipt:
        with forbid_exit("Code of the configuration", f"shard {name} was done", RunError):
            return worker(task)

    try:
        return patiently(do, what=f"Shard {name}")
    except UsageError as error:
        raise RunError(f"Shard {name}: {error}") from error
    except RuntimeError as error:
        raise RunError(
            f"Shard {name}: {type(error).__name__}: {error} ({where_raised(error)})"
        ) from error

"""Runners hand tasks to workers. They know nothing of artifacts; workers know nothing of them."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from artifactgen.errors import ConfigError, RunError, UsageError
from artifactgen.job import Job
from artifactgen.types import Receipt, Task
from artifactgen.worker import Worker
from distributed.settings import ClusterSettings

log = logging.getLogger(__name__)

_TRIES = 3
_FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work."""

    workers: int
    threads_per_worker: int
    on_gpu: bool
    ray: bool


def choose_crew(cluster: ClusterSettings, job: Job, *, tasks: int) -> Crew:
    """As many workers as were asked for, or as there are GPUs; Ray only where it has a use.

    Raises:
        ConfigError: more workers than GPUs, or several workers in one process.
    """
    on_gpu = job.accelerator != "cpu" and torch.cuda.is_available()
    gpus = torch.cuda.device_count() if on_gpu else 0
    workers = cluster.workers or max(gpus, 1)
    if gpus and workers > gpus:
        raise ConfigError(
            f"cluster.workers={workers}, but there are {gpus} GPUs; a worker owns one each."
        )
    if cluster.runner == "inline" and workers > 1:
        raise ConfigError(
            f"cluster.workers={workers} needs Ray. Set cluster.runner=ray or cluster.workers=1."
        )
    use_ray = cluster.runner == "ray" or (cluster.runner == "auto" and workers > 1 and tasks > 1)
    threads = cluster.threads_per_worker or max(1, _cores() // workers)
    return Crew(workers if use_ray else 1, threads, on_gpu, use_ray)


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_tasks(job: Job, tasks: Sequence[Task], crew: Crew) -> Iterator[Receipt]:
    """Do every task; the receipts come as shards are committed, in no promised order.

    Raises:
        RunError: a task failed; also where what was checked before has changed since.
    """
    job = replace(job, compute_threads=crew.threads_per_worker)
    try:
        yield from _on_ray(job, tasks, crew) if crew.ray else _in_process(job, tasks)
    except UsageError as error:
        raise RunError(str(error)) from error


def _on_ray(job: Job, tasks: Sequence[Task], crew: Crew) -> Iterator[Receipt]:
    from distributed.runners.ray import run_on_ray  # Ray takes seconds to import

    return run_on_ray(job, tasks, crew)


def _in_process(job: Job, tasks: Sequence[Task]) -> Iterator[Receipt]:
    worker = Worker(job)
    for task in tasks:
        yield do_task(worker, task)


def do_task(worker: Worker, task: Task) -> Receipt:
    """Do a shard; what may pass, such as a file server that does not answer, is tried again.

    Raises:
        OSError: of a kind that no repetition mends, such as a full disk.
        RunError: it failed as often as it is tried; the message names the shard.
    """
    for left in reversed(range(_TRIES)):
        try:
            return worker(task)
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno in _FINAL:
                raise
            reason = f"Shard {task.shard.name}: {type(error).__name__}: {error}"
            if not left:
                raise RunError(f"{reason}\nIt was tried {_TRIES} times.") from error
            log.warning("%s. Trying again.", reason)
    raise AssertionError

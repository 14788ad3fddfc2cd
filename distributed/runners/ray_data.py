"""The same workers, as actors of Ray Data: descriptors go out, receipts come back."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError, RayTaskError
from ray.util.annotations import RayDeprecationWarning

from artifactgen.errors import ArtifactGenError, RunError
from artifactgen.job import Job
from artifactgen.types import Receipt, Task
from artifactgen.worker import Worker
from distributed.runners.base import do_task

_OBJECT_STORE_BYTES = 200 * 1024**2
"""Descriptors and receipts are all that passes through it."""
_RETRIES = 3
_THREADS_END_S = 3.0


class WorkerActor:
    """A worker in a process of its own."""

    def __init__(self, import_from: tuple[str, ...], job: bytes) -> None:
        """Unpickle the job, whose classes may be the user's own.

        Args:
            import_from: folders of the user's modules.
            job: pickled.
        """
        sys.path += [folder for folder in import_from if folder not in sys.path]
        self._job: Job = pickle.loads(job)
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Do a task; the answer is a receipt, or the error that a person is to read.

        As an answer, an error arrives as it is: of one that is raised, Ray keeps the text only.
        """
        answer: Receipt | ArtifactGenError | OSError
        try:
            self._worker = self._worker or Worker(self._job)
            answer = do_task(self._worker, pickle.loads(row["task"]))
        except (ArtifactGenError, OSError) as error:
            answer = error
        return {"answer": pickle.dumps(answer)}


def run_on_ray(
    job: Job, tasks: Sequence[Task], workers: int, *, gpu_each: bool
) -> Iterator[Receipt]:
    """Do every task on a Ray of our own, which ends with the last of them.

    Args:
        job: the same for every worker.
        tasks: at least one.
        workers: processes.
        gpu_each: whether each owns a GPU.

    Raises:
        ArtifactGenError, OSError: what a worker raised.
        RunError: something else in a worker, or its process died more often than it is retried.
    """
    with _local_ray(workers):
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        # One block for each row: rows of a block would run one after another on one actor.
        shards = ray.data.from_items(rows, override_num_blocks=len(rows))
        with warnings.catch_warnings():
            # Up to 2.63 this is how retries are bounded; by default they have no end.
            warnings.simplefilter("ignore", category=RayDeprecationWarning)
            receipts = shards.map(
                WorkerActor,
                fn_constructor_args=(job.import_from, pickle.dumps(job)),
                compute=ActorPoolStrategy(size=min(workers, len(tasks))),
                num_cpus=1,
                num_gpus=1 if gpu_each else 0,
                max_task_retries=_RETRIES,
            )
        try:
            # Closed, it ends the execution; only dropped, it goes on while Ray is shut down.
            with closing(iter(receipts.iter_rows())) as rows_done:
                for row in rows_done:
                    answer = pickle.loads(row["answer"])
                    if isinstance(answer, Exception):
                        raise answer
                    yield answer
        except RayError as error:
            raise RunError(_true_message(error)) from error


def _true_message(error: RayError) -> str:
    """What went wrong in the worker, out of the text that Ray wraps around it."""
    if not isinstance(error, RayTaskError):
        return str(error).strip().splitlines()[0]
    lines = str(error).partition("\n\nThe above exception was")[0].splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return "\n".join(lines[frames[-1] + 1 if frames else 0 :]).strip()


@contextmanager
def _local_ray(workers: int) -> Iterator[None]:
    """A private Ray on this machine; any other one is left alone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    on_term = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    signal.signal(signal.SIGTERM, on_term)  # Ray's own would end the process without a word
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we tell errors ourselves
    before = set(threading.enumerate())
    try:
        yield
    finally:
        _join_threads_since(before)
        ray.shutdown()


def _join_threads_since(before: set[threading.Thread]) -> None:
    """Let the threads of Ray Data end, for a bounded time; one of them waits for work forever.

    A thread that calls into Ray after its shutdown ends the process at once, with exit code 1 and
    without a word (`core_worker_process.cc`, "The core worker has already been shutdown").
    """
    deadline = time.monotonic() + _THREADS_END_S
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))

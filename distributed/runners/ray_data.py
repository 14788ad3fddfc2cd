"""The same workers, as actors of Ray Data: descriptors go out, receipts come back."""

from __future__ import annotations

import logging
import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError, RayTaskError
from ray.util.annotations import RayDeprecationWarning

from artifactgen.errors import ArtifactGenError, LostWorkersError, RunError
from artifactgen.job import Job
from artifactgen.types import Receipt, Shard, Task
from artifactgen.worker import Worker
from distributed.runners.base import do_task
from distributed.runners.deaths import Begun, cause, oom_kills
from distributed.runners.ray_session import RaySession

log = logging.getLogger(__name__)

_RETRIES = 3


class WorkerActor:
    """A worker in a process of its own."""

    def __init__(self, import_from: tuple[str, ...], job: bytes, begun: Begun) -> None:
        """Unpickle the job, whose classes may be the user's own.

        Args:
            import_from: folders of the user's modules.
            job: pickled.
            begun: where to note the shards that are under way.
        """
        sys.path += [folder for folder in import_from if folder not in sys.path]
        self._job: Job = pickle.loads(job)
        self._begun = begun
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Do a task; the answer is a receipt, or the error that a person is to read.

        As an answer, an error arrives as it is: of one that is raised, Ray keeps the text only.
        """
        answer: Receipt | ArtifactGenError | OSError
        task: Task = pickle.loads(row["task"])
        try:
            with self._begun(task.shard):
                answer = do_task(self._do, task)
        except (ArtifactGenError, OSError) as error:
            answer = error
        return {"answer": pickle.dumps(answer)}

    def _do(self, task: Task) -> Receipt:
        """The first shard also loads the model, in which the same may fail as in reading."""
        self._worker = self._worker or Worker(self._job)
        return self._worker(task)


def run_on_ray(
    job: Job, tasks: Sequence[Task], workers: int, session: RaySession, *, gpu_each: bool
) -> Iterator[Receipt]:
    """Do every task on a Ray.

    Args:
        job: the same for every worker.
        tasks: at least one.
        workers: processes.
        session: the Ray, which this process drives.
        gpu_each: whether each owns a GPU.

    Raises:
        ArtifactGenError, OSError: what a worker raised.
        RunError: something else in a worker, or its process died more often than it is retried.
    """
    begun, ended_before = Begun(session.notes), oom_kills()
    answers = _answers(job, tasks, workers, begun, gpu_each=gpu_each)
    try:
        # Closed, it ends the execution; only dropped, it goes on while Ray is shut down.
        with closing(iter(answers.iter_rows())) as rows:
            for row in rows:
                answer = pickle.loads(row["answer"])
                if isinstance(answer, Exception):
                    raise answer
                _tell_of_deaths(begun, answer)
                yield answer
    except RayTaskError as error:
        raise RunError(_true_message(error)) from error
    except RayError as error:
        shards = begun.under_way([task.shard for task in tasks])
        message = _obituary(error, begun, shards, session.files, ended_before)
        raise LostWorkersError(message) from error


def _answers(
    job: Job, tasks: Sequence[Task], workers: int, begun: Begun, *, gpu_each: bool
) -> ray.data.Dataset:
    """What is to be done, as Ray Data takes it; it begins when the first row is asked for."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # Else workers of a small allocation wait forever for memory that they do not need.
    context.default_map_logical_memory_enabled = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we tell errors ourselves
    rows = [{"task": pickle.dumps(task)} for task in tasks]
    # One block for each row: rows of a block would run one after another on one actor.
    shards = ray.data.from_items(rows, override_num_blocks=len(rows))
    with warnings.catch_warnings():
        # Up to 2.63 this is how retries are bounded; by default they have no end.
        warnings.simplefilter("ignore", category=RayDeprecationWarning)
        return shards.map(
            WorkerActor,
            fn_constructor_args=(job.import_from, pickle.dumps(job), begun),
            compute=ActorPoolStrategy(size=min(workers, len(tasks))),
            num_cpus=1,
            num_gpus=1 if gpu_each else 0,
            max_task_retries=_RETRIES,
        )


def _tell_of_deaths(begun: Begun, receipt: Receipt) -> None:
    deaths = len(begun.tries(receipt.shard)) - 1
    if deaths:
        times = "once" if deaths == 1 else f"{deaths} times"
        log.warning("Shard %s is done; its worker had died %s.", receipt.shard.name, times)


def _true_message(error: RayTaskError) -> str:
    """What went wrong in the worker, out of the text that Ray wraps around it."""
    lines = str(error).partition("\n\nThe above exception was")[0].splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return "\n".join(lines[frames[-1] + 1 if frames else 0 :]).strip()


def _obituary(
    error: RayError, begun: Begun, shards: Sequence[Shard], files: Path, oom_kills_before: int
) -> str:
    """Which shards dead workers were at, and what they died of."""
    if not shards:
        return f"Ray: {_first_line(error)}"
    names = ", ".join(f"{s.name} (rows {s.start} to {s.stop - 1} of {s.split})" for s in shards)
    processes = begun.tries(shards[0])
    reason = cause(processes, files, oom_kills=oom_kills() - oom_kills_before)
    return f"Shard {names}: its worker died at each of {len(processes)} tries.\n{reason}"


def _first_line(error: RayError) -> str:
    return str(error).strip().partition("\n")[0]

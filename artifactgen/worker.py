"""Read this file first: a worker turns one shard into committed files.

    read → one forward pass → artifacts → draw and write → commit

Reader threads decode the next batches while the device computes this one, and writer threads
draw and encode the one before. Pictures are written under names that follow from the record, and
become part of the run only by the shard's ledger entry. So a shard that is interrupted, or done
twice, leaves the same bytes.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from artifactgen.assembly import Assembly, assemble, make_engine, make_view
from artifactgen.clock import Clock
from artifactgen.data.batches import in_their_places, places
from artifactgen.data.reading import read_range
from artifactgen.device import device_name, make_reproducible, resolve_device
from artifactgen.engine import InFlight, finite_rows
from artifactgen.errors import RecordError, RunError
from artifactgen.job import Job
from artifactgen.shard import GatheredShard, kept_arrays
from artifactgen.store.atomic import sync_filesystem, write_bytes
from artifactgen.store.ledger import commit, remove_former_pictures
from artifactgen.store.shardfile import Picture, RecordPictures, paths_of
from artifactgen.types import Failure, Receipt, Sample, Shard, Task

Arrays = Mapping[str, NDArray[Any]]
Batch = tuple[list[Sample], list[Failure]]
Started = tuple[list[Sample], list[Failure], InFlight | None]
Item = TypeVar("Item")
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A batch whose pictures are being drawn."""

    samples: Sequence[Sample] = ()
    arrays: Arrays = field(default_factory=dict)
    futures: Sequence[Future[RecordPictures | Failure]] = ()


class Worker:
    """Owns one device and does shard after shard."""

    def __init__(self, job: Job, assembly: Assembly | None = None) -> None:
        """Put the model on the device.

        Args:
            job: the whole specification.
            assembly: the job's model and artifacts, where this process has them already; else
                they are loaded.

        Raises:
            CheckpointError: the checkpoint is not the one that the job was planned with.
            RunError: this machine's device is of another kind than the job was planned for.
        """
        if job.compute_threads is not None:
            torch.set_num_threads(job.compute_threads)
        cv2.setNumThreads(1)  # readers and writers are threads already
        make_reproducible()
        self._device = _planned_device(job)
        assembly = assembly or assemble(job)
        self._job = job
        self._engine = make_engine(job, assembly)
        self._kept = kept_arrays(assembly.artifacts, save_maps=job.save_maps)
        self._readers = ThreadPoolExecutor(job.reader_threads, thread_name_prefix="reader")
        self._writers = ThreadPoolExecutor(job.reader_threads, thread_name_prefix="writer")

    def __call__(self, task: Task) -> Receipt:
        """Do one shard and commit it. Failed records are in the receipt; anything else raises."""
        clock, gathered = Clock(), GatheredShard(self._job.labels, self._kept)
        # Who waits for whom: readers are two batches ahead of the device and the device one ahead
        # of this loop; writers are one behind it. The loop waits for the device, and then for the
        # pictures of the batch before, so that on a slow disk a few batches are held, not all.
        drawing = _Drawing()
        for samples, failures, flight in _one_ahead(self._started(task.shard, clock)):
            with clock("compute"):
                samples, arrays, broken = self._finish(task, samples, failures, flight)
            with clock("write"):
                self._gather(gathered, drawing)
            gathered.failures += failures + broken
            gathered.halved_batches += flight is not None and flight.halved
            drawing = _Drawing(samples, arrays, self._start_drawing(task, samples, arrays))
        with clock("write"):
            self._gather(gathered, drawing)
        with clock("commit"):
            self._remove_former(task, gathered)
            files = gathered.write(self._job, self._engine.artifacts, task)
            sync_filesystem(self._job.output_dir)
        receipt = gathered.receipt(task, device=self._device, files=files, seconds=clock.seconds)
        commit(self._job.layout, task.scope, receipt, fingerprint=self._job.fingerprint)
        return receipt

    def _remove_former(self, task: Task, gathered: GatheredShard) -> None:
        """Remove the pictures of records that were good when the shard was done before."""
        drawn = {path for record in gathered.pictures for path, _ in paths_of(record)}
        job = self._job
        remove_former_pictures(
            job.layout, task.scope, task.shard, but=drawn, fingerprint=job.fingerprint
        )

    def _batches(self, shard: Shard) -> Iterator[Batch]:
        """Decoded batches in order; the next ones are under way while one is used."""
        starts = range(shard.start, shard.stop, self._job.batch_size)
        pending: deque[list[Future[list[Sample | Failure]]]] = deque()
        for start in starts:
            stop = min(start + self._job.batch_size, shard.stop)
            pending.append(self._start_reading(shard.split, start, stop))
            if len(pending) > _BATCHES_AHEAD:
                yield _gather(pending.popleft())
        while pending:
            yield _gather(pending.popleft())

    def _start_reading(
        self, split: str, start: int, stop: int
    ) -> list[Future[list[Sample | Failure]]]:
        """Share the rows of a batch among the reader threads, in contiguous ranges."""
        job = self._job
        step = -(-(stop - start) // job.reader_threads)

        def read(first: int) -> list[Sample | Failure]:
            last = min(first + step, stop)
            return read_range(job.source, job.catalog, split, first, last)

        return [self._readers.submit(read, first) for first in range(start, stop, step)]

    def _started(self, shard: Shard, clock: Clock) -> Iterator[Started]:
        """Batches that the device has begun with."""
        for samples, failures in clock.each("read", self._batches(shard)):
            with clock("compute"):
                images = in_their_places(samples, failures)
                flight = None if images is None else self._engine.start(images)
            yield samples, failures, flight

    def _finish(
        self,
        task: Task,
        samples: list[Sample],
        unread: Sequence[Failure],
        flight: InFlight | None,
    ) -> tuple[list[Sample], dict[str, NDArray[Any]], list[Failure]]:
        """What came of a batch: the records to keep with their rows, and those it broke on."""
        if flight is None:
            return [], {}, []
        rows = places(samples, unread)
        arrays = {name: array[rows] for name, array in flight.arrays().items()}
        finite = finite_rows(arrays, len(samples))
        failures = [
            Failure(
                s.record_id, task.shard.split, s.row, "compute", "the model gave NaN or infinity"
            )
            for s, is_finite in zip(samples, finite, strict=True)
            if not is_finite
        ]
        wanted = [not task.record_ids or s.record_id in task.record_ids for s in samples]
        keep = np.flatnonzero(finite & np.array(wanted))
        return [samples[i] for i in keep], {k: v[keep] for k, v in arrays.items()}, failures

    def _start_drawing(
        self, task: Task, samples: Sequence[Sample], arrays: Arrays
    ) -> list[Future[RecordPictures | Failure]]:
        """Let the writer threads draw a batch, a record each."""
        split = task.shard.split
        return [
            self._writers.submit(self._draw, split, sample, {k: v[i] for k, v in arrays.items()})
            for i, sample in enumerate(samples)
        ]

    def _draw(self, split: str, sample: Sample, arrays: Arrays) -> RecordPictures | Failure:
        """Draw and write the pictures of one record: all of them, or none."""
        layout = self._job.layout
        drawn: dict[str, dict[str, Picture]] = {}
        try:
            view = make_view(self._job, sample, arrays)
            for name, artifact in self._engine.artifacts.items():
                for path, content in artifact.draw(view, arrays):
                    write_bytes(layout.root / path, content, temp_dir=layout.temp, durable=False)
                    drawn.setdefault(name, {})[path] = Picture.of(content)
        except RecordError as error:
            for path, _ in paths_of(drawn):
                (layout.root / path).unlink()
            return Failure(sample.record_id, split, sample.row, "draw", str(error))
        return drawn

    def _gather(self, gathered: GatheredShard, drawing: _Drawing) -> None:
        """Wait for the pictures of a batch; what could not be drawn is no part of the shard."""
        results = [future.result() for future in drawing.futures]
        keep = [i for i, result in enumerate(results) if not isinstance(result, Failure)]
        arrays = {name: array[keep] for name, array in drawing.arrays.items()}
        pictures = [result for result in results if not isinstance(result, Failure)]
        gathered.failures += [result for result in results if isinstance(result, Failure)]
        gathered.add([drawing.samples[i] for i in keep], arrays, pictures)
        if keep:
            gathered.count_empty(self._engine.artifacts, arrays)


def _planned_device(job: Job) -> str:
    """Name of the device at hand, which must be of the kind that the other workers have."""
    name = device_name(resolve_device(job.accelerator))
    if job.device not in (None, name):
        raise RunError(
            f"A worker on {socket.gethostname()} has {name}, and the run was planned for "
            f"{job.device}: they round differently.\n"
            "Run it on machines of one kind (on SLURM by --constraint, on one machine by "
            "CUDA_VISIBLE_DEVICES)."
        )
    return name


def _one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each only when the next one is there: the device never waits for the CPU."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _gather(futures: Sequence[Future[list[Sample | Failure]]]) -> Batch:
    items = [item for future in futures for item in future.result()]
    samples = [item for item in items if isinstance(item, Sample)]
    return samples, [item for item in items if isinstance(item, Failure)]

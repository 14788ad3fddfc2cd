"""Everything that can be known before a run: one record goes the whole way, nothing is written.

The checkpoint is loaded and audited, the artifacts are bound to the model, and the first record
that can be read is computed and drawn on the CPU. What is wrong with the configuration, the data
set or the checkpoint shows here, within seconds, and not after hours in a queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from artifactgen.artifacts.kind import BoundArtifact
from artifactgen.engine import Engine, finite_rows
from artifactgen.errors import DataError
from artifactgen.job import Job, bind_artifacts, load_subject, make_engine
from artifactgen.types import Failure, Sample
from artifactgen.worker import make_view

_RECORDS_TRIED = 32
SUPPORTED = "ok"


@dataclass(frozen=True, slots=True)
class Preflight:
    """What one record told of the run to come."""

    job: Job
    """The job without the artifacts that the model cannot give."""
    status: dict[str, str]
    """Artifact to `ok`, or to why the model cannot give it."""
    details: dict[str, dict[str, Any]]
    """Artifact to what was resolved: layers, classes, method."""
    embedding_shape: tuple[int, ...] | None
    """Shape of one embedding; None where none are made."""
    pictures_per_record: int
    bytes_per_record: int
    """Of pictures and embedding, as measured on one record."""
    peak_bytes_per_record: int
    """Likewise while shards are merged, when embeddings are there three times; with maps."""


def preflight(job: Job) -> Preflight:
    """Take one record all the way.

    Raises:
        UsageError: the data set, the checkpoint or an option does not do.
    """
    subject = load_subject(job)
    bound, unsupported = bind_artifacts(job.artifacts, subject)
    kept = replace(job, artifacts={name: job.artifacts[name] for name in bound})
    on_cpu = replace(kept, accelerator="cpu", precision="32-true")
    engine = make_engine(on_cpu, subject, bound)
    arrays, pictures = _probe(on_cpu, engine, bound)
    embeddings = arrays.get("embeddings")
    embedding_bytes = 0 if embeddings is None else embeddings.nbytes
    maps = [name for artifact in bound.values() for name in artifact.maps()]
    maps_bytes = sum(arrays[name].nbytes for name in maps) if job.save_maps else 0
    return Preflight(
        job=kept,
        status={name: unsupported.get(name, SUPPORTED) for name in job.artifacts},
        details={name: artifact.describe() for name, artifact in bound.items()},
        embedding_shape=None if embeddings is None else embeddings.shape[1:],
        pictures_per_record=len(pictures),
        bytes_per_record=sum(pictures) + embedding_bytes,
        peak_bytes_per_record=sum(pictures) + 3 * embedding_bytes + maps_bytes,
    )


def _probe(
    job: Job, engine: Engine, bound: dict[str, BoundArtifact]
) -> tuple[dict[str, Any], list[int]]:
    """Compute and draw one record; its arrays, and the size of each picture."""
    sample = _first_readable(job)
    images_BCHW = sample.image_CHW[None]
    run = engine.run(images_BCHW)
    for artifact in bound.values():
        artifact.check(run)
    arrays = engine.compute(run)
    if not finite_rows(arrays, 1).all():
        return arrays, []  # a record of its own trouble: the run will count it as a failure
    rows = {name: array[0] for name, array in arrays.items()}
    view = make_view(job, sample, rows)
    pictures = [len(c) for artifact in bound.values() for _, c in artifact.draw(view, rows)]
    return arrays, pictures


def _first_readable(job: Job) -> Sample:
    failures: list[Failure] = []
    for item in islice(_records(job), _RECORDS_TRIED):
        if isinstance(item, Sample):
            return item
        failures.append(item)
    if not failures:
        raise DataError("The data set has no records in any split.")
    first = failures[0]
    raise DataError(
        f"None of the first {len(failures)} records can be read. "
        f"The first, {first.record_id}: {first.reason}"
    )


def _records(job: Job) -> Iterator[Sample | Failure]:
    """Records of all splits, one by one."""
    for split, index in job.catalog.splits.items():
        for row in range(len(index)):
            yield from job.source.read(job.catalog, split, row, row + 1)

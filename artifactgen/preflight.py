"""Everything that can be known before a run: its first records go the whole way but for writing.

The checkpoint is loaded and audited, the artifacts are bound to the model, what only real images
can tell is settled for all workers, and one record is computed and drawn, on the CPU. What is wrong
with the configuration, the data set or the checkpoint shows here, within seconds, and not after
hours in a queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.engine import Engine, finite_rows
from artifactgen.errors import ConfigError, DataError
from artifactgen.job import Job, bind_artifacts, load_subject, make_engine
from artifactgen.types import Failure, Sample
from artifactgen.worker import make_view

_RECORDS_TRIED = 32
_RECORDS_USED = 4
SUPPORTED = "ok"


@dataclass(frozen=True, slots=True)
class Preflight:
    """What one record told of the run to come."""

    job: Job
    """The job without the artifacts that the model cannot give, the others settled."""
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
    """Take the first records all the way.

    Raises:
        UsageError: the data set, the checkpoint or an option does not do.
    """
    subject = load_subject(job)
    bound, unsupported = bind_artifacts(job.artifacts, subject)
    if not bound:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unsupported.items())
        raise ConfigError(f"The model can give nothing of what is asked for: {reasons}.")
    on_cpu = replace(job, accelerator="cpu", precision="32-true", compiled=False)
    samples = _first_readable(job)
    settled = _settle(make_engine(on_cpu, subject, bound), samples)
    bound, _ = bind_artifacts(settled, subject)
    tried = _try(on_cpu, subject, bound, samples[0])
    maps_bytes = tried.maps_bytes if job.save_maps else 0
    return Preflight(
        job=replace(job, artifacts=settled),
        status={name: unsupported.get(name, SUPPORTED) for name in job.artifacts},
        details={name: artifact.describe() for name, artifact in bound.items()},
        embedding_shape=tried.embedding_shape,
        pictures_per_record=round(tried.pictures),
        bytes_per_record=round(tried.picture_bytes) + tried.embedding_bytes,
        peak_bytes_per_record=round(tried.picture_bytes + maps_bytes) + 3 * tried.embedding_bytes,
    )


@dataclass(slots=True)
class _Tried:
    """What one record comes to; kinds that were tried in part are extrapolated."""

    embedding_shape: tuple[int, ...] | None = None
    embedding_bytes: int = 0
    maps_bytes: float = 0
    pictures: float = 0
    picture_bytes: float = 0


def _try(job: Job, subject: Subject, bound: Mapping[str, BoundArtifact], sample: Sample) -> _Tried:
    """Compute and draw one record, as far as that takes little time."""
    trials = {name: artifact.trial() for name, artifact in bound.items()}
    engine = make_engine(job, subject, {name: trial.artifact for name, trial in trials.items()})
    arrays = engine(sample.image_CHW[None])
    rows = {name: array[0] for name, array in arrays.items()}
    tried = _Tried()
    if (embedding := rows.get("embeddings")) is not None:
        tried.embedding_shape, tried.embedding_bytes = embedding.shape, embedding.nbytes
    # Of a record of its own trouble nothing is drawn: the run will count it as a failure.
    view = make_view(job, sample, rows) if finite_rows(arrays, 1).all() else None
    for trial in trials.values():
        drawn = [] if view is None else [len(png) for _, png in trial.artifact.draw(view, rows)]
        tried.pictures += len(drawn) / trial.share
        tried.picture_bytes += sum(drawn) / trial.share
        tried.maps_bytes += sum(rows[name].nbytes for name in trial.artifact.maps()) / trial.share
    return tried


def _settle(engine: Engine, samples: list[Sample]) -> dict[str, Artifact]:
    """The options of the artifacts, everything settled that only images can tell."""
    images_BCHW = np.stack([sample.image_CHW for sample in samples])
    usable = np.isfinite(images_BCHW).reshape(len(samples), -1).all(1)
    run = engine.run(images_BCHW[usable] if usable.any() else images_BCHW)
    return {name: artifact.settle(run) for name, artifact in engine.artifacts.items()}


def _first_readable(job: Job) -> list[Sample]:
    samples: list[Sample] = []
    failures: list[Failure] = []
    for item in islice(_records(job), _RECORDS_TRIED):
        if isinstance(item, Failure):
            failures.append(item)
            continue
        samples.append(item)
        if len(samples) == min(_RECORDS_USED, job.batch_size):
            break
    if not (samples or failures):
        raise DataError("The data set has no records in any split.")
    if not samples:
        first = failures[0]
        raise DataError(
            f"None of the first {len(failures)} records can be read. "
            f"The first, {first.record_id}: {first.reason}"
        )
    return samples


def _records(job: Job) -> Iterator[Sample | Failure]:
    """Records of all splits, one by one."""
    for split, index in job.catalog.splits.items():
        for row in range(len(index)):
            yield from job.source.read(job.catalog, split, row, row + 1)

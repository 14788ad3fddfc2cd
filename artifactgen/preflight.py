"""Everything that can be known before a run: its first records go the whole way but for writing.

The artifacts are bound to the model, what only real images can tell is decided for all workers,
and one record is computed and drawn, on the CPU. What is wrong with the configuration, the data set
or the checkpoint shows here, within seconds, and not after hours in a queue. At most four small
forward passes are made: one to look into the model, one or two for where gradients flow, and one of
the first records, which serves calibration and trial; then some more records are classified, for as
long as that takes but seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifactgen.artifacts.base import BoundArtifact, Excerpts, Subject, Trial, View
from artifactgen.assembly import Assembly, bind_artifacts, make_engine, make_view, subject_of
from artifactgen.data.reading import read_record, stack
from artifactgen.engine import Engine, finite_rows
from artifactgen.errors import ConfigError, DataError, RecordError
from artifactgen.firstlook import FirstLook, look
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.grid import require_layer
from artifactgen.introspect.taps import Taps
from artifactgen.job import Job
from artifactgen.models.audit import LoadAudit
from artifactgen.models.loading import LoadedModel
from artifactgen.store.output import is_called
from artifactgen.types import SUPPORTED, Failure, Sample

_RECORDS_TRIED = 32
_RECORDS_USED = 4


@dataclass(slots=True)
class Preflight:
    """What the first records told of the run to come."""

    job: Job
    """The job without the artifacts that the model cannot give, the others calibrated."""
    audit: LoadAudit
    """How the checkpoint fitted the model."""
    excerpts: Mapping[str, Excerpts]
    """Artifact to what the contact sheet shows of it; does not hold the model."""
    status: dict[str, str]
    """Artifact to `ok`, or to why the model cannot give it."""
    resolved: dict[str, dict[str, Any]]
    """Artifact to what its options came to: layers, classes, method."""
    embedding_shape: tuple[int, ...] | None
    """Shape of one embedding; None where none are made."""
    pictures_per_record: int
    bytes_per_record: int
    """Of pictures and embedding, as measured on one record."""
    peak_bytes_per_record: int
    """Likewise while shards are merged, when embeddings are there three times; with maps."""
    first_look: FirstLook
    """What some records say of the set-up."""
    _assembly: Assembly | None

    def take_assembly(self) -> Assembly:
        """The model that was loaded, with the calibrated artifacts bound to it; only once.

        What has taken it decides how long the model stays in memory.
        """
        assembly, self._assembly = self._assembly, None
        assert assembly is not None, "it was taken before"
        return assembly


def preflight(
    job: Job,
    loaded: LoadedModel,
    *,
    rows: Mapping[str, int] | None = None,
    doubts: Sequence[str] = (),
    in_haste: bool = True,
) -> Preflight:
    """Take the first records all the way.

    Args:
        job: what is to be done; not yet calibrated.
        loaded: its model, on the CPU.
        rows: split to how many of its records to look among for what is wrong with the set-up;
            None = all.
        doubts: what is known of that already.
        in_haste: see `look`.

    Raises:
        UsageError: the data set, the checkpoint or an option is not usable.
    """
    subject, bound, unsupported = bind(job, loaded)
    if job.compute_threads is not None:
        torch.set_num_threads(job.compute_threads)
    on_cpu = replace(job, accelerator="cpu", precision="32-true", compiled=False)
    readable, failures = _first_readable(job)
    samples = _usable(readable)
    images_BCHW = stack(samples)
    job = replace(job, catalog=replace(job.catalog, dtype=str(images_BCHW.dtype)))
    engine = make_engine(on_cpu, Assembly(subject, bound))
    taps = Taps.union(artifact.calibration_taps for artifact in bound.values())
    forward_pass = engine.forward(images_BCHW, taps)
    calibrated = {name: artifact.calibrate(forward_pass) for name, artifact in bound.items()}
    tried = {name: artifact.trial() for name, artifact in calibrated.items()}
    arrays = _compute(engine, tried, forward_pass)
    cost = _measure(on_cpu, samples, tried, arrays)
    of_maps = [doubt for trial in tried.values() for doubt in trial.artifact.doubts(arrays)]
    of_maps += _doubts_of_logits(forward_pass.logits_BK)
    predictions = arrays["predictions"].tolist() if subject.has_head else []
    if rows is None:
        rows = {split: len(index) for split, index in job.catalog.splits.items()}
    first_look = look(
        job, engine, samples, predictions, failures=failures, rows=rows, in_haste=in_haste
    )
    maps_bytes = cost.maps_bytes if job.save_maps else 0
    options = {name: artifact.options for name, artifact in calibrated.items()}
    return Preflight(
        job=replace(job, artifacts=options),
        audit=loaded.audit,
        excerpts={name: artifact.excerpts for name, artifact in calibrated.items()},
        status={name: unsupported.get(name, SUPPORTED) for name in job.artifacts},
        resolved={name: artifact.resolved() for name, artifact in calibrated.items()},
        embedding_shape=cost.embedding_shape,
        pictures_per_record=round(cost.pictures),
        bytes_per_record=round(cost.picture_bytes) + cost.embedding_bytes,
        peak_bytes_per_record=round(cost.picture_bytes + maps_bytes) + 3 * cost.embedding_bytes,
        first_look=replace(first_look, doubts=(*doubts, *first_look.doubts, *of_maps)),
        _assembly=Assembly(subject, calibrated),
    )


def bind(job: Job, loaded: LoadedModel) -> tuple[Subject, dict[str, BoundArtifact], dict[str, str]]:
    """Check what is asked for against the model, for which no record is needed.

    Returns:
        The model, the kinds bound to it, and why there is nothing of the other kinds.

    Raises:
        ConfigError: an option does not fit the model or its classes.
    """
    subject = subject_of(job, loaded)
    bound, unsupported = bind_artifacts(job.artifacts, subject)
    if not bound:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unsupported.items())
        raise ConfigError(f"The model can give nothing of what is asked for: {reasons}.")
    for name, artifact in bound.items():
        for path in artifact.calibration_taps.paths:
            require_layer(subject.model, path, option=f"{name}.layer")
    return subject, bound, unsupported


def _compute(
    engine: Engine, tried: Mapping[str, Trial], forward_pass: Pass
) -> dict[str, NDArray[Any]]:
    """The arrays of the kinds, as far as they are tried, each of leading dimension B."""
    artifacts = {name: trial.artifact for name, trial in tried.items()}
    tensors = replace(engine, artifacts=artifacts).compute(forward_pass)
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@dataclass(slots=True)
class _Cost:
    """What a record comes to, on the average; kinds that were tried in part are extrapolated."""

    embedding_shape: tuple[int, ...] | None = None
    embedding_bytes: int = 0
    maps_bytes: float = 0
    pictures: float = 0
    picture_bytes: float = 0


def _measure(
    job: Job,
    samples: Sequence[Sample],
    tried: Mapping[str, Trial],
    arrays: Mapping[str, NDArray[Any]],
) -> _Cost:
    """Draw the records, and count. Of those with NaN nothing is drawn: a run has them fail."""
    cost = _Cost()
    if (embeddings := arrays.get("embeddings")) is not None:
        cost.embedding_shape, cost.embedding_bytes = embeddings.shape[1:], embeddings[0].nbytes
    finite = np.flatnonzero(finite_rows(arrays, len(samples))).tolist()
    weight = 1 / max(len(finite), 1)
    for i in finite:
        rows = {name: array[i] for name, array in arrays.items()}
        view = make_view(job, samples[i], rows)
        for name, trial in tried.items():
            drawn = _draw(name, trial.artifact, view, rows)
            cost.pictures += weight * len(drawn) / trial.share
            cost.picture_bytes += weight * sum(map(len, drawn.values())) / trial.share
    for trial in tried.values():
        cost.maps_bytes += sum(arrays[map_][0].nbytes for map_ in trial.artifact.maps) / trial.share
    return cost


def _draw(
    name: str, artifact: BoundArtifact, view: View, rows: Mapping[str, NDArray[Any]]
) -> dict[str, bytes]:
    """The pictures of a record; none of one that the kind cannot draw, which a run has fail."""
    try:
        drawn = dict(artifact.draw(view, rows))
    except RecordError:
        return {}
    foreign = [path for path in drawn if not is_called(path, artifact.options.files)]
    if foreign:
        raise ConfigError(
            f"{name} draws {foreign[0]}, and says in `files` that its pictures are called "
            f"{', '.join(artifact.options.files) or 'nothing'}."
        )
    return drawn


def _doubts_of_logits(logits_BK: torch.Tensor | None) -> list[str]:
    """Say so where what should be logits has gone through a softmax already."""
    if logits_BK is None or logits_BK.shape[1] < 2:
        return []
    sums_B = logits_BK.detach().float().sum(1)
    if logits_BK.min() < 0 or not torch.allclose(sums_B, torch.ones_like(sums_B), atol=1e-3):
        return []
    return [
        "The model gives probabilities where logits are expected (they sum to 1): a softmax is "
        "taken of them again, so that probabilities in reports are too even, and GradCAM explains "
        "probabilities. Give it without its last softmax."
    ]


def _usable(samples: list[Sample]) -> list[Sample]:
    """Those without NaN and infinity; all of them, if there are none such."""
    finite = [sample for sample in samples if np.isfinite(sample.image_CHW).all()]
    return finite or samples


def _first_readable(job: Job) -> tuple[list[Sample], list[Failure]]:
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
    return samples, failures


def _records(job: Job) -> Iterator[Sample | Failure]:
    """Records of all splits, one at a time."""
    for split, index in job.catalog.splits.items():
        for row in range(len(index)):
            yield read_record(job.source, job.catalog, split, row)

"""From the specification of a job to what computes: model, artifacts, engine, view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject, View
from artifactgen.device import resolve_device
from artifactgen.engine import Engine, is_convolutional
from artifactgen.errors import UnsupportedError
from artifactgen.introspect.compiling import compile_parts
from artifactgen.introspect.taps import Taps
from artifactgen.job import Job
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.rendering.image import display_images
from artifactgen.rendering.placing import Canvas, canvas_of
from artifactgen.types import UNKNOWN_LABEL, Sample


@dataclass(frozen=True, slots=True)
class Assembly:
    """A model with its weights, and the kinds of artifact bound to it."""

    subject: Subject
    artifacts: Mapping[str, BoundArtifact]


def assemble(job: Job) -> Assembly:
    """Load a job's model, and bind its artifacts.

    Raises:
        CheckpointError: the checkpoint is not the one that the job was planned with.
        ConfigError: nor are files that options of the model name.
    """
    job.checkpoint.require_same()
    for files in job.model_files:
        files.require_same()
    subject = subject_of(job, load_model(job.model, read_checkpoint(job.checkpoint)))
    artifacts, _ = bind_artifacts(job.artifacts, subject)
    return Assembly(subject, artifacts)


def subject_of(job: Job, loaded: LoadedModel) -> Subject:
    """A loaded model with what the job knows of its input and output."""
    assert job.source.image_size is not None
    frames = job.catalog.frame_names
    note = loaded.audit.head_note
    size = job.source.image_size
    return Subject(loaded.network, size, job.classes, loaded.has_head, frames, note)


def bind_artifacts(
    artifacts: Mapping[str, Artifact], subject: Subject
) -> tuple[dict[str, BoundArtifact], dict[str, str]]:
    """Bind the kinds that the model can give, and say why it cannot give the others."""
    bound: dict[str, BoundArtifact] = {}
    unsupported: dict[str, str] = {}
    for name, artifact in artifacts.items():
        try:
            bound[name] = artifact.bind(subject)
        except UnsupportedError as reason:
            unsupported[name] = str(reason)
    return bound, unsupported


def make_engine(job: Job, assembly: Assembly) -> Engine:
    """Put the model on the job's device."""
    device = resolve_device(job.accelerator)
    module = assembly.subject.model
    convolutional = is_convolutional(module)
    memory_format = torch.channels_last if convolutional else torch.preserve_format
    module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    engine = Engine(
        assembly.subject,
        assembly.artifacts,
        device,
        job.precision,
        job.normalization,
        fixed_batch=job.batch_size if job.compiled else None,
        channels_last=convolutional,
    )
    if job.compiled:
        hooked = Taps(inputs=assembly.subject.network.hooked)
        compile_parts(module, Taps.union((engine.taps, hooked)))
    return engine


def make_view(job: Job, sample: Sample, arrays: Mapping[str, NDArray[Any]]) -> View:
    """A record as its pictures show it; `arrays` are its rows of what the engine gave."""
    names = job.catalog.classes
    prediction = arrays.get("predictions")
    return View(
        sample=sample,
        images=display_images(
            sample.image_CHW, job.catalog.frame_names, max_value=job.normalization.max_value
        ),
        label=names[sample.label] if sample.label != UNKNOWN_LABEL else None,
        prediction=None if prediction is None else job.classes[int(prediction)],
        probability=float(arrays.get("probabilities", np.nan)),
        provenance=job.provenance,
        open_canvas=None if sample.stored is None else cache(partial(_canvas, job, sample)),
    )


def _canvas(job: Job, sample: Sample) -> Canvas:
    white = job.normalization.max_value
    return canvas_of(sample, job.catalog.frame_names, max_value=white, longest_px=job.canvas_px)

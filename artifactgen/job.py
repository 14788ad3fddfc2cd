"""The specification of a job: light, picklable, complete. The same goes to every worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from artifactgen import __version__
from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.data.base import Catalog, Source
from artifactgen.device import Accelerator, Precision, resolve_device, resolve_precision
from artifactgen.engine import Engine, Normalization, is_convolutional
from artifactgen.errors import CheckpointError, UnsupportedError
from artifactgen.introspect.compiling import compile_parts
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.timm import ModelSpec
from artifactgen.store.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to compute, from what, and where to put it."""

    source: Source
    catalog: Catalog
    model: ModelSpec
    checkpoint: Path
    checkpoint_sha256: str
    classes: tuple[str, ...]
    """Names of the classifier's outputs."""
    normalization: Normalization
    artifacts: Mapping[str, Artifact]
    output_dir: Path
    fingerprint: str
    batch_size: int
    reader_threads: int
    accelerator: Accelerator = "auto"
    precision: Precision = "auto"
    compute_threads: int | None = None
    """Threads of torch in each worker; None leaves torch's own choice."""
    compiled: bool = False
    """Whether parts of the model go through `torch.compile`."""
    save_maps: bool = False

    @property
    def layout(self) -> Layout:
        return Layout(self.output_dir)

    @property
    def provenance(self) -> dict[str, str]:
        """What every picture says of its origin."""
        return {
            "Software": f"artifactgen {__version__}",
            "Model": self.model.backbone,
            "Checkpoint": f"{self.checkpoint.name} sha256 {self.checkpoint_sha256}",
        }


def load_subject(job: Job) -> Subject:
    """Load the job's model; `CheckpointError` if the checkpoint is not what was planned with."""
    checkpoint = read_checkpoint(job.checkpoint)
    if checkpoint.sha256 != job.checkpoint_sha256:
        raise CheckpointError(
            f"{job.checkpoint} changed while the job was running. Run the same command again."
        )
    return subject_of(job, load_model(job.model, checkpoint))


def subject_of(job: Job, loaded: LoadedModel) -> Subject:
    """A loaded model with what the job knows of its input and output."""
    assert job.source.image_size is not None
    return Subject(
        loaded.model,
        job.source.image_size,
        job.classes,
        loaded.has_head,
        job.catalog.frame_names,
        job.model.in_chans,
    )


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


def make_engine(job: Job, subject: Subject, artifacts: Mapping[str, BoundArtifact]) -> Engine:
    """Put the model on the job's device."""
    device = resolve_device(job.accelerator)
    convolutional = is_convolutional(subject.model)
    layout = torch.channels_last if convolutional else torch.preserve_format
    subject.model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    engine = Engine(
        subject,
        artifacts,
        device,
        resolve_precision(job.precision, device),
        job.normalization,
        fixed_batch=job.batch_size if job.compiled else None,
        channels_last=convolutional,
    )
    if job.compiled:
        compile_parts(subject.model, engine.taps)
    return engine

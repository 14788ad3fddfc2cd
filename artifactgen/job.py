"""The specification of a job: light, picklable, complete. The same goes to every worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artifactgen import __version__
from artifactgen.artifacts.base import Artifact
from artifactgen.data.base import Catalog, Source
from artifactgen.engine import Normalization
from artifactgen.labels import Labels
from artifactgen.models.base import Family
from artifactgen.models.file import CheckpointFile
from artifactgen.models.named_files import NamedFiles
from artifactgen.store.layout import Layout
from artifactgen.types import Accelerator, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to compute, from what, and where to put it."""

    source: Source
    catalog: Catalog
    model: Family
    """Nothing of its options left open."""
    checkpoint: CheckpointFile
    model_files: tuple[NamedFiles, ...] = ()
    """What options of the model name."""
    classes: tuple[str, ...]
    """Names of the classifier's outputs."""
    labels: Labels
    """How the data set's labels stand to them."""
    normalization: Normalization
    artifacts: Mapping[str, Artifact]
    output_dir: Path
    fingerprint: str
    batch_size: int
    reader_threads: int
    accelerator: Accelerator = "auto"
    device: str | None = None
    """Name of the devices that it was planned for; None takes any."""
    precision: Precision = "32-true"
    """Decided: not `auto`."""
    compute_threads: int | None = None
    """Threads of torch in each worker; None leaves torch's own choice."""
    compiled: bool = False
    """Whether parts of the model go through `torch.compile`."""
    save_maps: bool = False
    canvas_px: int | None = None
    """Longest side of stored pictures that are drawn on, where samples bring them."""
    import_from: tuple[str, ...] = ()
    """Folders of the user's own modules, where classes of the configuration may be."""

    @property
    def layout(self) -> Layout:
        return Layout(self.output_dir)

    @property
    def provenance(self) -> dict[str, str]:
        """What every picture says of its origin."""
        return {
            "Software": f"artifactgen {__version__}",
            "Model": self.model.name,
            "Checkpoint": f"{self.checkpoint.path.name} sha256 {self.checkpoint.sha256}",
        }

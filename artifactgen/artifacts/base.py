"""What a kind of artifact is to the program.

A kind is two small objects. Its options are a frozen dataclass, picklable, made from the
configuration. Bound to a model, they become the object that computes and draws. To add a kind,
write a file in this folder and a YAML in `configs/artifact/`; see `docs/extending.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from artifactgen.introspect.forward import Pass, Taps
from artifactgen.rendering.figure.geometry import Rect
from artifactgen.types import Sample

Arrays = Mapping[str, NDArray[Any]]
Tensors = Mapping[str, Tensor]
Picture = tuple[str, bytes]
"""Path relative to the output directory, and the content of the PNG file."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that artifacts are made of."""

    model: nn.Module
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    """Names by class index; as many as the classifier has outputs."""
    has_head: bool
    """Whether the checkpoint had a classifier."""
    frame_names: tuple[str, ...] = ()
    """Names of the channels where each is a picture of its own."""
    channels: int = 3
    """Of the model's input."""


@dataclass(frozen=True, slots=True)
class View:
    """A record as a person sees it, with what the model says of it."""

    sample: Sample
    images: Sequence[NDArray[np.uint8]]
    """(H, W, 3) each: the image, or one for each frame."""
    label: str | None
    """Name of the class that the data set gives."""
    prediction: str | None
    """Name of the class that the model gives."""
    probability: float
    """Softmax probability of the predicted class; NaN without one."""
    provenance: Mapping[str, str]
    """Written into every picture: checkpoint, model, program version."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a record's pictures, for the contact sheet."""

    title: str
    path: str | None
    """Relative to the output directory; None where the record has no such picture."""
    region: Rect | None = None
    """Of the picture; None is all of it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A kind, or as much of it as takes little time."""

    artifact: BoundArtifact
    share: float = 1.0
    """Part of a record's pictures and maps that it makes."""


class Artifact(Protocol):
    """The options of a kind: a frozen dataclass."""

    def bind(self, subject: Subject) -> BoundArtifact:
        """Resolve the options against a model.

        Raises:
            ConfigError: an option does not fit the model or the classes.
            UnsupportedError: the model cannot give this kind at all.
        """
        ...


class BoundArtifact(Protocol):
    """A kind, ready to compute and draw. Used from several threads: it must not change."""

    @property
    def taps(self) -> Taps:
        """Which layers' outputs it needs."""
        ...

    def compute(self, run: Pass) -> Tensors:
        """Named float32 or integer tensors of leading dimension B, on the device."""
        ...

    def settle(self, run: Pass) -> Artifact:
        """The options with everything settled that only real images can tell.

        Called once before a run, with its first records; all workers then get these options.

        Raises:
            ConfigError: an option turns out not to fit the model.
        """
        ...

    def trial(self) -> Trial:
        """What to compute and draw of one record before a run, to know what it will be like."""
        ...

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        """The pictures of one record; `arrays` are its rows of what `compute` gave."""
        ...

    def excerpts(
        self, files: Sequence[str], *, label: int | None, prediction: int | None
    ) -> tuple[Excerpt, ...]:
        """What the contact sheet shows of a record: as many, of the same titles, for each.

        Args:
            files: the record's pictures of this kind, relative to the output directory.
            label: its class, as an index of the classifier's; None where unknown.
            prediction: likewise.
        """
        ...

    def columns(self) -> tuple[str, ...]:
        """The arrays to keep in the shard file for the reducer."""
        ...

    def maps(self) -> tuple[str, ...]:
        """The arrays to keep where `save_maps` is on."""
        ...

    def describe(self) -> dict[str, Any]:
        """What was resolved, in plain types: layers, classes, method. Goes into every report."""
        ...

"""What a kind of artifact is to the program.

A kind is two small objects. Its options are a frozen dataclass, picklable, named under `_target_`
in a YAML of `configs/artifact/`. Bound to a model, they become the object that computes and draws.
To add a kind, write a file in this folder and a YAML; see `docs/extending.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from artifactgen.introspect.taps import Taps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from artifactgen.introspect.forward import Pass
    from artifactgen.introspect.probe import Probe
    from artifactgen.models.base import Network
    from artifactgen.rendering.figure.geometry import Rect
    from artifactgen.rendering.placing import Canvas
    from artifactgen.types import Sample

Arrays = Mapping[str, "NDArray[Any]"]
Tensors = Mapping[str, "Tensor"]
Picture = tuple[str, bytes]
"""Path relative to the output directory, and the content of the PNG file."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The model that artifacts are made of."""

    network: Network
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    """Names by class index; as many as the classifier has outputs."""
    has_head: bool
    """Whether the checkpoint had a classifier."""
    frame_names: tuple[str, ...] = ()
    """Names of the channels where each is a picture of its own."""
    head_note: str = ""
    """What could be a classifier in the checkpoint, and why it is not taken for one."""

    @property
    def model(self) -> nn.Module:
        return self.network.module

    @cached_property
    def probe(self) -> Probe:
        """What one random image met on its way through the model; it is sent once."""
        from artifactgen.introspect.probe import probe  # torch: options are read without it

        return probe(self.network, self.image_size)


@dataclass(frozen=True, slots=True)
class View:
    """A record as a person sees it, with what the model predicts."""

    sample: Sample
    images: Sequence[NDArray[np.uint8]]
    """(H, W, 3) each, what the model saw: the image, or one for each frame."""
    label: str | None
    """Name of the class that the data set gives."""
    prediction: str | None
    """Name of the class that the model gives."""
    probability: float
    """Softmax probability of the predicted class; NaN without one."""
    provenance: Mapping[str, str]
    """Written into every picture: checkpoint, model, program version."""
    open_canvas: Callable[[], Canvas] | None = None
    """Gives the stored pictures, where these are drawn on; it may read a file."""

    @property
    def canvas(self) -> Canvas:
        """What maps are laid over.

        Raises:
            RecordError: the stored picture has become unreadable.
        """
        # Drawing takes half a second to import; options are read without it.
        from artifactgen.rendering.placing import Canvas

        return Canvas(self.images) if self.open_canvas is None else self.open_canvas()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a record's pictures, for the contact sheet."""

    title: str
    path: str | None
    """Relative to the output directory; None where the record has no such picture."""
    region: Rect | Callable[[tuple[int, int]], Rect] | None = None
    """Of the picture; None is all of it. A function of (H, W) of what maps were laid over, where
    the region follows from that."""


class Excerpts(Protocol):
    """Which of a record's pictures, or parts of them, the contact sheet shows."""

    def __call__(
        self, files: Sequence[str], *, label: int | None, prediction: int | None
    ) -> tuple[Excerpt, ...]:
        """The same number, with the same titles, for every record.

        Args:
            files: the record's pictures of this kind, relative to the output directory.
            label: its class, as an index of the classifier's; None where unknown.
            prediction: likewise.
        """
        ...


def no_excerpts(
    files: Sequence[str], *, label: int | None, prediction: int | None
) -> tuple[Excerpt, ...]:
    """Nothing of this kind is shown."""
    return ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A kind, or as much of it as takes little time."""

    artifact: BoundArtifact
    share: float = 1.0
    """Part of a record's pictures and maps that it makes."""


class Artifact(ABC):
    """The options of a kind: a frozen dataclass."""

    files: ClassVar[tuple[str, ...]] = ()
    """What its pictures are called, as patterns below the output directory: `gradcam/*/*.png`. A
    run that replaces what is there removes what has these names."""

    @abstractmethod
    def bind(self, subject: Subject) -> BoundArtifact:
        """Resolve the options against a model.

        Raises:
            ConfigError: an option does not fit the model or the classes.
            UnsupportedError: the model cannot give this kind at all.
        """


class BoundArtifact(ABC):
    """A kind, ready to compute and draw. Used from several threads: it must not change."""

    options: Artifact
    """What it was bound with, calibrated: bound again, in a worker, they give the same."""

    columns: ClassVar[tuple[str, ...]] = ()
    """The arrays that the reducer gets."""
    maps: ClassVar[tuple[str, ...]] = ()
    """The arrays that are kept where `save_maps` is on."""

    @property
    def taps(self) -> Taps:
        """What it needs of a forward pass."""
        return Taps()

    @property
    def calibration_taps(self) -> Taps:
        """What `calibrate` needs of a forward pass, and what `compute` may need after it."""
        return self.taps

    @abstractmethod
    def compute(self, forward_pass: Pass) -> Tensors:
        """Named float32 or integer tensors of leading dimension B, on the device."""

    def calibrate(self, forward_pass: Pass) -> BoundArtifact:
        """The kind with everything decided that only real images can tell.

        Called once before a run, with a pass of its first records; all workers then get the
        options of what this gives.

        Raises:
            ConfigError: an option turns out not to fit the model.
        """
        return self

    def trial(self) -> Trial:
        """What to compute and draw of one record before a run, to know what it will be like."""
        return Trial(self)

    def doubts(self, arrays: Arrays) -> list[str]:
        """What is questionable about the maps of a run's first records, and what would be better.

        Args:
            arrays: what `compute` gave of them, of leading dimension B.
        """
        return []

    def count_empty(self, arrays: Arrays) -> Mapping[str, int]:
        """Of how many records a map is empty, by what it is of, such as a class.

        Counted over a whole run: a map that is empty everywhere is reported.
        """
        return {}

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        """The pictures of one record; `arrays` are its rows of what `compute` gave."""
        return iter(())

    @property
    def excerpts(self) -> Excerpts:
        """What the contact sheet shows: a value that does not hold the model."""
        return no_excerpts

    def resolved(self) -> dict[str, Any]:
        """What the options came to, in plain types: layers, classes, method. For reports."""
        return {}

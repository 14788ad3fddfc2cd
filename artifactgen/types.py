"""The records that flow through the program; values without behaviour.

Shapes in array names: B batch, C channels, H W pixels, h w the grid of a layer, K classes,
L attention blocks, A attention heads, D embedding width, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

Image = NDArray[Any]
"""(C, H, W): uint8 or uint16 over the full range of the type, or float32."""

UNKNOWN_LABEL = -1

SUPPORTED = "ok"
"""Status of a kind of artifact that the model can give; else it says why not."""

Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
"""In Lightning's spelling."""


CanvasChoice = Literal["model", "source"]
"""What pictures are drawn over: what the model saw, or what the data set has of a record."""

CropMode = Literal["center", "squash", "border"]
"""timm's names. `center`: the shorter side is resized, and the centre is cut out; `squash`: both
sides are, whatever the form; `border`: the longer side is, and the rest is filled."""

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
"""Pillow's filters; where pictures shrink, all but `nearest` average."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How a picture of any size becomes the model's input, as in the evaluation of its training."""

    crop_pct: float = 1.0
    """Side of the input as a share of that of the resized picture."""
    crop_mode: CropMode = "center"
    interpolation: Interpolation = "bicubic"
    border: tuple[float, ...] = (0.0,)
    """Colour that `border` fills with, in [0, 1]; for each channel, or one for all."""
    rounds_down: bool = False
    """Whether half a pixel before the crop is rounded down, as transformers does; torchvision and
    timm round it to the even number."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in a picture; its edges may lie within pixels, and beyond the picture."""

    top: float
    """Rows of pixels between the picture's upper edge and the rectangle's."""
    left: float
    height: float
    width: float

    def scaled(self, rows: float, columns: float) -> Region:
        """The same part of a picture that has so many times the rows and columns."""
        height, width = self.height * rows, self.width * columns
        return Region(self.top * rows, self.left * columns, height, width)


@dataclass(frozen=True, slots=True)
class Stored:
    """The picture that a sample was made from, to draw on."""

    region: Region
    """What of it is the sample's image; the rest was cut away."""
    read: Callable[[], Image]
    """Gives it, (C, H, W), in the type and with the channels of the sample's image. So that large
    pictures need not wait in memory until they are drawn on, it may read a file once more;
    `RecordError` where that has become impossible."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Records `start` to `stop` of a split: the unit of dispatch, retry, resume and file name."""

    split: str
    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """A name that sorts like the data and that a file can carry: `train-000012`."""
        return f"{self.split}-{self.index:06d}"

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded record, as the model's preprocessing takes it and as a person sees it."""

    record_id: str
    row: int
    """Position in the split."""
    image_CHW: Image
    label: int = UNKNOWN_LABEL
    stored_size: tuple[int, int] | None = None
    """(H, W) in pixels before the source resized the image, for people; None = not told."""
    stored: Stored | None = None
    """What to draw on with `canvas=source`; None where the source was not asked for it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that could not be used, and why. Failures are data: counted and listed."""

    record_id: str
    split: str
    row: int
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to be done, on behalf of a scope: a split, or a request for single records."""

    scope: str
    shard: Shard
    record_ids: frozenset[str] = frozenset()
    """The only records to write; empty = all."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which shards are done here, where several independent jobs share a run."""

    index: int
    """0 to `count` - 1."""
    count: int

    def holds(self, shard: Shard) -> bool:
        """Whether a shard is one of this part's."""
        return shard.index % self.count == self.index


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """A file as it was when it was committed."""

    path: str
    """Relative to the output directory."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker reports of a committed shard; stored as the shard's ledger entry."""

    shard: Shard
    records: int
    """Records whose artifacts are there; the rest are `failures`."""
    host: str
    """The machine that computed it."""
    device: str
    """What it computed on, see `artifactgen.device.device_name`."""
    failures: tuple[Failure, ...] = ()
    files: tuple[CommittedFile, ...] = ()
    """The shard's file for the reducer, then its maps where they are kept."""
    pictures: int = 0
    picture_bytes: int = 0
    halved_batches: int = 0
    """Batches for which the device had not enough memory."""
    empty_maps: Mapping[str, int] = field(default_factory=dict)
    """Of how many records a map is empty, by kind and what it is of: `gradcam: class NOR`."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage: read (waiting for readers), compute, write (waiting for writers), …"""

    @property
    def shard_file(self) -> CommittedFile:
        """What the reducer reads."""
        return self.files[0]

"""What a data set is to the program: splits of records in a fixed order, read by ranges.

A source is a frozen dataclass of options, light and picklable. The driver scans it once; the
workers get the catalog and read ranges of it. To add one, write a file in this folder and a YAML
in `configs/data/` that names its class; see `docs/extending.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from artifactgen.errors import RecordError
from artifactgen.types import Failure, Sample


class SplitIndex(Protocol):
    """The records of one split, in the data set's order; small to pickle, whatever its length."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def record_ids(self, start: int, stop: int) -> Sequence[str]:
        """The ids of rows `start` to `stop`, made on demand where they follow a rule."""
        ...


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a scan of a data set finds, without reading a single image."""

    splits: Mapping[str, SplitIndex]
    classes: tuple[str, ...]
    """Class names by index; empty where the data set has no labels."""
    channels: int
    """C of every sample's image."""
    identity: str
    """Digest of the data set (ids, file names, sizes, labels), not of where it lies."""
    frame_names: tuple[str, ...] = ()
    """Names of the channels where each is a picture of its own, like the frames of a cine."""
    highest_label: tuple[str, int] | None = None
    """(record id, label) of the highest label, where classes have no names but their numbers."""


class Source(Protocol):
    """A data set that can be scanned once and then read by ranges, from any thread or process."""

    image_size: tuple[int, int] | None
    """(H, W) in pixels that samples get; filled with the model's own input size where null."""

    def scan(self) -> Catalog:
        """Find splits, classes and shapes. `DataError` where the data set is not as configured."""
        ...

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split in order: one `Sample` or `Failure` for each."""
        ...


Ref = TypeVar("Ref")


def decode_each(
    refs: Sequence[tuple[str, Ref]],
    decode: Callable[[int, str, Ref], Sample],
    *,
    split: str,
    start: int,
) -> Iterator[Sample | Failure]:
    """Decode records one at a time, so that a broken one becomes a `Failure` and harms no other.

    Args:
        refs: (record id, what `decode` needs to find it) for each row.
        decode: (row, record id, reference) to a `Sample`; may raise anything.
        split: name of the split, for the failures.
        start: row of the first record in the split.
    """
    for row, (record_id, ref) in enumerate(refs, start):
        try:
            yield decode(row, record_id, ref)
        except RecordError as error:
            yield Failure(record_id, split, row, "read", str(error))
        # A decoder meets every kind of broken file, and libraries raise every kind of error.
        except Exception as error:  # noqa: BLE001
            yield Failure(record_id, split, row, "read", f"{type(error).__name__}: {error}")

"""What a data set is to the program: splits of records in a fixed order, read by ranges.

A source is a frozen dataclass of options, light and picklable. The driver scans it once; the
workers get the catalog and read ranges of it. To add one, write a file in this folder and a YAML
in `configs/data/` that names its class; see `docs/extending.md`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from artifactgen.errors import RecordError
from artifactgen.patience import is_of_the_machine
from artifactgen.types import Failure, Sample

MAX_ID_LENGTH = 1024
"""Characters of a record id. Ids stand in reports, tables and pictures, and millions in memory."""

MAX_CLASSES = 1_000_000
"""Of a data set. A label beyond is a mistake, and each class has a name in memory."""

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_MAX_REASON = 1000


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
    """Digest of which records there are (ids, labels, splits, names of files), not of where they
    lie. Another one is another data set."""
    content: str = ""
    """Digest of what the records hold (sizes, and bytes out of the files). Another one is the data
    set with other pixels: no run goes on with it, save to do failed records again."""
    frame_names: tuple[str, ...] = ()
    """Names of the channels where each is a picture of its own, like the frames of a cine."""
    dtype: str | None = None
    """Type of every image, by which its pixels are scaled; None where a scan does not tell, and
    the first records do."""
    highest_label: tuple[str, int] | None = None
    """Id and label of the record with the highest, where `classes` are no names that were given
    but numbers up to it; None where they were given, or where there is no label."""


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


@runtime_checkable
class InFiles(Protocol):
    """A source that says which files its records lie in, so that a change in them is noticed."""

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of all files that rows `start` to `stop` of a split are made of, in any order."""
        ...


Ref = TypeVar("Ref")
Decoded = TypeVar("Decoded")


def decode_each(
    refs: Sequence[tuple[str, Ref]],
    decode: Callable[[int, str, Ref], Decoded],
    *,
    split: str,
    start: int,
    place: Path | None = None,
) -> Iterator[Decoded | Failure]:
    """Decode records one at a time, so that a broken one becomes a `Failure` and harms no other.

    Args:
        refs: (record id, what `decode` needs to find it) for each row.
        decode: (row, record id, reference) to a `Sample`, or to what becomes one; may raise
            anything.
        split: name of the split, for the failures.
        start: row of the first record in the split.
        place: folder that the files of all records lie in. Where it is gone or empty, its file
            system is not mounted, and no file can be missed.

    Raises:
        OSError, MemoryError: what is no record's fault and may pass, such as a file server that
            does not answer. No record fails by it.
    """
    for row, (record_id, ref) in enumerate(refs, start):
        try:
            yield decode(row, record_id, ref)
        except MemoryError:
            raise
        except RecordError as error:
            reason = str(error)
        except OSError as error:
            if not is_of_the_file(error, place=place):
                raise
            reason = _told(error)
        # A decoder meets every kind of broken file, and libraries raise every kind of error.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {error}"
        else:
            continue
        yield Failure(record_id, split, row, "read", reason[:_MAX_REASON])


def is_of_the_file(error: OSError, *, place: Path | None = None) -> bool:
    """Whether an error is of the file that was read, and comes again; else it may pass.

    Without a number it is what a library says of the content.

    Args:
        error: as it was raised.
        place: see `decode_each`.
    """
    if error.errno in _NOT_THERE and place is not None and _is_gone(place):
        return False
    return not is_of_the_machine(error)


def _is_gone(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return True


def _told(error: OSError) -> str:
    if error.errno is None:
        return f"{type(error).__name__}: {error}"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)

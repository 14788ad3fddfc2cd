"""Records of HDF5 files as ranges of rows: small to pickle, however many records there are."""

from __future__ import annotations

import bisect
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import MAX_ID_LENGTH
from artifactgen.data.hdf5.file import (
    Axes,
    open_checked,
    open_shared,
    read_strings,
    system_errors,
    where,
)
from artifactgen.errors import DataError

Rows = range | NDArray[np.int64]
"""Ascending rows of a data set."""

_STRINGS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 64 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one data set of images that belong to one split, and where the rest of them lies."""

    path: str
    images: str
    labels: str | None
    record_ids: str | None
    id_prefix: str
    """Ids are `<id_prefix>_<row>` where the file has none."""
    layout: Axes
    rows: Rows

    def ids(self) -> list[str]:
        """Record ids of the rows."""
        if self.record_ids is None:
            return [f"{self.id_prefix}_{row}" for row in self.rows]
        if not len(self.rows):
            return []
        first = int(self.rows[0])
        with system_errors(self.path):
            dataset = open_shared(self.path)[self.record_ids]
            names = read_strings(dataset, first, int(self.rows[-1]) + 1)
        return [names[row - first] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Hdf5Index:
    """The records of a split: parts of files in order, and the row of the split where each ends."""

    parts: tuple[Part, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Hdf5Index:
        """The index of parts in their order."""
        return cls(tuple(parts), tuple(accumulate(len(part.rows) for part in parts)))

    def __len__(self) -> int:
        return self.ends[-1]

    def record_ids(self, start: int, stop: int) -> list[str]:
        """Ids of rows `start` to `stop`: made by rule, or read from the files."""
        return [name for part in self.pieces(start, stop) for name in part.ids()]

    def pieces(self, start: int, stop: int) -> Iterator[Part]:
        """The parts of files that make up rows `start` to `stop` of the split."""
        for i in range(bisect.bisect_right(self.ends, start), len(self.parts)):
            part = self.parts[i]
            begin = self.ends[i] - len(part.rows)
            if begin >= stop:
                return
            yield replace(part, rows=part.rows[max(0, start - begin) : stop - begin])


def duplicates(parts: Sequence[Part], suspects: set[int]) -> list[str]:
    """Ids stored more than once, among those whose hash is; each part stands for all its rows."""
    counts: Counter[str] = Counter()
    for part in parts:
        with open_checked(Path(part.path)) as file:
            names = map(_normal, stream_ids(file[part.record_ids]))
            counts.update(name for name in names if hash(name) in suspects)
    return [name for name, count in counts.items() if count > 1]


def hash_ids(ids: h5py.Dataset | None) -> NDArray[np.int64]:
    """Eight bytes for each id: enough to find the few that need a closer look."""
    if ids is None:
        return np.empty(0, np.int64)
    return np.fromiter((hash(_normal(name)) for name in stream_ids(ids)), np.int64)


def stream_ids(ids: h5py.Dataset) -> Iterator[str]:
    """All ids in order, few of them in memory.

    Raises:
        DataError: one that is too long.
    """
    at_once = max(1, min(_STRINGS_AT_ONCE, _BYTES_AT_ONCE // ids.dtype.itemsize))
    for start in range(0, len(ids), at_once):
        for row, name in enumerate(read_strings(ids, start, min(len(ids), start + at_once)), start):
            if len(name) > MAX_ID_LENGTH:
                raise DataError(
                    f"{where(ids)}: the id in row {row}, {name[:40]}…, has {len(name):,} "
                    f"characters; at most {MAX_ID_LENGTH:,}. Is this the data set of the ids?"
                )
            yield name


def _normal(name: str) -> str:
    """Two ids that look the same are the same, whichever way their accents are coded."""
    return unicodedata.normalize("NFC", name)

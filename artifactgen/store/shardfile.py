"""A shard's rows as an HDF5 file: columns with one leading dimension, and attributes.

Two such files are written of a shard: what the reducer needs of it, and its maps where they are
kept. Only this file knows what their columns are called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from artifactgen.store.atomic import replacing
from artifactgen.store.text import storable

Columns = Mapping[str, NDArray[Any]]


class Picture(NamedTuple):
    """A picture as it was written."""

    size_bytes: int
    crc32: int
    """As in zip and PNG: every flipped bit changes it."""

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Size and checksum of a file's content."""
        return cls(len(content), isal_zlib.crc32(content))


RecordPictures = Mapping[str, Mapping[str, Picture]]
"""Kind of artifact to the paths of a record's pictures, relative to the output directory, and what
lies there."""


def paths_of(pictures: RecordPictures) -> Iterator[tuple[str, Picture]]:
    """Every picture of a record by its path."""
    return (item for of_kind in pictures.values() for item in of_kind.items())


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The records of a shard, one in each row."""

    record_ids: Sequence[str]
    pictures: Sequence[RecordPictures]
    columns: Columns
    """`rows` (position in the split) and `labels`, int64 (n,); `predictions`, int64 (n,), where
    there is a classifier; and the columns of each kind."""


def write_shard(path: Path, rows: ShardRows, *, temp_dir: Path) -> None:
    """Write the file that the reducer reads, atomically and durably."""
    texts = {"record_ids": rows.record_ids, "pictures": rows.pictures}
    strings = {name: [json.dumps(text) for text in column] for name, column in texts.items()}
    write_columns(path, rows.columns, strings=strings, temp_dir=temp_dir)


def read_shard(path: Path) -> ShardRows:
    """Read what `write_shard` wrote."""
    columns, strings = read_columns(path)
    # Ids as JSON, which holds any text.
    ids = [json.loads(text) for text in strings["record_ids"]]
    return ShardRows(ids, list(map(_pictures, strings["pictures"])), columns)


def read_pictures(path: Path) -> list[RecordPictures]:
    """The pictures of each record alone, without the rest of a shard's file."""
    with h5py.File(path, "r", locking=False) as file:
        return list(map(_pictures, file["pictures"].asstr()[()]))


def _pictures(text: str) -> RecordPictures:
    kinds: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return {
        kind: {path: Picture(*facts) for path, facts in files.items()}
        for kind, files in kinds.items()
    }


def write_maps(
    path: Path,
    record_ids: Sequence[str],
    columns: Columns,
    *,
    attributes: Mapping[str, Any],
    temp_dir: Path,
) -> None:
    """Write the file of raw maps, for users: ids as UTF-8, `rows`, and the maps."""
    strings = {"record_ids": record_ids}
    write_columns(path, columns, strings=strings, attributes=attributes, temp_dir=temp_dir)


def write_columns(
    path: Path,
    columns: Columns,
    *,
    strings: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Any] | None = None,
    temp_dir: Path,
) -> None:
    """Write columns of n rows each, atomically and durably.

    Args:
        path: final place.
        columns: name to array (n, …).
        strings: name to n texts, stored as UTF-8, see `storable`.
        attributes: plain values to store on the file.
        temp_dir: see `replacing`.
    """
    with replacing(path, temp_dir=temp_dir) as temp, h5py.File(temp, "w", libver="latest") as file:
        for name, texts in strings.items():
            data = [storable(text) for text in texts]
            file.create_dataset(name, data=data, shape=(len(data),), dtype=h5py.string_dtype())
        for name, array in columns.items():
            file.create_dataset(name, data=array)
        file.attrs.update(attributes or {})


def read_columns(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Read what `write_columns` wrote: the arrays, and the texts."""
    arrays: dict[str, NDArray[Any]] = {}
    strings: dict[str, list[str]] = {}
    with h5py.File(path, "r", locking=False) as file:
        for name, dataset in file.items():
            if h5py.check_string_dtype(dataset.dtype):
                strings[name] = list(dataset.asstr()[()])
            else:
                arrays[name] = np.asarray(dataset[()])
    return arrays, strings

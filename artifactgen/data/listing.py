"""Millions of records as a table on disk: their ids, and whatever finds them.

A listing is a file of Arrow in blocks of some thousand rows, each compressed: ten million rows are
some hundred megabytes, rows are read from any process, and what a job is pickled with is a path.
Until the run has a folder, the file lies in memory. https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifactgen.data.base import MAX_ID_LENGTH, Catalog
from artifactgen.data.content import file_version
from artifactgen.data.ids import repeated
from artifactgen.data.texts import TEXT, decoded, encoded, hashes_of
from artifactgen.errors import DataError

BLOCK_ROWS = 1 << 14
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")
_BLOCKS_IN_MEMORY = 16
ID, LABEL = "record_id", "label"
"""Columns: of the id, which each listing has, and of the label, which those have that know it."""


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The records of a split, in order; see `artifactgen.data.base.SplitIndex`."""

    rows: int
    path: str | None = None
    """The file; None while it is only in memory."""
    content: bytes = field(default=b"", repr=False)
    """The file, while it is only in memory."""

    def __len__(self) -> int:
        return self.rows

    def record_ids(self, start: int, stop: int) -> list[str]:
        slices = self._slices(start, stop)
        return [decoded(name) for block in slices for name in block.column(ID).to_pylist()]

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows `start` to `stop`, each by the names of its columns.

        Raises:
            OSError: the file cannot be read.
        """
        return [row for block in self._slices(start, stop) for row in _rows_of(block)]

    def rows_by_block(self) -> Iterator[list[dict[str, Any]]]:
        """All rows as `read` gives them, some thousand at once."""
        return map(_rows_of, self.blocks())

    def columns(self) -> dict[str, pa.DataType]:
        """Names and types of the columns beside the id."""
        schema = self._block(0).schema
        return {kind.name: kind.type for kind in schema if kind.name != ID}

    def blocks(self) -> Iterator[Any]:
        """All rows in blocks (`pyarrow.RecordBatch`), few of them in memory."""
        return (self._block(index) for index in range(-(-self.rows // BLOCK_ROWS)))

    def kept_at(self, path: Path) -> Listing:
        """The same listing, whose file is `path`: it is light to pickle."""
        return Listing(self.rows, str(path.absolute()))

    def _slices(self, start: int, stop: int) -> Iterator[Any]:
        stop = min(stop, self.rows)
        while start < stop:
            index, offset = divmod(start, BLOCK_ROWS)
            length = min(BLOCK_ROWS - offset, stop - start)
            yield self._block(index).slice(offset, length)
            start += length

    def _block(self, index: int) -> Any:
        if self.path is None:
            return _block_of(self, index)
        return _block_of_file(self.path, file_version(self.path), index)


def _rows_of(block: Any) -> list[dict[str, Any]]:
    return [{n: decoded(value) for n, value in row.items()} for row in block.to_pylist()]


@lru_cache(_BLOCKS_IN_MEMORY)
def _block_of_file(path: str, version: tuple[int, ...], index: int) -> Any:
    del version  # a later run of this process may write another listing to the same place
    with pa.memory_map(path) as file:
        return pa.ipc.open_file(file).get_batch(index)


@lru_cache(_BLOCKS_IN_MEMORY)
def _block_of(listing: Listing, index: int) -> Any:
    return pa.ipc.open_file(pa.BufferReader(listing.content)).get_batch(index)


class ListingWriter:
    """Writes a listing row after row; its memory is that of a block and of the compressed rest."""

    def __init__(self, columns: Mapping[str, pa.DataType]) -> None:
        """Begin.

        Args:
            columns: names and types of what finds a record, beside its id; of text, `TEXT`.
        """
        self.schema = pa.schema({ID: TEXT, **columns})
        self.hashes = array("q")
        """Eight bytes for each id, see `repeated_ids`."""
        self._rows: list[tuple[Any, ...]] = []
        self._pending: list[Any] = []
        """Batches that are no whole block yet."""
        self._content = io.BytesIO()  # Arrow's own sink doubles what it takes, and is copied
        self._sink = pa.PythonFile(self._content, "w")
        self._file = pa.ipc.new_file(self._sink, self.schema, options=_OPTIONS)
        self._added = 0

    def __len__(self) -> int:
        return self._added + len(self._rows)

    def add(self, record_id: str, *values: Any) -> None:
        """Add a record, its values in the order of the columns.

        Raises:
            DataError: the id is too long.
        """
        _require_short(record_id)
        self._rows.append((record_id, *values))
        if len(self._rows) == BLOCK_ROWS:
            self._add_rows()

    def add_batch(self, batch: Any) -> None:
        """Add many records at once, after those that were added one by one.

        Args:
            batch: a `pyarrow.RecordBatch` of the columns of the listing, the id first.

        Raises:
            DataError: an id is too long.
        """
        self._add_rows()
        for start in range(0, len(batch), BLOCK_ROWS):
            self._add_batch(batch.slice(start, BLOCK_ROWS))

    def finish(self) -> Listing:
        """The listing of what was added."""
        self._add_rows()
        self._write_blocks(least=1)
        self._file.close()
        content = self._content.getvalue()
        self._sink.close()
        return Listing(self._added, content=content)

    def _add_rows(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        arrays = [
            pa.array(map(encoded, values), kind.type)
            for values, kind in zip(columns, self.schema, strict=True)
        ]
        self._rows.clear()
        self._add_batch(pa.record_batch(arrays, schema=self.schema))

    def _add_batch(self, batch: Any) -> None:
        ids = batch.column(ID)
        if pc.max(pc.binary_length(ids)).as_py() > MAX_ID_LENGTH:
            for name in ids.to_pylist():
                _require_short(decoded(name))
        self.hashes.frombytes(hashes_of(ids).tobytes())
        self._pending.append(batch)
        self._added += len(batch)
        self._write_blocks(least=BLOCK_ROWS)

    def _write_blocks(self, *, least: int) -> None:
        """Write blocks as long as `least` rows are waiting: every block but the last is full."""
        rows = sum(map(len, self._pending))
        if rows < least:
            return
        (whole,) = pa.Table.from_batches(self._pending).combine_chunks().to_batches()
        stop = rows - rows % BLOCK_ROWS if least == BLOCK_ROWS else rows
        for start in range(0, stop, BLOCK_ROWS):
            self._file.write_batch(whole.slice(start, min(BLOCK_ROWS, stop - start)))
        self._pending = [whole.slice(stop)] if stop < rows else []


def repeated_ids(
    listings: Iterable[Listing], hashes: Sequence[array[int]], *, most: int = 5
) -> list[str]:
    """Ids that occur more than once over several listings, the first few; usually none.

    Two that look the same are the same, whichever way their accents are coded.

    Args:
        listings: of all splits.
        hashes: those of their writers.
        most: how many to name.
    """
    blocks = (block.column(ID) for listing in listings for block in listing.blocks())
    return repeated(lambda: blocks, [np.frombuffer(found, np.int64) for found in hashes])[:most]


def _require_short(record_id: str) -> None:
    if len(record_id) > MAX_ID_LENGTH:
        raise DataError(
            f"The id {record_id[:40]}… has {len(record_id):,} characters; "
            f"at most {MAX_ID_LENGTH:,}."
        )


def listed_rows(
    catalog: Catalog, split: str, start: int, stop: int
) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a split that is listed, each behind its id: what `decode_each` takes."""
    listing = catalog.splits[split]
    assert isinstance(listing, Listing)
    return [(row[ID], row) for row in listing.read(start, stop)]


def digest_of(
    listings: Mapping[str, Listing],
    classes: tuple[str, ...] = (),
    *,
    columns: Sequence[str] | None = None,
) -> str:
    """What distinguishes listings: the splits, and what is in their rows; in hex.

    Args:
        listings: of all splits.
        classes: names of the classes that labels are indices of.
        columns: those that count; None = all.
    """
    digest = hashlib.sha256(repr(classes).encode())
    for split, listing in sorted(listings.items()):
        digest.update(repr((split, len(listing))).encode())
        for block in listing.blocks():
            for column in (block if columns is None else block.select(columns)).columns:
                for buffer in column.buffers():
                    digest.update(b"\0" if buffer is None else buffer)
    return digest.hexdigest()

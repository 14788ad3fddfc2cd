"""Rows of Parquet and Arrow files, of which a few are in memory.

A row group of Parquet cannot be entered in its middle: it is decoded from its beginning, piece by
piece, and the latest pieces stay in memory, so that those who read on, in several threads, find
them there. Arrow files are mapped, and cost no memory unless they are compressed.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from artifactgen.data.base import is_of_the_file
from artifactgen.data.content import file_version
from artifactgen.errors import DataError
from artifactgen.filetypes import describe_file

_WINDOW_BYTES = 128 << 20
"""Of a row group that stay in memory, and those of up to `_WINDOWS` of them."""
_WINDOWS = 4
_PIECE_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 20
"""What is read of a file at once; without it, a whole column of a row group is."""
_SMALL_COLUMNS = 32
"""Row groups whose ids stay in memory."""
_ARROW = -1
"""In place of the number of a row group: all of an Arrow file is one."""


class Rows(Protocol):
    """Rows of a row group."""

    def row(self, position: int) -> dict[str, Any]:
        """One row by names of columns, in Python's types."""
        ...


class Stored:
    """A table's schema and its row groups, from the end of the file alone."""

    def __init__(self, path: Path) -> None:
        """Look at a file.

        Raises:
            DataError: it is no table, or damaged.
            OSError: of a kind that may pass.
        """
        try:
            self._look(path)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and not is_of_the_file(error):
                raise
            raise DataError(_why_not(path, error)) from error

    def _look(self, path: Path) -> None:
        if path.stat().st_size and _is_parquet(path):
            with pq.ParquetFile(path) as file:
                self.schema, found = file.schema_arrow, file.metadata
                sizes = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
            self.groups = tuple(range(len(sizes)))
            self.rows = tuple(sizes)
        else:
            table = _read_arrow(path)
            self.schema, self.groups, self.rows = table.schema, (_ARROW,), (table.num_rows,)


def open_rows(path: str, group: int, columns: Sequence[str]) -> Rows:
    """The rows of a row group, which stay open for further reads of this process.

    A file that was replaced meanwhile is opened anew. A forked child opens its own.
    """
    opened = _mapped if group == _ARROW else _window
    rows: Rows = opened(path, group, tuple(columns), os.getpid(), file_version(path))
    return rows


def read_column(path: str, group: int, column: str) -> Any:
    """One column of a row group, as `pyarrow.ChunkedArray`; for those that are small."""
    return _column(path, group, column, os.getpid(), file_version(path))


def value_in(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column in a row; a dot goes into a struct."""
    if column in row:
        return row[column]
    first, *below = column.split(".")
    value: Any = row[first]
    for part in below:
        value = None if value is None else value[part]
    return value


class _Window:
    """The latest rows that were decoded of a row group of Parquet."""

    def __init__(self, path: str, group: int, columns: tuple[str, ...]) -> None:
        self._path, self._group, self._columns = path, group, columns
        self._lock = threading.Lock()
        self._begin()

    def row(self, position: int) -> dict[str, Any]:
        with self._lock:
            if position < self._first:
                self._begin()
            while self._end <= position:
                self._decode_next()
            end = self._end
            for piece in reversed(self._pieces):
                end -= piece.num_rows
                if end <= position:
                    found = piece.slice(position - end, 1)
                    break
        (row,) = found.to_pylist()
        return dict(row)

    def _begin(self) -> None:
        self._pieces: deque[Any] = deque()
        self._first = self._end = 0
        self._error: Exception | None = None
        self._source: Iterator[Any] | None = None

    def _decode_next(self) -> None:
        """Decode another piece; where that fails for good, the rest of the group fails alike."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # else each raise makes it longer
        try:
            if self._source is None:
                self._source = _pieces(self._path, self._group, self._columns)
            piece = next(self._source)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and not is_of_the_file(error):
                self._begin()
                raise
            self._error = error
            raise
        self._pieces.append(piece)
        self._end += piece.num_rows
        while sum(p.nbytes for p in self._pieces) > _WINDOW_BYTES and len(self._pieces) > 1:
            self._first += self._pieces.popleft().num_rows


def _pieces(path: str, group: int, columns: tuple[str, ...]) -> Iterator[Any]:
    file = pq.ParquetFile(
        path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
    )
    found = file.metadata.row_group(group)
    share = found.num_rows * _PIECE_BYTES // max(found.total_byte_size, 1)
    return file.iter_batches(  # type: ignore[no-any-return]
        min(max(share, 1), 4096), row_groups=[group], columns=list(columns), use_threads=False
    )


class _Mapped:
    """The rows of an Arrow file."""

    def __init__(self, path: str, columns: tuple[str, ...]) -> None:
        self._table = _read_arrow(Path(path)).select(_top_level(columns))

    def row(self, position: int) -> dict[str, Any]:
        (row,) = self._table.slice(position, 1).to_pylist()
        return dict(row)


@lru_cache(_WINDOWS)
def _window(
    path: str, group: int, columns: tuple[str, ...], pid: int, version: tuple[int, ...]
) -> _Window:
    del pid, version  # they only tell cached handles apart
    return _Window(path, group, columns)


@lru_cache(_WINDOWS)
def _mapped(
    path: str, group: int, columns: tuple[str, ...], pid: int, version: tuple[int, ...]
) -> _Mapped:
    del group, pid, version
    return _Mapped(path, columns)


@lru_cache(_SMALL_COLUMNS)
def _column(path: str, group: int, column: str, pid: int, version: tuple[int, ...]) -> Any:
    del pid, version
    if group == _ARROW:
        table = _read_arrow(Path(path))
    else:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read_row_group(group, columns=[column])
    if column in table.column_names:
        return table.column(column)
    values, *below = (table.column(column.split(".")[0]), *column.split(".")[1:])
    for part in below:
        values = pa.chunked_array(
            [pa.compute.struct_field(chunk, part) for chunk in values.chunks],
            type=values.type.field(part).type,
        )
    return values


def _top_level(columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(column.split(".")[0] for column in columns))


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _read_arrow(path: Path) -> Any:
    """A file or a stream of Arrow as a table whose columns lie in the mapped file."""
    file = pa.memory_map(str(path))
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    opened = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
    return opened.read_all()


def _why_not(path: Path, error: Exception) -> str:
    what = describe_file(path) if path.is_file() else None
    if what is not None and not any(kind in what for kind in ("Parquet", "Arrow")):
        return f"{path} is {what}; data=parquet reads tables of Parquet and Arrow."
    reason = str(error).partition("\n")[0].strip().rstrip(".")
    return f"{path} cannot be read as a table: {reason}. It may be cut short or damaged."

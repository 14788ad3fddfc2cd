"""Tables of any length, CSV or Parquet, read in batches of text: no row is a Python object."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from artifactgen.data.base import is_of_the_file
from artifactgen.errors import DataError, did_you_mean, printable
from artifactgen.filetypes import EMPTY, describe_file

_SEPARATORS = ",;\t|"
_BLOCK_BYTES = 1 << 20
_BATCH_ROWS = 1 << 14
_MOST_OF_A_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose head was read."""

    path: Path
    columns: tuple[str, ...]
    separator: str | None
    """Of a CSV; None for Parquet."""

    def require(self, name: str, *, option: str) -> None:
        """`DataError` where a column is missing."""
        if name not in self.columns:
            near = did_you_mean(name, self.columns)
            hint = f" {near}" if near.startswith("Did") else ""
            raise DataError(
                f"{self.path}: no column {name}.{hint} "
                f"The columns are: {', '.join(self.columns)}. Name yours with {option}."
            )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows of some columns, as strings; what is empty is null.

        Raises:
            DataError: the table is cut short, has rows of other lengths, or is not UTF-8.
        """
        batches = self._of_csv(columns) if self.separator else self._of_parquet(columns)
        try:
            for batch in batches:
                yield _as_text(batch)
        except pa.ArrowException as error:
            raise DataError(f"{self.path}: {_told(error)}") from error
        except OSError as error:  # of Parquet, about what it read
            if is_of_the_file(error):
                raise DataError(f"{self.path}: {_told(error)}") from error
            raise

    def _of_csv(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with pa.csv.open_csv(
            self.path,
            # One thread counts rows, for messages; it is as fast as what follows.
            pa.csv.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                column_names=self.columns,
                skip_rows=1,
            ),
            pa.csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
            pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in columns},
                include_columns=list(columns),
                strings_can_be_null=True,
                null_values=[""],
            ),
        ) as reader:
            yield from reader

    def _of_parquet(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path, buffer_size=_BLOCK_BYTES) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                yield batch.select(list(columns))


def open_table(path: Path, *, expected: Sequence[str]) -> Table:
    """Read the head of a table; what it is, is told by its content.

    Args:
        path: the file.
        expected: columns that it might have, by which the separator of a CSV is found.

    Raises:
        DataError: no such file, no table, or one without a head.
    """
    if not path.is_file():
        raise DataError(f"data.path={path}: no such file.")
    what = describe_file(path)
    if what == "a Parquet table":
        return _open_parquet(path)
    if what is None or not what.startswith(("a text file", "a table in text")):
        found = "empty" if what == EMPTY else what or "neither of them, nor text in UTF-8"
        raise DataError(f"data.path={path}: a table in CSV (UTF-8) or Parquet, but it is {found}.")
    return _open_csv(path, expected)


def _open_parquet(path: Path) -> Table:
    try:
        return Table(path, tuple(pq.read_schema(path).names), None)
    except pa.ArrowException as error:
        raise DataError(f"data.path={path}: a broken Parquet table: {_told(error)}") from error


def _open_csv(path: Path, expected: Sequence[str]) -> Table:
    with path.open("rb") as file:
        line = file.readline(_MOST_OF_A_LINE).decode("utf-8-sig", "replace")
    heads = {mark: _fields(line, mark) for mark in _SEPARATORS}
    separator = max(heads, key=lambda m: (len({*heads[m]} & {*expected}), len(heads[m])))
    columns = heads[separator]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise DataError(f"data.path={path}: two columns are called {twice}. Rename one.")
    return Table(path, columns, separator)


def _fields(line: str, separator: str) -> tuple[str, ...]:
    first = re.split(r"[\r\n]", line, maxsplit=1)[0]  # as Arrow, which takes either for its end
    row = next(csv.reader([first], delimiter=separator), [])
    return tuple(name.strip() for name in row)


def _as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays = [column.cast(pa.string()) for column in batch.columns]
    filled = [pc.if_else(pc.equal(array, ""), None, array) for array in arrays]
    return pa.record_batch(filled, names=batch.schema.names)


def _told(error: Exception) -> str:
    text = printable(str(error))[:300]
    if "invalid UTF8" in text:
        return f"{text}. Save the table as UTF-8."
    if "Expected" in text and "columns" in text:
        return f"{text}. Quote values that hold the separator."
    return text

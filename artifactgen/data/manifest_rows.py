"""The rows of a manifest as listings of its splits, in batches of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from artifactgen.data.base import MAX_CLASSES
from artifactgen.data.expanding import SLICE
from artifactgen.data.folders import PATH
from artifactgen.data.listing import ID, LABEL, Listing, ListingWriter, repeated_ids
from artifactgen.data.splits import SPLITS
from artifactgen.data.tables import Table
from artifactgen.data.texts import TEXT
from artifactgen.errors import DataError, did_you_mean
from artifactgen.types import UNKNOWN_LABEL

_MOST_SPLITS = 1000
_ENDING = r"(\.nii)?\.[^./\\]*$"
"""Of a path: `.png`, `.nii.gz`."""
_NUMBER = r"^-?[0-9]{1,9}(\.0*)?$"
"""Of a label; pandas writes `1.0` where others of the column are missing."""
_ALL = "test"
"""The split of records that name none."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns; all but `path` may be missing."""

    record_id: str
    path: str
    split: str
    label: str
    index: str
    """Of the slice."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.record_id, self.path, self.split, self.label, self.index

    def of(self, table: Table) -> list[str]:
        """Those that a table has."""
        return [name for name in self.names if name in table.columns]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told by all rows together."""

    splits: Mapping[str, str]
    """Names in the table to those of the splits."""
    classes: tuple[str, ...]
    labels: Mapping[str, int]
    """What is written in the table to the label that it means."""
    are_numbers: bool
    """Whether `classes` are no names but numbers, made up from the labels."""


@dataclass(slots=True)
class _Highest:
    """The record with the highest label, of rows seen so far."""

    found: tuple[str, int] | None = field(default=None)

    def look_at(self, batch: pa.RecordBatch) -> None:
        highest = pc.max(batch.column(LABEL)).as_py()
        if highest is None or highest < 0 or (self.found and highest <= self.found[1]):
            return
        row = pc.index(batch.column(LABEL), highest).as_py()
        self.found = batch.column(ID)[row].as_py().decode(), highest


def read_facts(table: Table, columns: Columns, given: tuple[str, ...] | None) -> Facts:
    """Read which splits and labels occur.

    Args:
        table: with its head read.
        columns: what they are called.
        given: names of the classes by label; None = as the labels say.

    Raises:
        DataError: no rows, or splits or labels that cannot be used.
    """
    splits = _distinct(table, columns.split, most=_MOST_SPLITS, what="splits")
    found = _distinct(table, columns.label, most=MAX_CLASSES, what="classes")
    numbers = _numbers(found)
    names = {name: SPLITS.get(name.lower(), name) for name in splits}
    if given is None and numbers is not None:
        highest = max(numbers.values(), default=UNKNOWN_LABEL)
        if highest >= MAX_CLASSES:
            raise DataError(f"{table.path}: label {highest}; at most {MAX_CLASSES - 1} is one.")
        return Facts(names, tuple(map(str, range(highest + 1))), numbers, are_numbers=True)
    classes = tuple(sorted(found)) if given is None else given
    labels = {name: index for index, name in enumerate(classes)}
    for name in (name for name in found if name not in labels):
        labels[name] = _by_number(name, numbers, classes, table)
    return Facts(names, classes, labels, are_numbers=False)


def list_table(
    table: Table, columns: Columns, facts: Facts
) -> tuple[dict[str, Listing], tuple[str, int] | None]:
    """All rows by split, in order; and the record with the highest label, where those are numbers.

    Raises:
        DataError: a row without a path or an id, or ids that are not unique.
    """
    writers: dict[str, ListingWriter] = {}
    highest = _Highest()
    for split, batch in _batches(table, columns, facts):
        if split not in writers:
            index = {SLICE: pa.int32()} if columns.index in table.columns else {}
            writers[split] = ListingWriter({PATH: TEXT, LABEL: pa.int32(), **index})
        writers[split].add_batch(batch)
        highest.look_at(batch)
    if not writers:
        raise DataError(f"{table.path}: a table without rows.")
    hashes = [writer.hashes for writer in writers.values()]
    listings = {split: writers[split].finish() for split in sorted(writers)}
    if repeated := repeated_ids(listings.values(), hashes):
        raise DataError(
            f"{table.path}: ids that occur more than once: {', '.join(repeated)}. "
            "Every record needs an id of its own, over all splits."
        )
    return listings, highest.found if facts.are_numbers else None


def _batches(table: Table, columns: Columns, facts: Facts) -> Iterator[tuple[str, pa.RecordBatch]]:
    row = 1
    for batch in table.batches(columns.of(table)):
        made = _listed(batch, table, columns, facts, row=row)
        row += len(batch)
        if columns.split not in batch.schema.names:
            yield _ALL, made
            continue
        written = batch.column(columns.split).fill_null(_ALL).dictionary_encode()
        meant = [facts.splits.get(name, name) for name in written.dictionary.to_pylist()]
        names = pa.array(meant, pa.string()).take(written.indices)
        for name in dict.fromkeys(meant):
            yield name, made.filter(pc.equal(names, name))


def _listed(
    batch: pa.RecordBatch, table: Table, columns: Columns, facts: Facts, *, row: int
) -> pa.RecordBatch:
    """A batch of the table as one of a listing."""
    paths = batch.column(columns.path)
    _require_all(paths, columns.path, table, row)
    _require_names(paths, table, row)
    if columns.record_id in batch.schema.names:
        ids = batch.column(columns.record_id)
        _require_all(ids, columns.record_id, table, row)
    else:
        ids = pc.replace_substring_regex(paths, _ENDING, "")
    labels = _labels(batch, columns.label, facts)
    found = {ID: ids.cast(TEXT), PATH: paths.cast(TEXT), LABEL: labels}
    if columns.index in batch.schema.names:
        found[SLICE] = _indices(batch.column(columns.index), table)
    return pa.record_batch(found)


def _labels(batch: pa.RecordBatch, column: str, facts: Facts) -> pa.Array:
    if column not in batch.schema.names or not facts.labels:
        return pa.repeat(pa.scalar(UNKNOWN_LABEL, pa.int32()), len(batch))
    places = pc.index_in(batch.column(column), pa.array(list(facts.labels), pa.string()))
    values = pa.array(list(facts.labels.values()), pa.int32())
    return values.take(places).fill_null(UNKNOWN_LABEL)


def _indices(values: pa.Array, table: Table) -> pa.Array:
    try:
        return values.cast(pa.int32())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{table.path}: a slice that is no whole number ({error}). If the column says "
            "something else, set data.slice_column to another name."
        ) from error


def _require_all(values: pa.Array, column: str, table: Table, row: int) -> None:
    if values.null_count:
        first = row + pc.index(pc.is_null(values), True).as_py()
        raise DataError(f"{table.path}: no {column} in row {first:,}, not counting the head.")


def _require_names(paths: pa.Array, table: Table, row: int) -> None:
    first = pc.index(pc.match_substring(paths, "\0"), True).as_py()
    if first >= 0:
        raise DataError(f"{table.path}: the path in row {row + first:,} holds a NUL character.")


def _distinct(table: Table, column: str, *, most: int, what: str) -> list[str]:
    """Values of a column in the order in which they occur, without empty ones."""
    if column not in table.columns:
        return []
    seen: dict[str, None] = {}
    for batch in table.batches([column]):
        values = pc.unique(batch.column(0)).drop_null().to_pylist()
        seen.update(dict.fromkeys(values))
        if len(seen) > most:
            raise DataError(
                f"{table.path}: the column {column} names more than {most:,} {what}. "
                "Is it another column?"
            )
    return list(seen)


def _numbers(found: list[str]) -> dict[str, int] | None:
    """What labels are as whole numbers, negative ones unknown; None where not all are some."""
    are_some = pc.match_substring_regex(pa.array(found, pa.string()), _NUMBER)
    if not pc.all(are_some).as_py() and found:
        return None
    return {name: max(int(name.partition(".")[0]), UNKNOWN_LABEL) for name in found}


def _by_number(
    name: str, numbers: Mapping[str, int] | None, classes: tuple[str, ...], table: Table
) -> int:
    """The label that a number stands for, where all are numbers and the classes have names."""
    if numbers is not None and numbers[name] < len(classes):
        return numbers[name]
    raise DataError(
        f"{table.path}: the label {name} is none of data.classes. {did_you_mean(name, classes)}"
    )

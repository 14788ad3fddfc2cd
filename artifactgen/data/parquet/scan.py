"""What a set of tables holds: every check that needs no picture, made once by the driver."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artifactgen.data.base import MAX_CLASSES, MAX_ID_LENGTH
from artifactgen.data.classes import class_names, given_names, names_of_texts
from artifactgen.data.ids import repeated
from artifactgen.data.parquet.columns import Asked, Columns, describe, find_columns
from artifactgen.data.parquet.files import Found
from artifactgen.data.parquet.index import TableIndex, index_of
from artifactgen.data.parquet.tables import Stored, read_column
from artifactgen.data.splits import SPLITS
from artifactgen.data.texts import TEXT, decoded, encoded, hashes_of
from artifactgen.errors import DataError

_READERS = 16
Positions = int | NDArray[np.int64]
"""Rows of a row group: some, or how many where all are meant."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What one row group holds beside the pictures."""

    path: str
    number: int
    splits: Mapping[str, Positions]
    labels: tuple[str, ...] | int | None
    """Names of its labels, or the highest; None without."""
    highest: int
    """Position of the record with the highest label, -1 without."""
    id_hashes: NDArray[np.int64]
    digest: bytes


@dataclass(frozen=True, slots=True)
class Scanned:
    """Everything about a data set of tables but its pictures."""

    columns: Columns
    splits: Mapping[str, TableIndex]
    classes: tuple[str, ...]
    highest_label: tuple[str, int] | None
    """Where `classes` are numbers; see `artifactgen.data.base.Catalog`."""
    identity: str


def scan_tables(found: Found, asked: Asked, classes: tuple[str, ...] | None) -> Scanned:
    """Read the ends of all files, and the columns of labels, ids and splits.

    Raises:
        DataError: a file that is not as configured, or ids that are not unique.
    """
    files = [(split, name) for split, names in found.splits.items() for name in names]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="tables") as pool:
        stored = list(pool.map(lambda of: Stored(found.root / of[1]), files))
        columns = _common_columns(found.root, files, stored, asked)
        jobs = [
            (split, str(found.root / name), number, rows)
            for (split, name), table in zip(files, stored, strict=True)
            for number, rows in zip(table.groups, table.rows, strict=True)
        ]
        groups = [*pool.map(lambda job: _scan_group(columns, *job), jobs)]
    if not any(sum(table.rows) for table in stored):
        raise DataError(f"{found.root / files[0][1]}{' and others' if files[1:] else ''}: no rows.")
    splits = _splits(columns, groups)
    if columns.record_id is not None:
        _check_ids(columns.record_id, groups)
    given, highest = _classes(splits, columns, groups, classes)
    names = class_names(given, highest)
    facts = (names, columns.image, [name for _, name in files], [g.digest for g in groups])
    return Scanned(
        columns,
        splits,
        names,
        None if given else highest,
        hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest(),
    )


def _common_columns(
    root: Path, files: Sequence[tuple[str, str]], stored: Sequence[Stored], asked: Asked
) -> Columns:
    """The columns, which all files have alike; so as not to read some of them by other rules."""
    first = None
    for (_, name), table in zip(files, stored, strict=True):
        columns = find_columns(table.schema, asked, path=str(root / name))
        if first is not None and columns != first[0]:
            raise DataError(
                f"{root / name} is another table than {first[1]}. {describe(table.schema)} "
                "Take it out of data.path, or name the columns: data.image_column, "
                "data.label_column, data.id_column, data.split_column."
            )
        first = first or (columns, root / name)
    assert first is not None, "find_tables gives at least one"
    return first[0]


def _scan_group(columns: Columns, split: str, path: str, number: int, rows: int) -> _Group:
    try:
        return _read_group(columns, split, path, number, rows)
    except pa.ArrowException as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _read_group(columns: Columns, split: str, path: str, number: int, rows: int) -> _Group:
    digest = hashlib.sha256(f"{split}\0{number}\0{rows}\0".encode())
    splits: Mapping[str, Positions] = {split: rows}
    if columns.split is not None:
        splits = _rows_of_splits(read_column(path, number, columns.split), path, columns.split)
        for name, positions in splits.items():
            digest.update(name.encode() + b"\0" + np.asarray(positions).tobytes())
    labels, highest = None, -1
    if columns.label is not None:
        stored = read_column(path, number, columns.label)
        labels, highest = _labels(stored, path, columns.label)
        digest.update(repr(stored.to_pylist()).encode("utf-8", "surrogatepass"))
    hashes = np.empty(0, np.int64)
    if columns.record_id is not None:
        ids = _ids(path, number, columns.record_id)
        hashes = hashes_of(ids)
        digest.update("\0".join(map(decoded, ids.to_pylist())).encode("utf-8", "surrogatepass"))
    return _Group(path, number, splits, labels, highest, hashes, digest.digest())


def _texts(values: Any, path: str, column: str) -> list[str]:
    if values.null_count:
        row = pc.is_null(values).to_pylist().index(True)
        raise DataError(f"{path}: {column} is empty in row {row} of {len(values)}.")
    return [str(value) for value in values.to_pylist()]


def _ids(path: str, number: int, column: str) -> Any:
    """The ids of a row group, as an array of `TEXT`."""
    texts = _texts(read_column(path, number, column), path, column)
    if len(longest := max(texts, key=len, default="")) > MAX_ID_LENGTH:
        raise DataError(
            f"{path}: {column}: the id {longest[:40]}… has {len(longest):,} characters; at most "
            f"{MAX_ID_LENGTH:,}. Is this the column of the ids?"
        )
    return pa.array(map(encoded, texts), TEXT)


def _rows_of_splits(values: Any, path: str, column: str) -> dict[str, Positions]:
    texts = np.array([SPLITS.get(t.lower(), t) for t in _texts(values, path, column)], object)
    return {name: np.flatnonzero(texts == name) for name in sorted(set(texts))}


def _labels(values: Any, path: str, column: str) -> tuple[tuple[str, ...] | int | None, int]:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if not pa.types.is_integer(values.type):
        return tuple(pc.unique(values.cast(pa.string())).drop_null().to_pylist()), -1
    highest = pc.max(values).as_py()
    if highest is None or highest < 0:
        return None, -1
    if highest >= MAX_CLASSES:
        raise DataError(
            f"{path}: {column} goes up to {highest}; labels are indices of classes, from 0 to at "
            f"most {MAX_CLASSES - 1}, and negative where unknown."
        )
    return highest, values.index(highest).as_py()


def _splits(columns: Columns, groups: Sequence[_Group]) -> dict[str, TableIndex]:
    names = sorted({name for group in groups for name in group.splits})
    return {
        name: index_of(
            name,
            columns,
            [(g.path, g.number, g.splits[name]) for g in groups if name in g.splits],
        )
        for name in names
    }


def _check_ids(column: str, groups: Sequence[_Group]) -> None:
    every = (_ids(group.path, group.number, column) for group in groups)
    if twice := repeated(lambda: every, [group.id_hashes for group in groups]):
        named = ", ".join(twice[:5]) + (", …" if twice[5:] else "")
        raise DataError(f"{len(twice):,} record ids occur more than once: {named}.")


def _classes(
    splits: Mapping[str, TableIndex],
    columns: Columns,
    groups: Sequence[_Group],
    option: tuple[str, ...] | None,
) -> tuple[tuple[str, ...], tuple[str, int] | None]:
    """Names that are given or that the labels are, and the record with the highest number."""
    given = given_names([columns.class_names], option)
    texts = {name for g in groups if isinstance(g.labels, tuple) for name in g.labels}
    if unknown := sorted(texts - set(given)) if given else []:
        raise DataError(
            f"{columns.label}: there is a label {unknown[0]}, but the classes are "
            f"{', '.join(given[:20])}. Set data.classes."
        )
    numbers = [(g.labels, g) for g in groups if isinstance(g.labels, int)]
    if not numbers:
        return given or names_of_texts(texts), None
    label, group = max(numbers, key=lambda of: of[0])
    return given, (_id_of(splits, group), label)


def _id_of(splits: Mapping[str, TableIndex], group: _Group) -> str:
    """The id of the record with the highest label of a row group."""
    for index in splits.values():
        row = 0
        for piece in index.pieces(0, len(index)):
            if (piece.path, piece.group) == (group.path, group.number):
                at = np.flatnonzero(piece.positions == group.highest)
                if len(at):
                    return index.record_ids(row + int(at[0]), row + int(at[0]) + 1)[0]
            row += len(piece.positions)
    raise AssertionError(group)

"""Records of tables as runs of rows in row groups: small to pickle, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.parquet.columns import Columns
from artifactgen.data.parquet.tables import read_column

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one row group, at their positions in it."""

    path: str
    group: int
    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TableIndex:
    """The records of a split; see `artifactgen.data.base.SplitIndex`."""

    split: str
    columns: Columns
    """Without one of ids, they are `<split>_<row>`, the row in six digits or more."""
    paths: tuple[str, ...]
    files: NDArray[np.int32]
    """Of each row group, the index of its path."""
    groups: NDArray[np.int32]
    """Of each row group, its number in the file."""
    ends: NDArray[np.int64]
    """Of each row group, the row of the split where it ends."""
    positions: NDArray[np.int32] | None = None
    """Of each record, its position in its row group; None where all rows are of the split."""

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def record_ids(self, start: int, stop: int) -> list[str]:
        column = self.columns.record_id
        if column is None:
            return [f"{self.split}_{row:0{_DIGITS}d}" for row in range(start, min(stop, len(self)))]
        return [name for piece in self.pieces(start, stop) for name in _ids(piece, column)]

    def starts(self) -> list[int]:
        """The rows of the split that are the first of a row group."""
        return [0, *self.ends[:-1].tolist()] if len(self.ends) else []

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The row groups that hold rows `start` to `stop` of the split, with those rows."""
        for i in range(int(np.searchsorted(self.ends, start, "right")), len(self.ends)):
            begin, end = int(self.ends[i - 1]) if i else 0, int(self.ends[i])
            if begin >= stop:
                return
            first, last = max(start, begin), min(stop, end)
            positions = (
                np.arange(first - begin, last - begin)
                if self.positions is None
                else self.positions[first:last].astype(np.int64)
            )
            yield Piece(self.paths[self.files[i]], int(self.groups[i]), positions)


def index_of(
    split: str, columns: Columns, runs: Sequence[tuple[str, int, int | NDArray[np.int64]]]
) -> TableIndex:
    """The index of a split.

    Args:
        split: its name.
        columns: that are read.
        runs: path, row group, and the positions in it: those, or how many where all are taken.
    """
    runs = [run for run in runs if (run[2] if isinstance(run[2], int) else len(run[2]))]
    paths = tuple(dict.fromkeys(path for path, _, _ in runs))
    numbers = {path: number for number, path in enumerate(paths)}
    chosen = [rows for _, _, rows in runs if not isinstance(rows, int)]
    counts = [rows if isinstance(rows, int) else len(rows) for _, _, rows in runs]
    return TableIndex(
        split=split,
        columns=columns,
        paths=paths,
        files=np.array([numbers[path] for path, _, _ in runs], np.int32),
        groups=np.array([group for _, group, _ in runs], np.int32),
        ends=np.cumsum(counts, dtype=np.int64),
        positions=np.concatenate(chosen).astype(np.int32) if chosen else None,
    )


def _ids(piece: Piece, column: str) -> list[str]:
    values = read_column(piece.path, piece.group, column)
    return [str(value) for value in values.take(piece.positions).to_pylist()]

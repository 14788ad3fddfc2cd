"""The manifest: one row for each record of the data set, as Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifactgen.store.atomic import replacing
from artifactgen.store.rows import Row
from artifactgen.store.text import storable
from artifactgen.types import SUPPORTED

_ROWS_PER_GROUP = 65_536
_BYTES_PER_GROUP = 64 << 20
"""Of the paths of pictures: of a record with 1,000 classes there are 1,000, and Arrow's columns of
text hold 2 GiB."""
FAILED = "failed"


def schema(kinds: Sequence[str]) -> pa.Schema:
    """Columns of the manifest: the record, and for each kind its status and its pictures."""
    fixed = [
        ("record_id", pa.string()),
        ("split", pa.string()),
        ("position", pa.int64()),  # in the data set's split
        ("row", pa.int64()),  # in the split's .pt; null where the record has none
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("error", pa.string()),
    ]
    statuses = [(kind, pa.string()) for kind in kinds]
    files = [(f"{kind}_files", pa.list_(pa.string())) for kind in kinds]
    return pa.schema([*fixed, *statuses, *files])


def manifest_row(row: Row, *, pt_row: int | None, status: dict[str, str]) -> dict[str, Any]:
    """A record as the manifest has it.

    Args:
        row: the record.
        pt_row: its row in the split's `.pt`.
        status: kind of artifact to `ok`, `off` or `unsupported: …`, for a record without failure.
    """
    failed = row.failure is not None
    return {
        "record_id": storable(row.record_id),
        "split": storable(row.split),
        "position": row.position,
        "row": pt_row,
        "label": None if failed else row.label,
        "prediction": row.prediction,
        "error": storable(f"{row.failure.stage}: {row.failure.reason}") if row.failure else None,
        **{k: FAILED if failed and s == SUPPORTED else s for k, s in status.items()},
        **{f"{kind}_files": list((row.files or {}).get(kind, ())) for kind in status},
    }


def write_manifest(
    path: Path, rows: Iterable[dict[str, Any]], *, kinds: Sequence[str], temp_dir: Path
) -> None:
    """Write rows with flat memory."""
    columns = schema(kinds)
    files = [f"{kind}_files" for kind in kinds]
    with replacing(path, temp_dir=temp_dir) as temp, pq.ParquetWriter(temp, columns) as writer:
        for group in _groups(rows, files):
            writer.write_table(pa.Table.from_pylist(group, schema=columns))


def _groups(rows: Iterable[dict[str, Any]], files: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups that are bounded in number and in bytes of paths."""
    group: list[dict[str, Any]] = []
    size_bytes = 0
    for row in rows:
        group.append(row)
        size_bytes += sum(len(path) for column in files for path in row[column])
        if len(group) == _ROWS_PER_GROUP or size_bytes >= _BYTES_PER_GROUP:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def concatenate(path: Path, parts: Sequence[Path], *, temp_dir: Path) -> None:
    """Join the manifests of scopes into the run's, one row group at a time."""
    with replacing(path, temp_dir=temp_dir) as temp:
        columns = pq.read_schema(parts[0])
        with pq.ParquetWriter(temp, columns) as writer:
            for part in parts:
                file = pq.ParquetFile(part)
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))

"""The rows of a scope's records, in the data set's order, from its committed shards.

Shards are read one after another, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import RunError
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import is_intact
from artifactgen.store.shardfile import read_shard
from artifactgen.types import UNKNOWN_LABEL, Failure, Receipt


@dataclass(frozen=True, slots=True)
class Row:
    """One record as the manifest lists it."""

    record_id: str
    split: str
    position: int
    """Position in the data set's split."""
    label: int = UNKNOWN_LABEL
    prediction: int | None = None
    files: Mapping[str, Sequence[str]] | None = None
    """Artifact to picture files, relative to the output directory."""
    failure: Failure | None = None
    embedding: NDArray[np.float32] | None = None


def read_rows(layout: Layout, receipts: Sequence[Receipt]) -> Iterator[Row]:
    """The rows of shards in the data set's order, failed records in their places.

    Raises:
        RunError: a shard file is not what its ledger entry says.
    """
    for receipt in receipts:
        for file in receipt.files:
            if not is_intact(layout.root, file):
                raise RunError(
                    f"{file.path} changed after it was committed (another size or checksum).\n"
                    "Run the same command again: that shard alone is done again."
                )
        yield from sorted(_rows(layout, receipt), key=lambda row: row.position)


def _rows(layout: Layout, receipt: Receipt) -> Iterator[Row]:
    split = receipt.shard.split
    for failure in receipt.failures:
        yield Row(failure.record_id, split, failure.row, failure=failure)
    shard = read_shard(layout.root / receipt.shard_file.path)
    embeddings, predictions = shard.columns.get("embeddings"), shard.columns.get("predictions")
    for i, record_id in enumerate(shard.record_ids):
        yield Row(
            record_id,
            split,
            int(shard.columns["rows"][i]),
            label=int(shard.columns["labels"][i]),
            prediction=None if predictions is None else int(predictions[i]),
            files={kind: list(paths) for kind, paths in shard.pictures[i].items()},
            embedding=None if embeddings is None else embeddings[i],
        )

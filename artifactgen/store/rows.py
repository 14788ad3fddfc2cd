"""Merging committed shards into what users load: `.pt` files and the rows of the manifest.

Shards are read one after another in the data set's order, so memory does not grow with the
embeddings; only ids and labels are held. Nothing takes its final name before it was read back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactgen.errors import RunError
from artifactgen.store.atomic import replacing
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import is_intact
from artifactgen.store.shardfile import read_columns
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
    embedding: Tensor | None = None


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
    arrays, strings = read_columns(layout.root / receipt.files[0].path)
    embeddings = torch.from_numpy(arrays["embeddings"]) if "embeddings" in arrays else None
    predictions = arrays.get("predictions")
    for i, record_id in enumerate(strings["record_ids"]):  # as JSON, which holds any text
        yield Row(
            json.loads(record_id),
            split,
            int(arrays["rows"][i]),
            label=int(arrays["labels"][i]),
            prediction=None if predictions is None else int(predictions[i]),
            files=json.loads(strings["files"][i]),
            embedding=None if embeddings is None else embeddings[i],
        )


class EmbeddingsFile:
    """A `.pt` file of N embeddings that is filled row by row.

    The rows go to a file-backed tensor: the operating system holds as much of it in memory as is
    convenient, and `torch.save` streams it from there.
    """

    def __init__(self, scratch: Path, *, records: int, shape: Sequence[int]) -> None:
        self._embeddings = _map_zeros(scratch, records * math.prod(shape)).view(records, *shape)
        self._record_ids: list[str] = []
        self._labels: list[int] = []

    def append(self, record_id: str, embedding: Tensor, label: int) -> None:
        """Add the next row."""
        self._embeddings[len(self._record_ids)] = embedding
        self._record_ids.append(record_id)
        self._labels.append(label)

    def save(
        self, path: Path, *, classes: Sequence[str], meta: Mapping[str, Any], temp_dir: Path
    ) -> None:
        """Write the file, read it back, and only then give it its name."""
        assert len(self._record_ids) == len(self._embeddings)
        content = {
            "embeddings": self._embeddings,
            "record_ids": self._record_ids,
            "labels": torch.tensor(self._labels, dtype=torch.int64),
            "classes": list(classes),
            "meta": dict(meta),
        }
        with replacing(path, temp_dir=temp_dir) as temp:
            with temp.open("wb") as file:  # by handle: by path, torch stores the file's name
                torch.save(content, file)
            _check_equal(temp, content)


def _map_zeros(scratch: Path, size: int) -> Tensor:
    """A float32 tensor that lives in a file without a name, gone when the tensor is dropped.

    Its space is taken at once: on a full disk that raises, where a write through the mapping
    would kill the process.
    """
    if not size:
        return torch.empty(0)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        with scratch.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size * torch.float32.itemsize)
        return torch.from_file(str(scratch), shared=True, size=size)
    finally:
        scratch.unlink()


def _check_equal(path: Path, content: Mapping[str, Any]) -> None:
    stored = torch.load(path, mmap=True, weights_only=True)
    same = all(torch.equal(stored[key], content[key]) for key in ("embeddings", "labels")) and all(
        stored[key] == content[key] for key in ("record_ids", "classes", "meta")
    )
    if not same:
        raise RunError(f"{path} reads back other than it was written: check this disk.")
